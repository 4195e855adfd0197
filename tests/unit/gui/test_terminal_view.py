"""The terminal view: fits its terminal, needs no colour, and shows every number that matters."""

import io
import math
from typing import Any

import pytest
from rich.console import Console

from runlane.gui.block_chart import BLOCKS, block_chart, resample
from runlane.gui.run_view import RunView, WorkerView
from runlane.gui.screen import LiveScreen, PlainLines, screen_for
from runlane.gui.terminal_view import clock_text, plain_line, render, short, size_text
from runlane.transport.messages import ChildStatus, Status
from runlane.transport.records import EpisodeRecord, MetricRecord

NOW_S = 62.0
ACCOUNTS: dict[str, dict[str, Any]] = {
    "db_writer": {"overflow": "block", "max_queue": 16384, "published": 9300, "delivered": 9100, "depth": 150}
    | {"in_flight": 50, "peak": 777, "dropped": {}, "is_live": True},
    "gui": {"overflow": "drop_oldest", "max_queue": 4096, "published": 9300, "delivered": 8000, "depth": 0}
    | {"in_flight": 0, "peak": 4096, "dropped": {"drop_oldest": 1200, "subscriber_restart": 100}, "is_live": False},
}
STORE: dict[str, Any] = {
    "rows_committed": 9100,
    "commits": 40,
    "commit_s": 0.0041,
    "database_bytes": 1_200_000,
    "wal_bytes": 300_000,
}


def _child(name: str, kind: str, state: str = "running", exit_code: int | None = None, **figures: Any) -> ChildStatus:
    return ChildStatus(
        name=name, kind=kind, state=state, pid=4711, restarts=3, heartbeat_age_s=0.1, exit_code=exit_code,
        statistics=figures,
    )  # fmt: skip


def _status(*more: ChildStatus) -> Status:
    children = [_child("router", "router", subscribers=ACCOUNTS), _child("db_writer", "subscriber", **STORE), *more]
    return Status(pid=4700, uptime_s=1.0, data_dir="/d", run_dir="/r", state="running", children=children)


def _view(*workers: str, episodes: int = 300) -> RunView:
    view = RunView(0.0)
    for name in workers:
        worker = view.workers["r", name] = WorkerView(name, "r", "cartpole-demo")
        for number in range(episodes):
            worker.add_episode(EpisodeRecord(1, 0, 0, number, float(number), 1, "terminated", 0.1))
            worker.env_steps += number
            worker.rate.add(number, NOW_S - 30 + number / 10)
        worker.add_metric(MetricRecord(1, 0, "loss/value", 0.0213, 0))
    return view


def _drawn(view: RunView, status: Status | None, width: int, height: int) -> list[str]:
    """The view on a terminal without colour."""
    console = Console(width=width, file=io.StringIO(), record=True, color_system=None, highlight=False)
    console.print(render(view, status, NOW_S, width, height))
    return console.export_text(styles=False).rstrip("\n").split("\n")


# ---- the picture -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [(80, 23), (80, 40), (100, 23), (120, 35), (200, 60)])
@pytest.mark.parametrize("workers", [(), ("cartpole",), ("cartpole", "lander"), tuple("abcdefgh")])
def test_it_fits(size: tuple[int, int], workers: tuple[str, ...]) -> None:
    """At 80 columns and 24 lines, and above, no line is wrapped and none is lost, however many workers there are."""
    width, height = size
    lines = _drawn(_view(*workers), _status(*(_child(name, "worker") for name in workers)), width, height)
    assert len(lines) <= height
    assert max(map(len, lines)) <= width
    assert any("SQLite" in line for line in lines)


def test_it_names_the_run_and_the_time() -> None:
    """The first line says what is watched and for how long."""
    line = _drawn(_view("cartpole"), _status(), 80, 23)[0]
    assert "cartpole-demo" in line
    assert line.rstrip().endswith("running  1:02")


