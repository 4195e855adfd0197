"""The GUI as a process of its own: it may die at any moment, and nothing else notices."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest
from process.graph_under_test import GraphUnderTest, wait_until
from qt_here import NO_QT

from runlane.gui.run_view import accounts_of

pytestmark = [
    pytest.mark.timeout(240),
    pytest.mark.skipif(bool(NO_QT), reason=NO_QT),
]
# `RUNLANE_GUI_KILLS=20 pytest tests/process/test_gui.py` is the long form.
KILLS = int(os.environ.get("RUNLANE_GUI_KILLS", "3"))
WORKER = Path(__file__).with_name("shown_worker.py")
# Where records lie, each seq in one of them.
VIEWS = ("step_records", "episodes", "metrics", "logs", "run_states")


@pytest.fixture
def offscreen(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No display is needed, and nobody's window remembers us."""
    monkeypatch.setenv("QT_QPA_PLATFORM", "offscreen")
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))


@contextmanager
def opened(graph: GraphUnderTest) -> Generator["subprocess.Popen[bytes]"]:
    """`runlane gui`, killed in the end if it still runs."""
    with subprocess.Popen(
        [sys.executable, "-m", "runlane", "gui", *graph.options], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL
    ) as window:
        try:
            yield window
        finally:
            if window.poll() is None:
                window.kill()


def _windows(graph: GraphUnderTest) -> set[str]:
    """Names of the windows that the router serves now."""
    status = graph.status()
    return {account.name for account in accounts_of(status) if account.is_live and account.name.startswith("gui")}


def _watchers(ring_figures: Path) -> int:
    """Leases on the one ring there is, as its worker last wrote."""
    found = [json.loads(path.read_text()) for path in ring_figures.glob("fastlane-*.json")]
    return sum(int(figures["viewers"]) for figures in found)


@pytest.mark.usefixtures("offscreen")
def test_a_killed_gui_changes_nothing(short_dir: Path) -> None:
    """Killed again and again while it watches and reads: every step is stored once, and every account is closed."""
    with GraphUnderTest(short_dir) as graph:
        command = [sys.executable, "-m", "runlane", "run", *graph.options, "--", sys.executable, str(WORKER), "0"]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as worker:
            try:
                for _ in range(KILLS):
                    with opened(graph) as window:
                        wait_until(lambda: _windows(graph), "the window reads the bus")
                        wait_until(lambda: _watchers(short_dir / "run"), "the window watches")
                        window.kill()
                        window.wait(20)
                    wait_until(lambda: not _windows(graph), "the router has let it go")
                counts = _counts(worker)
                assert worker.stdin is not None
                worker.stdin.write("end\n")
                worker.stdin.flush()
                assert worker.wait(30) == 0
            finally:
                worker.kill()
        ((stored, last_seq),) = graph.sql("SELECT steps, last_seq FROM streams WHERE worker = 'worker'")
        assert stored >= counts["env_steps"]  # it went on until it was told to end
        assert last_seq == sum(
            graph.sql(f"SELECT count(*) FROM {view} WHERE worker = 'worker'")[0][0]  # noqa: S608
            for view in VIEWS
        )
        assert graph.sql("SELECT count(*) FROM drops") == [(0,)]
        accounts = wait_until(graph.client.accounts, "the accounts come")
        assert [account for account in accounts if account.balance] == []


def _counts(worker: "subprocess.Popen[str]") -> dict[str, Any]:
    assert worker.stdin is not None
    assert worker.stdout is not None
    worker.stdin.write("counts\n")
    worker.stdin.flush()
    found: dict[str, Any] = json.loads(worker.stdout.readline())
    return found


@pytest.mark.usefixtures("offscreen")
def test_ctrl_c_and_sigterm_end_the_gui_in_order(short_dir: Path) -> None:
    """130 and 0, as every command; it says goodbye to the router, and leaves no thread or process."""
    with GraphUnderTest(short_dir) as graph:
        for number, code in ((signal.SIGINT, 130), (signal.SIGTERM, 0)):
            with opened(graph) as window:
                wait_until(lambda: _windows(graph), "the window reads the bus")
                window.send_signal(number)
                assert window.wait(20) == code
            wait_until(lambda: not _windows(graph), "it has left")


@pytest.mark.usefixtures("offscreen")
def test_a_graph_opens_its_gui_and_does_not_open_it_again(short_dir: Path) -> None:
    """`runlane up --gui`: a child like any other; who closes the window wants it closed."""
    graph = GraphUnderTest(short_dir)
    graph.options = ["--gui", *graph.options]
    with graph:
        wait_until(lambda: _windows(graph), "the window reads the bus")
        before = graph.child("gui")
        for process in psutil.Process(before.pid).children():
            process.terminate()
        wait_until(lambda: graph.child("gui").state == "ended", "the window is closed")
        assert graph.child("gui").restarts == 0
        assert graph.status().state == "running"
