"""Compares the oracle's files with the database, record by record, by SQLite's own module and the documented views."""

import json
import sqlite3
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from chaos.oracle_lines import Kind, Line, digest_of, read_oracle

# A record may be stored though its call never returned: one call's worth, and what close() adds for open episodes.
MOST_UNRETURNED = 32

_STEPS = """
SELECT seq, env_index, episode, step, terminated, truncated, is_reset, actor = 'human', reward, action, observation
  FROM step_records WHERE stream = ? ORDER BY seq, env_index
"""
_OTHERS = {
    Kind.EPISODE: "SELECT seq, env_index, episode, episode_return, length, outcome FROM episodes WHERE stream = ?",
    Kind.METRIC: "SELECT seq, name, step, value FROM metrics WHERE stream = ?",
    Kind.LOG: "SELECT seq, level, text FROM logs WHERE stream = ?",
    Kind.RUN: "SELECT seq, state FROM run_states WHERE stream = ?",
}
_INFOS = "SELECT seq, env_index, info FROM infos WHERE stream = ?"
_SOURCE_DROPS = "SELECT DISTINCT first_seq FROM drops WHERE stream = ? AND noted_by = 'source'"
_NOTED_GAPS = "SELECT first_seq, last_seq, reason FROM drops WHERE stream = ? AND noted_by = 'db_writer'"
_COUNTERS = "SELECT steps, episodes, last_seq, state FROM streams WHERE stream = ?"
_ENDED = ("finished", "failed", "killed", "stopped")
_EPISODES = """
SELECT r.id, r.episode_return, r.length FROM episode_rows AS r JOIN streams AS s ON r.id >> 40 = s.stream_no
 WHERE s.stream = ? ORDER BY r.id
"""
_BUCKETS = """
SELECT first_id, last_id, b.episodes, returns, min_return, max_return, sum_length
  FROM episode_rollups AS b JOIN streams USING (stream_no) WHERE stream = ? AND level = 4 ORDER BY bucket
"""
BUCKET_EPISODES = 16


class Finding(NamedTuple):
    """One record that is not as it has to be. `what` is lost, doubled or wrong; `time_ns` when its call returned."""

    what: str
    stream: str
    seq: int
    time_ns: int
    detail: str


class Stored(NamedTuple):
    """One record as the database has it. Only records that the oracle may know have a digest."""

    kind: Kind
    digest: bytes


@dataclass(slots=True)
class Verdict:
    """What was compared and what was found. `returned_ns` has the moment of every record the oracle knows."""

    returned_ns: list[int] = field(default_factory=list[int])
    findings: list[Finding] = field(default_factory=list[Finding])
    unreturned: int = 0

    def count(self, what: str) -> int:
        """Findings of one sort."""
        return sum(1 for finding in self.findings if finding.what == what)


def judge(database: Path, oracle: Path) -> Verdict:
    """Compare everything. No graph may be running."""
    verdict = Verdict()
    known = read_oracle(oracle)
    # Not `mode=ro`: the first reader of a database in WAL mode makes the files beside it.
    with closing(sqlite3.connect(database)) as connection:
        connection.execute("PRAGMA query_only = 1")
        problems = [text for (text,) in connection.execute("PRAGMA integrity_check") if text != "ok"]
        verdict.findings += [Finding("wrong", "", 0, 0, f"integrity_check: {problem}") for problem in problems]
        for stream, lines in known.items():
            _judge_stream(connection, stream, lines, verdict)
        _judge_strangers(connection, known, verdict)
    return verdict


def _judge_stream(connection: sqlite3.Connection, stream: str, lines: list[Line], verdict: Verdict) -> None:
    stored: dict[int, list[Stored]] = {}
    for seq, found in _stored_records(connection, stream):
        stored.setdefault(seq, []).append(found)
    times = {line.seq: line.time_ns for line in lines}
    last_seq = max((line.seq for line in lines), default=0)
    expected = 0
    for line in lines:
        if line.is_record:
            verdict.returned_ns.append(line.time_ns)
        for finding in _judge_line(stream, line, stored, expected):
            verdict.findings.append(finding)
        expected = max(expected, line.seq)
    for seq, copies in stored.items():
        time_ns = times.get(seq, lines[-1].time_ns if lines else 0)
        for _ in copies[1:]:
            kinds = ", ".join(one.kind.name for one in copies)
            verdict.findings.append(Finding("doubled", stream, seq, time_ns, f"stored as {kinds}"))
    unreturned = sum(1 for seq in stored if seq > last_seq)
    verdict.unreturned += unreturned
    if unreturned > MOST_UNRETURNED:
        end_ns = lines[-1].time_ns if lines else 0
        verdict.findings.append(Finding("wrong", stream, last_seq, end_ns, f"{unreturned} records nobody made"))
    _judge_accounts(connection, stream, last_seq, times, stored, verdict)


