"""Runs a case's script, bare and under `runlane run`, and keeps all that can be seen from outside."""

import json
import os
import subprocess
import sys
import threading
import time
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Self

import psutil
import pytest
from kinds import ROOT, interpreter_of
from matrix.case import PURELIB, SCRIPTS, Case
from matrix.own_project import write_project

from runlane.transport.lane_follower import LaneFollower

DEADLINE_S = 200.0  # importing torch alone takes a minute on a machine that has much else to do
MARK = "MATRIX_RUN"  # in the environment of a script and of all that comes of it


@dataclass(frozen=True)
class Seen:
    """What a run left to be seen."""

    exit_code: int
    stdout: bytes
    stderr: bytes
    result: dict[str, Any]
    frames: int = 0  # that somebody saw who looked


class ScriptRun:
    """One case in a directory of its own."""

    def __init__(self, case: Case, directory: Path) -> None:
        """Skips the test, loudly, where the case's environment is missing."""
        self.case = case
        self.mark = f"{os.getpid()}-{time.monotonic_ns()}"
        self._directory = directory
        # A quick case may run here, if everything it imports is; any other one wants its own environment.
        here = case.modules if case.is_fast else ()
        self._python = interpreter_of(case.kind, *here) if case.kind else _own_interpreter(case)

    def bare(self) -> Seen:
        """As if runlane did not exist."""
        return self._run([], "bare")

    def recorded(self, options: list[str], watched_dir: Path | None) -> Seen:
        """Under `runlane run`; `watched_dir` is the run directory of a graph whose viewer we are."""
        command = [sys.executable, "-m", "runlane", "run", "--name", self.case.name, *options, "--"]
        return self._run(command, "recorded", watched_dir)

    def _run(self, prefix: list[str], place: str, watched_dir: Path | None = None) -> Seen:
        directory = self._directory / place
        directory.mkdir(parents=True)
        result = directory / "result.json"
        process = subprocess.Popen(
            [*prefix, str(self._python), *self.case.python_options, *self._script(), str(result), *self._arguments()],
            cwd=directory,
            env=self._environment(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        with _Viewer(watched_dir) as viewer:
            out, err = _communicate(process)
        found: dict[str, Any] = json.loads(result.read_text()) if result.exists() else {}
        return Seen(process.returncode, out, err, found, viewer.frames)

    def _script(self) -> list[str]:
        if self.case.script == "project":
            return [str(write_project(self._directory / "project"))]
        return [str(SCRIPTS / self.case.script)]

    def _arguments(self) -> list[str]:
        packages = self._python.parents[1] / f"lib/python{sys.version_info[0]}.{sys.version_info[1]}/site-packages"
        return [str(packages) if text == PURELIB else text for text in self.case.arguments]

    def _environment(self) -> dict[str, str]:
        """The same for both. Our own sources, because the interpreters of other kinds may know another checkout's."""
        paths = [str(ROOT / "src")]
        if self.case.script == "project":
            paths.insert(0, str(self._directory / "project" / "site"))
        settings = {"PYTHONPATH": os.pathsep.join(paths), "PYTHONDONTWRITEBYTECODE": "1", MARK: self.mark}
        return {**os.environ, "SDL_VIDEODRIVER": "dummy", **settings}

    def alive(self) -> list[str]:
        """Command lines of processes that come of this run and still are."""
        found: list[str] = []
        for process in psutil.process_iter(["environ", "cmdline", "status"]):
            facts: dict[str, Any] = process.info
            variables: dict[str, str] = facts["environ"] or {}
            if variables.get(MARK) == self.mark and facts["status"] != psutil.STATUS_ZOMBIE:
                found.append(" ".join(facts["cmdline"] or ()))
        return found


def _own_interpreter(case: Case) -> Path:
    missing = [module for module in case.modules if find_spec(module) is None]
    if missing:
        pytest.skip(f"NO {', '.join(missing)} for {case.name}: install the tests' packages with `make install`")
    return Path(sys.executable)


def _communicate(process: "subprocess.Popen[bytes]") -> tuple[bytes, bytes]:
    try:
        return process.communicate(timeout=DEADLINE_S)
    except subprocess.TimeoutExpired:
        for child in psutil.Process(process.pid).children(recursive=True):
            child.kill()
        process.kill()
        out, err = process.communicate()
        raise AssertionError(f"it did not end within {DEADLINE_S} s:\n{out[-2000:]!r}\n{err[-2000:]!r}") from None


class _Viewer:
    """Looks at whatever there is to see below a run directory, in a thread; nowhere without one."""

    def __init__(self, run_dir: Path | None) -> None:
        self.frames = 0
        self._run_dir = run_dir
        self._has_ended = threading.Event()
        self._thread = threading.Thread(target=self._look)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._has_ended.set()
        self._thread.join()

    def _look(self) -> None:
        if self._run_dir is None:
            return
        follower = LaneFollower(self._run_dir, rate_hz=30.0)
        while not self._has_ended.wait(0.01):
            follower.poll(time.monotonic_ns())
            self.frames += follower.read() is not None
        follower.close()