def test_it_shows_a_worker() -> None:
    """Mean of the last 100, best, episodes, env steps, rate, newest metrics."""
    text = "\n".join(_drawn(_view("cartpole"), _status(), 100, 30))
    for part in ("cartpole", "mean of last 100", "249.5", "299.0", "300", "44,850", "steps/s", "loss/value 0.0213"):
        assert part in text


def test_the_curve_is_labelled_with_its_range() -> None:
    """The top line of the curve is the greatest value drawn, the bottom line the least."""
    lines = _drawn(_view("cartpole", episodes=3), _status(), 80, 23)
    labels = [line.split("┤")[0].strip() for line in lines if "┤" in line]
    assert labels == ["2.0", "0.0"]


def test_it_shows_every_account() -> None:
    """Policy, published, delivered, dropped, queued (waiting and under way), peak, live."""
    lines = _drawn(_view("cartpole"), _status(), 80, 23)
    (durable,) = [line.split() for line in lines if line.startswith("db_writer  ") and "block" in line]
    assert durable == ["db_writer", "9,300", "9,100", "0", "200", "777", "yes", "block", "16384"]
    (fast,) = [line.split() for line in lines if line.startswith("gui  ")]
    assert fast == ["gui", "9,300", "8,000", "1,300", "0", "4,096", "no", "drop_oldest", "4096"]


def test_drops_are_shown_by_reason() -> None:
    """Who lost records sees why; who lost none takes no line."""
    lines = _drawn(_view("cartpole"), _status(), 80, 23)
    assert [line.rstrip() for line in lines if "dropped:" in line] == [
        "gui dropped: drop_oldest 1,200, subscriber_restart 100"
    ]


def test_an_account_that_is_not_balanced_is_said_in_words() -> None:
    """It must never happen, so it must never hide."""
    status = _status()
    status.children[0].statistics["subscribers"] = {"gui": ACCOUNTS["gui"] | {"published": 1}}
    assert any("gui: published is not" in line for line in _drawn(_view("cartpole"), status, 80, 23))


def test_it_shows_the_store() -> None:
    """Rows committed, how long the last commit took, what lies on the disk."""
    (line,) = [line for line in _drawn(_view("cartpole"), _status(), 80, 23) if line.startswith("SQLite")]
    assert line.split("  ") == ["SQLite", "9,100 rows committed", "last commit 4.1 ms", "database 1.5 MB"]


def test_it_shows_the_processes() -> None:
    """Name, pid, state, restarts; an ended one with its exit code."""
    ended = _child("cartpole", "worker", "ended", 137)
    lines = [line.split() for line in _drawn(_view("cartpole"), _status(ended), 80, 23)]
    assert ["supervisor", "4700", "running", "0"] in lines
    assert ["router", "4711", "running", "3"] in lines
    assert ["cartpole", "4711", "ended", "(137)", "3"] in lines


def test_processes_shrink_to_a_line_where_workers_need_the_room() -> None:
    """The line still names whoever does not run."""
    view, status = _view("a", "b"), _status(_child("a", "worker"), _child("b", "worker", "ended", 1))
    lines = _drawn(view, status, 80, 23)
    assert any(line.startswith("processes  3 running  b ended (1)") for line in lines)


def test_workers_beyond_the_screen_are_counted() -> None:
    """The rest is a number, not silence."""
    assert any("and 6 more workers" in line for line in _drawn(_view(*"abcdefgh"), _status(), 80, 23))


def test_it_draws_before_anything_is_known() -> None:
    """No status, no record: still a picture."""
    lines = _drawn(RunView(0.0), None, 80, 23)
    assert "waiting for the first record" in lines[0]
    assert any("no episode has ended yet" in line for line in _drawn(_view("w", episodes=0), None, 80, 23))


# ---- charts and numbers ----------------------------------------------------------------------------------