def _judge_line(stream: str, line: Line, stored: dict[int, list[Stored]], before: int) -> Iterator[Finding]:
    """What one line says against what is stored; `before` is the newest seq of the lines before it."""
    if line.kind is Kind.DROPPED:
        yield Finding("lost", stream, line.seq, line.time_ns, "its call returned, and it got no seq")
        return
    if line.kind is Kind.CLOSED:
        for seq in range(before + 1, line.seq + 1):
            if seq not in stored:
                yield Finding("lost", stream, seq, line.time_ns, "close() said that it is committed")
        return
    if line.seq != before + 1:
        yield Finding("wrong", stream, line.seq, line.time_ns, f"the oracle's own file: seq {line.seq} after {before}")
    found = stored.get(line.seq)
    if found is None:
        yield Finding("lost", stream, line.seq, line.time_ns, f"a returned {line.kind.name} is not stored")
    elif line.is_record and Stored(line.kind, line.digest) not in found:
        kinds = ", ".join(one.kind.name for one in found)
        yield Finding("wrong", stream, line.seq, line.time_ns, f"a {line.kind.name} is stored as another {kinds}")


def _judge_accounts(
    connection: sqlite3.Connection,
    stream: str,
    last_seq: int,
    times: dict[int, int],
    stored: dict[int, list[Stored]],
    verdict: Verdict,
) -> None:
    """The database's own accounts must agree with its rows: gaps it noted, and the counters of the stream."""
    end_ns = times.get(last_seq, 0)
    for first, last, reason in connection.execute(_NOTED_GAPS, (stream,)):
        is_there = any(seq in stored for seq in range(first, min(last, last_seq) + 1))
        if is_there and reason == "gap":
            detail = f"{first} to {last} are noted as missing, and some are there"
            verdict.findings.append(Finding("wrong", stream, first, times.get(first, end_ns), detail))
    counters = connection.execute(_COUNTERS, (stream,)).fetchone()
    if counters is None:
        return
    [(steps,)] = connection.execute("SELECT count(*) FROM steps WHERE stream = ?", (stream,))
    episodes = sum(1 for found in stored.values() for one in found if one.kind is Kind.EPISODE)
    rows = steps, episodes, max(stored, default=0)
    problems = [f"streams says steps, episodes, last_seq {counters[:3]}, the rows {rows}"] * (rows != counters[:3])
    problems += [f"its worker is dead, and its state is {counters[3]}"] * (counters[3] not in _ENDED)
    problems += ["its buckets of episodes are not the sums of its episodes"] * (not _are_sums(connection, stream))
    verdict.findings += [Finding("wrong", stream, last_seq, end_ns, problem) for problem in problems]


def _are_sums(connection: sqlite3.Connection, stream: str) -> bool:
    """Whether the buckets of 16 episodes say what their episodes say: one stored again must not count again."""
    episodes = connection.execute(_EPISODES, (stream,)).fetchall()
    expected: list[tuple[Any, ...]] = []
    for start in range(0, len(episodes), BUCKET_EPISODES):
        part = episodes[start : start + BUCKET_EPISODES]
        returns = [value for _, value, _ in part if value is not None]
        ends = (min(returns), max(returns)) if returns else (None, None)
        expected.append((part[0][0], part[-1][0], len(part), len(returns), *ends, sum(row[2] for row in part)))
    return connection.execute(_BUCKETS, (stream,)).fetchall() == expected


def _judge_strangers(connection: sqlite3.Connection, known: dict[str, list[Line]], verdict: Verdict) -> None:
    """A stream without an oracle's file may have said hello, and no more: its worker died in `attach()`.

    Steps under an id nobody made would be records stored a second time.
    """
    for (stream,) in connection.execute("SELECT stream FROM streams").fetchall():
        if stream not in known:
            for seq, found in _stored_records(connection, stream):
                if found.kind is not Kind.RUN:
                    verdict.findings.append(Finding("doubled", stream, seq, 0, "in a stream of no worker"))


def _stored_records(connection: sqlite3.Connection, stream: str) -> Iterator[tuple[int, Stored]]:
    """Every record of a stream by its seq, as often as it is stored."""
    rows = connection.execute(_STEPS, (stream,)).fetchall()
    per_env = Counter(row[:2] for row in rows)
    by_seq: dict[int, list[tuple[Any, ...]]] = {}
    for row in rows:
        by_seq.setdefault(row[0], []).append(row[1:])
    for seq, found in by_seq.items():
        if all(per_env[seq, row[0]] == 1 for row in found):  # one step of one environment, or of several
            yield seq, Stored(Kind.STEP, digest_of(tuple(found)))
        else:
            for row in found:
                yield seq, Stored(Kind.STEP, digest_of((row,)))
    for kind, sql in _OTHERS.items():
        for seq, *values in connection.execute(sql, (stream,)):
            yield seq, Stored(kind, digest_of(tuple(values)))
    for seq, env_index, text in connection.execute(_INFOS, (stream,)):
        yield seq, Stored(Kind.INFO, digest_of((env_index, tuple(sorted(json.loads(text).items())))))
    for (seq,) in connection.execute(_SOURCE_DROPS, (stream,)):
        yield seq, Stored(Kind.EXTRA, b"")
