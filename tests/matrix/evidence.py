"""What the database says of one run, in the words of a script's own count."""

from collections import defaultdict
from pathlib import Path
from typing import Any

from runlane.actors.store_reader import query
from runlane.workers.hooked_session import METRICS_SUFFIX

_SCALARS = f"-{METRICS_SUFFIX}"

# All records of a stream, each seq once: a vector step has a row for each environment in the view.
_SEQS = """
SELECT seq FROM (SELECT DISTINCT seq FROM step_records WHERE stream = ?1)
UNION ALL SELECT seq FROM episodes WHERE stream = ?1
UNION ALL SELECT seq FROM metrics WHERE stream = ?1
UNION ALL SELECT seq FROM logs WHERE stream = ?1
UNION ALL SELECT seq FROM infos WHERE stream = ?1
UNION ALL SELECT seq FROM run_states WHERE stream = ?1
ORDER BY seq
"""


class Evidence:
    """One run of a database, by its name; the streams of its workers, not those of their proxies."""

    def __init__(self, database: Path, name: str) -> None:
        """Reads which streams there are; none without a database."""
        self._database = database
        self.streams: list[dict[str, Any]] = []
        if not database.exists():
            return
        self.streams = [
            dict[str, Any](zip(("stream", "worker", "forked_from", "steps", "episodes", "last_seq"), row, strict=True))
            for row in self._rows(
                "SELECT stream, worker, forked_from, streams.steps, streams.episodes, last_seq "
                "FROM streams JOIN runs USING (run) "
                "WHERE name = ? AND worker NOT LIKE 'proxy-%' ORDER BY stream_no",
                name,
            )
        ]

    def _rows(self, statement: str, *bindings: str) -> list[tuple[Any, ...]]:
        return list(query(self._database, statement, bindings)[1])

    def environments(self) -> list[dict[str, Any]]:
        """Each environment that made a step: its steps, and its episodes by how they ended."""
        found: list[dict[str, Any]] = []
        for stream in self.streams:
            by_index: dict[int, dict[str, Any]] = defaultdict(lambda: {"steps": 0, "ended": [], "abandoned": []})
            key = stream["stream"]
            for index, steps in self._rows("SELECT env_index, count(*) FROM steps WHERE stream = ? GROUP BY 1", key):
                by_index[index]["steps"] = steps
            ends = "SELECT env_index, length, episode_return, outcome FROM episodes WHERE stream = ?"
            for index, length, total, outcome in self._rows(ends, key):
                by_index[index]["abandoned" if outcome == "abandoned" else "ended"].append((length, total))
            found += by_index.values()
        return found

    def faults(self) -> list[str]:
        """What contradicts that each record is there exactly once."""
        found: list[str] = []
        for stream in self.streams:
            key, last_seq = stream["stream"], stream["last_seq"]
            seqs = [row[0] for row in self._rows(_SEQS, key)]
            if seqs != list(range(1, last_seq + 1)):
                found.append(f"{stream['worker']}: seqs have gaps or repeat: {len(seqs)} up to {last_seq}")
            drops = self._rows("SELECT kind, reason, records FROM drops WHERE stream = ?", key)
            if drops:
                found.append(f"{stream['worker']}: drops {drops}")
            found += self._unequal_episodes(stream)
        return found

    def _unequal_episodes(self, stream: dict[str, Any]) -> list[str]:
        """Episodes whose record says another length or return than their steps do."""
        rows = self._rows(
            "SELECT episode, env_index, length, episode_return, count(steps.seq), sum(reward) FROM episodes "
            "LEFT JOIN steps USING (stream, env_index, episode) "
            "WHERE stream = ? GROUP BY episodes.stream, env_index, episode",
            stream["stream"],
        )
        wrong = [row for row in rows if row[2] != row[4] or abs(row[3] - row[5]) > 1e-6]
        return [f"{stream['worker']}: episode {row[0]} says {row[2:4]}, its steps {row[4:]}" for row in wrong]

    def slots(self) -> list[str]:
        """Names of workers: of forked streams they are the parent's, so those are left out; so is one of scalars alone.

        That is the stream of a process that steps no environment and logs what its parts have learned.
        """
        own = [stream for stream in self.streams if stream["forked_from"] is None]
        return sorted(each["worker"] for each in own if each["steps"] or not each["worker"].endswith(_SCALARS))

    def metrics(self) -> dict[str, int]:
        """How many values of each scalar."""
        found: dict[str, int] = defaultdict(int)
        for stream in self.streams:
            for name, count in self._rows(
                "SELECT name, count(*) FROM metrics WHERE stream = ? GROUP BY 1", stream["stream"]
            ):
                found[name] += count
        return found
