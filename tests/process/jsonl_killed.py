"""Kills a bridge at chosen places of its own code, has others go on, and compares what their journals hold.

`python jsonl_killed.py DIRECTORY POINTS SEED`. A place is the n-th line of code that a bridge executes in the files
that matter, so every place between two lines can be hit, not only those where a process spends its time. Prints one
line for each failure, and at the end how many places were tried.
"""

import json
import os
import random
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from types import FrameType
from typing import Any

from process.jsonl_program import Tally, objects

from runlane.config.load import load
from runlane.config.settings import Settings
from runlane.transport.endpoint import RoleLock
from runlane.transport.journal_reader import JournalReader, has_begun
from runlane.transport.record_batch import RecordBatch
from runlane.transport.records import EpisodeRecord, InfoRecord, LogRecord, MetricRecord
from runlane.transport.spool import BRIDGE_ROLE, OUT_FILE, SpoolEnd, SpoolInfo, make_spool, write_end, write_info
from runlane.transport.wire import decode_header
from runlane.workers.jsonl_bridge import Bridge

LINES = 30
TRACED = ("jsonl_", "session.py", "journal_writer.py", "episode_writer.py", "stream_writer.py")


class Killer:
    """Kills this process at the n-th line of the traced files; only counts when n is 0."""

    def __init__(self, at: int) -> None:
        self.count = 0
        self._at = at

    def __call__(self, frame: FrameType, event: str, _argument: object) -> Any:
        if not Path(frame.f_code.co_filename).name.startswith(TRACED):
            return None
        if event == "line":
            self.count += 1
            if self.count == self._at:
                os.kill(os.getpid(), signal.SIGKILL)
        return self


def bridge(spool: Path, settings: Settings, at: int) -> tuple[bool, int]:
    """Run a bridge in a process of its own; whether it came to its end, and how many lines of code it executed."""
    read, write = os.pipe()
    pid = os.fork()
    if not pid:
        code = 1
        try:
            killer = Killer(at)
            with RoleLock(spool, BRIDGE_ROLE):
                found = Bridge(spool, settings, f"ipc://{settings.data_dir}/nobody.ipc")
                sys.settrace(killer)
                found.run()
                sys.settrace(None)
            os.write(write, str(killer.count).encode())
            code = 0
        finally:
            os._exit(code)
    os.close(write)
    with os.fdopen(read) as pipe:
        count = pipe.read()
    _, status = os.waitpid(pid, 0)
    if os.WIFEXITED(status) and os.WEXITSTATUS(status):
        raise SystemExit(f"the bridge failed by itself, killed at {at}")
    return not os.WIFSIGNALED(status), int(count or 0)


def held(settings: Settings) -> dict[str, list[Any]]:
    """What all journals hold together, in the shape of a `Tally`."""
    found: dict[str, list[Any]] = {"actions": [], "episodes": [], "infos": [], "metrics": [], "texts": []}
    for journal in sorted((Path(settings.data_dir) / "journals").iterdir()):
        if not has_begun(journal):  # killed as it was made
            continue
        for batch in batches(journal):
            if batch.kind == "step":
                found["actions"] += batch.columns["action"].tolist()
            else:
                for record in batch.records:
                    take(found, record)
    return {name: sorted(values) for name, values in found.items()}


def take(found: dict[str, list[Any]], record: object) -> None:
    """Sort one record into what was found."""
    if isinstance(record, EpisodeRecord):
        length = (record.length, record.outcome)
        found["episodes"].append((record.env_index, record.episode, record.episode_return, *length))
    elif isinstance(record, InfoRecord):
        found["infos"].append(record.info["number"])
    elif isinstance(record, MetricRecord):
        found["metrics"].append((record.name, record.value))
    elif isinstance(record, LogRecord) and record.text.startswith("info of environment"):
        found["infos"].append(json.loads(record.text.partition(": ")[2])["number"])
    elif isinstance(record, LogRecord):
        found["texts"].append(record.text)


def batches(journal: Path) -> Iterator[RecordBatch]:
    """What a journal holds, as a subscriber would be given it."""
    reader = JournalReader(journal)
    try:
        reader.seek(1)
        while (batch := reader.read_final(0, 0)) is not None:
            assert reader.info is not None
            header = decode_header(batch.frames[0])
            for section, body in zip(header.sections, batch.frames[1:], strict=True):
                yield RecordBatch(reader.info, header, section, body)
    finally:
        reader.close()


def expected(lines: int, seed: int) -> dict[str, list[Any]]:
    """What has to be there."""
    tally = Tally(lines, seed)
    lists = (tally.actions, tally.episodes, tally.infos, tally.metrics, tally.texts)
    return {
        name: sorted(values)  # type: ignore[type-var]
        for name, values in zip(("actions", "episodes", "infos", "metrics", "texts"), lists, strict=True)
    }


def attempt(directory: Path, text: bytes, kills: list[int]) -> tuple[dict[str, list[Any]], int]:
    """One spool, bridged by processes that are killed at these places, and by a last one that is not."""
    settings = load(
        environment={},
        arguments=[
            f"data_dir={directory}",
            f"transport.run_dir={directory}/run",
            "session.close_s=0.01",
            "journal.sync_ms=0",
        ],
    )
    spool = make_spool(settings)
    (spool / OUT_FILE).write_bytes(text)
    write_info(spool, SpoolInfo(run="run-1", worker="w", source="stdout"))
    write_end(spool, SpoolEnd(state="finished", exit_code=0))
    count = 0
    for at in (*kills, 0):
        has_ended, count = bridge(spool, settings, at)
        if has_ended:
            break
    assert not spool.exists(), "the spool is left"
    return held(settings), count


def main() -> None:
    """Try so many places."""
    directory, points, seed = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
    dice = random.Random(seed)  # noqa: S311  no cryptography
    text = "".join(f"{line if isinstance(line, str) else json.dumps(line)}\n" for line in objects(LINES, seed)).encode()
    wanted = expected(LINES, seed)
    found, count = attempt(directory / "whole", text, [])
    failures = int(found != wanted)
    for number in range(points):
        kills = [dice.randrange(1, count) for _ in range(dice.choice((1, 1, 2, 4)))]
        found, _ = attempt(directory / str(number), text, kills)
        if found != wanted:
            failures += 1
            wrong = {name: (found[name], wanted[name]) for name in wanted if found[name] != wanted[name]}
            print(f"killed at {kills}: {wrong}")
    print(f"{points} places of {count} tried, {failures} failures")
    sys.exit(min(failures, 1))


if __name__ == "__main__":
    main()
