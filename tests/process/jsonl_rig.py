"""What the tests of JSON lines share: `runlane run --jsonl` beside a graph, its spool, and what came of it in SQL."""

import contextlib
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any, Self

from process.graph_under_test import GraphUnderTest, wait_until
from process.jsonl_program import Tally, objects, text_of

from runlane.transport.spool import BRIDGE_ROLE, INFO_FILE, OUT_FILE, PLACE_FILE, read_info, spools_dir
from runlane.workers.jsonl_place import Place

PROGRAM = Path(__file__).with_name("jsonl_program.py")
RUN_DEADLINE_S = 150.0


class ForeignRun:
    """One `runlane run --jsonl`. Leaving the `with` ends it, by force if need be."""

    def __init__(self, graph: GraphUnderTest, source: str, *command: str) -> None:
        self.graph = graph
        self.known = set(self.spools())
        arguments = [sys.executable, "-m", "runlane", "run", *graph.options, "--jsonl", source, "--", *command]
        self.process = subprocess.Popen(
            arguments,
            stdin=subprocess.PIPE,  # a program that reads it waits
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)  # the program, too
        for pipe in (self.process.stdin, self.process.stdout, self.process.stderr):
            if pipe is not None:
                pipe.close()
        self.process.wait(30)

    def spools(self) -> list[Path]:
        """Spools of the graph's data directory."""
        directory = spools_dir(self.graph.settings)
        return sorted(directory.iterdir()) if directory.is_dir() else []

    def spool(self) -> Path:
        """That of this run."""
        found = wait_until(self._new_spools, "the run has a spool")
        return Path(found[0])

    def _new_spools(self) -> list[Path]:
        return [path for path in self.spools() if path not in self.known and (path / INFO_FILE).exists()]

    def program_pid(self) -> int:
        """Process of the program."""
        return int(wait_until(lambda: read_info(self.spool()).pid, "the program has started"))

    def kill(self) -> None:
        """`kill -9` of the launcher alone."""
        self.process.kill()
        self.process.wait(30)

    def end(self) -> tuple[int, str, str]:
        """Exit code, output and standard error of the whole command."""
        out, err = self.process.communicate(timeout=RUN_DEADLINE_S)
        return self.process.returncode, out, err


def bridge_pid(spool: Path) -> int:
    """Process that bridges a spool; 0 for none."""
    try:
        pid = int((spool / f"{BRIDGE_ROLE}.lock").read_text() or "0")
        os.kill(pid, 0)
    except (OSError, ValueError):
        return 0
    return pid


def read_bytes(spool: Path) -> int:
    """How much of a spool is recorded, as the place has it; -1 before there is one, or once all is."""
    if not (spool / PLACE_FILE).exists():
        return -1
    try:
        place = Place(spool / PLACE_FILE)
        found = place.find()
        place.close()
    except Exception:
        return -1
    return -1 if found is None else found.offset + found.lines


def await_all_written(spool: Path, lines: int, seed: int) -> None:
    """Wait until the program's last line is in the spool: what it has not written yet nobody can store."""
    size = sum(len(text_of(line)) for line in objects(lines, seed))
    wait_until(lambda: (spool / OUT_FILE).stat().st_size == size, "all is written")


def stored(graph: GraphUnderTest) -> dict[str, list[Any]]:
    """What is in the database, in the shape of a `Tally`."""
    infos = [json.loads(row[0])["number"] for row in graph.sql("SELECT info FROM steps WHERE info IS NOT NULL")]
    logs = [row[0] for row in graph.sql("SELECT text FROM logs")]
    beside = [json.loads(text.partition(": ")[2])["number"] for text in logs if text.startswith("info of environment")]
    return {
        "actions": [row[0] for row in graph.sql("SELECT action FROM steps ORDER BY action")],
        "episodes": graph.sql(
            "SELECT env_index, episode, episode_return, length, outcome FROM episodes ORDER BY env_index, episode"
        ),
        "infos": sorted(infos + beside),
        "metrics": graph.sql("SELECT name, value FROM metrics ORDER BY name, value"),
        "texts": sorted(text for text in logs if text.startswith("text ")),
    }


def expected(lines: int, seed: int) -> dict[str, list[Any]]:
    """What has to be there."""
    tally = Tally(lines, seed)
    return {
        "actions": sorted(tally.actions),
        "episodes": sorted(tally.episodes),
        "infos": sorted(tally.infos),
        "metrics": sorted(tally.metrics),
        "texts": sorted(tally.texts),
    }