def test_a_chart_spans_the_blocks_from_least_to_greatest() -> None:
    """One line: the least value is the lowest block, the greatest the full one."""
    assert block_chart([float(value) for value in range(1, 9)], 8, 1, low=0.0) == ([BLOCKS[1:]], 0.0, 8.0)
    assert block_chart([2.0, 3.0], 8, 1) == ([BLOCKS[1] + BLOCKS[8]], 2.0, 3.0)


def test_a_taller_chart_stacks_lines() -> None:
    """The top line begins where the one below is full."""
    assert block_chart([0.0, 4.0, 8.0], 3, 2)[0] == ["  █", "▁██"]


def test_what_is_no_number_is_left_blank() -> None:
    """A gap in the curve, and no error."""
    assert block_chart([1.0, math.nan, 3.0, math.inf], 4, 1)[0] == ["▁ █ "]
    assert block_chart([math.nan], 4, 2)[0] == ["", ""]
    assert block_chart([], 4, 2)[0] == ["", ""]


def test_equal_values_are_a_full_bar() -> None:
    """A series without a span has nothing to compare."""
    assert block_chart([5.0, 5.0], 4, 1) == (["██"], 5.0, 5.0)


def test_resampling_takes_means_of_equal_stretches() -> None:
    """A short series stays as it is, a long one fills the columns."""
    assert resample([1.0, 2.0], 10) == [1.0, 2.0]
    assert resample([1.0, 3.0, 5.0, 7.0], 2) == [2.0, 6.0]
    assert len(resample(list(range(1000)), 70)) == 70


def test_numbers_are_short() -> None:
    """As a person would write them."""
    assert [short(value) for value in (None, 0.0, 12.34, 4321.0, 0.00012, math.nan)] == [
        "-", "0.0", "12.3", "4,321.0", "0.00012", "nan",
    ]  # fmt: skip
    assert [clock_text(seconds) for seconds in (0.9, 62, 3723)] == ["0:00", "1:02", "1:02:03"]
    assert [size_text(size) for size in (1_500_000, 2_340_000_000)] == ["1.5 MB", "2.34 GB"]


# ---- where it goes ---------------------------------------------------------------------------------------


def test_a_plain_line_is_one_line_of_ascii() -> None:
    """Fit for any log: time, workers, rows, drops."""
    line = plain_line(_view("cartpole", "lander"), _status(), NOW_S)
    assert line.isascii()
    assert "\n" not in line
    for part in ("62.0 s", "cartpole: 44850 env steps", "lander:", "mean return 249.5", "9100 rows", "gui 1300"):
        assert part in line


def test_a_pipe_gets_plain_lines() -> None:
    """Nothing that moves a cursor is written where there is none."""
    stream = io.StringIO()
    with screen_for(Console(file=stream)) as screen:
        assert isinstance(screen, PlainLines)
        screen.show(_view("cartpole"), _status(), NOW_S)
    assert stream.getvalue().count("\n") == 1
    assert "\x1b" not in stream.getvalue()


@pytest.mark.parametrize("kind", ["dumb", "unknown"])
def test_a_terminal_without_cursor_gets_plain_lines(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """`TERM=dumb` is a terminal and cannot redraw."""
    monkeypatch.setenv("TERM", kind)
    assert isinstance(screen_for(Console(file=io.StringIO(), force_terminal=True)), PlainLines)


def test_a_terminal_gets_the_live_view(monkeypatch: pytest.MonkeyPatch) -> None:
    """It redraws in place, and leaves the last picture and a visible cursor behind."""
    monkeypatch.setenv("TERM", "xterm")
    stream = io.StringIO()
    console = Console(file=stream, force_terminal=True, width=80, height=24, color_system=None, legacy_windows=False)
    screen = LiveScreen(console)
    with screen:
        screen.show(_view("cartpole"), _status(), NOW_S)
        screen.show(_view("cartpole"), _status(), NOW_S + 1)
    _, _, after_last_picture = stream.getvalue().rpartition("1:03")
    assert "\x1b[?25h" in after_last_picture
