"""Runs and streams tell how they began, went on and ended, in whatever order it is reported."""

import json
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from unit.actors.store_rig import ask, info, open_stream, put

from runlane.actors.store import Store
from runlane.config.settings import DbWriterSettings
from runlane.transport.records import RunRecord, RunState


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with closing(Store(tmp_path / "runlane.db", DbWriterSettings())) as opened:
        yield opened


def say(store: Store, stream_no: int, seq: int, state: RunState, **facts: Any) -> None:
    put(store, stream_no, "run", RunRecord(seq, seq * 10, state, facts))


def run_of(store: Store, columns: str = "state") -> tuple[Any, ...]:
    return ask(store, f"SELECT {columns} FROM runs WHERE run = 'R'")[0]  # noqa: S608


def test_a_run_tells_its_life(store: Store) -> None:
    """Made by the first stream, filled by facts, ended by an end record; all facts stay together."""
    stream_no = open_stream(store, info(name="cartpole"))
    assert run_of(store, "name, state, started_ns, host, pid") == ("cartpole", "running", 100, "h", 1)
    say(store, stream_no, 1, "running", command="python train.py", config={"lr": 0.1}, host="h")
    say(store, stream_no, 2, "failed", error="ValueError: x", exit_code=1)
    found = run_of(store, "state, ended_ns, exit_code, error, command, config ->> '$.lr'")
    assert found == ("failed", 20, 1, "ValueError: x", "python train.py", 0.1)
    facts = {"command": "python train.py", "config": {"lr": 0.1}, "host": "h", "error": "ValueError: x", "exit_code": 1}
    assert json.loads(run_of(store, "facts")[0]) == facts


def test_a_late_running_does_not_undo_an_end(store: Store) -> None:
    """Neither the same record again nor another `running` of a stream that ended changes the state."""
    stream_no = open_stream(store)
    say(store, stream_no, 1, "running")
    say(store, stream_no, 3, "finished", exit_code=0)
    say(store, stream_no, 1, "running")
    say(store, stream_no, 2, "running")
    assert run_of(store, "state, exit_code, ended_ns") == ("finished", 0, 30)


def test_a_new_stream_opens_an_ended_run_again(store: Store) -> None:
    """A resume is running, without the old exit code; its start is still the first one's."""
    first = open_stream(store)
    say(store, first, 1, "running")
    say(store, first, 2, "killed", exit_code=-9)
    second = open_stream(store, info(2, started_ns=900))
    say(store, second, 1, "running")
    assert run_of(store, "state, exit_code, ended_ns, started_ns, pid") == ("running", None, None, 100, 2)
    assert ask(store, "SELECT incarnation, state FROM streams") == [(1, "killed"), (2, "running")]


def test_a_run_is_finished_when_its_last_stream_is(store: Store) -> None:
    """With two workers the first to finish does not end the run."""
    first, second = open_stream(store), open_stream(store, info(2, worker="v"))
    for stream_no in (first, second):
        say(store, stream_no, 1, "running")
    say(store, first, 2, "finished")
    assert run_of(store) == ("running",)
    say(store, second, 3, "finished")
    assert run_of(store, "state, ended_ns") == ("finished", 30)


@pytest.mark.parametrize(
    ("said", "seen", "expected"),
    [
        (None, "finished", "finished"),
        (None, "killed", "killed"),
        ("finished", "finished", "finished"),
        ("finished", "failed", "failed"),
        ("failed", "finished", "failed"),
        ("stopped", "finished", "stopped"),
        ("failed", "failed", "failed"),
    ],
)
def test_a_proxy_ends_the_streams_of_its_worker(
    store: Store, said: RunState | None, seen: RunState, expected: str
) -> None:
    """What the proxy saw ends a worker that said nothing, and hides nothing bad that the worker said."""
    stream_no = open_stream(store)
    say(store, stream_no, 1, "running")
    if said:
        say(store, stream_no, 2, said, error="E" if said == "failed" else "")
    proxy = open_stream(store, info(2, worker="proxy-w"))
    say(store, proxy, 1, seen, exit_code=3)
    assert run_of(store, "state, exit_code, error") == (expected, 3, "E" if said == "failed" else None)
    assert ask(store, "SELECT count(*) FROM streams WHERE state IS NULL OR state = 'running'") == [(0,)]


# ---- stalled ---------------------------------------------------------------------------------------------


def states_of(store: Store) -> list[str | None]:
    return [row[0] for row in ask(store, "SELECT state FROM streams WHERE worker NOT LIKE 'proxy-%' ORDER BY stream")]


def test_a_proxy_tells_that_its_worker_stalls_and_steps_again(store: Store) -> None:
    """The worker's stream and the run follow; the proxy's own stream has no state, so it keeps no run alive."""
    worker, proxy = open_stream(store), open_stream(store, info(2, worker="proxy-w"))
    say(store, worker, 1, "running", command="train")
    say(store, proxy, 1, "stalled", silent_s=30)
    assert (run_of(store), states_of(store)) == (("stalled",), ["stalled"])
    say(store, proxy, 2, "running")
    assert (run_of(store), states_of(store)) == (("running",), ["running"])
    assert ask(store, "SELECT state FROM streams WHERE worker = 'proxy-w'") == [(None,)]
    assert json.loads(run_of(store, "facts")[0]) == {"command": "train"}
    say(store, worker, 2, "finished")
    assert run_of(store) == ("finished",)


def test_a_run_is_stalled_while_one_of_its_workers_is(store: Store) -> None:
    """It runs again when the last one does, or when the stalled one has ended and another goes on."""
    first, second = open_stream(store), open_stream(store, info(2, worker="v"))
    proxies = [open_stream(store, info(number, worker=f"proxy-{name}")) for number, name in ((3, "w"), (4, "v"))]
    for stream_no in (first, second):
        say(store, stream_no, 1, "running")
    for proxy in proxies:
        say(store, proxy, 1, "stalled")
    say(store, proxies[0], 2, "running")
    assert (run_of(store), states_of(store)) == (("stalled",), ["running", "stalled"])
    say(store, second, 2, "finished")
    assert (run_of(store), states_of(store)) == (("running",), ["running", "finished"])
    say(store, first, 2, "finished")
    assert run_of(store) == ("finished",)


def test_what_ended_neither_stalls_nor_runs_again(store: Store) -> None:
    """A proxy's late word about a worker that ended changes nothing."""
    worker, proxy = open_stream(store), open_stream(store, info(2, worker="proxy-w"))
    say(store, worker, 1, "running")
    say(store, worker, 2, "failed")
    say(store, proxy, 1, "stalled")
    say(store, proxy, 2, "running")
    assert (run_of(store), states_of(store)) == (("failed",), ["failed"])


def test_a_stalled_worker_ends_as_any_other(store: Store) -> None:
    """Killed while stalled: the proxy's word ends its streams and the run."""
    worker, proxy = open_stream(store), open_stream(store, info(2, worker="proxy-w"))
    say(store, worker, 1, "running")
    say(store, proxy, 1, "stalled")
    say(store, proxy, 2, "killed", exit_code=-9)
    assert (run_of(store, "state, exit_code"), states_of(store)) == (("killed", -9), ["killed"])


# ---- one stream of several -------------------------------------------------------------------------------


@pytest.mark.parametrize("state", ["killed", "failed", "finished", "stopped"])
def test_a_proxy_ends_one_stream_and_the_run_with_the_last(store: Store, state: RunState) -> None:
    """Named by its id; another stream that lives, of the same worker too, keeps the run."""
    first, fork = open_stream(store), open_stream(store, info(2, forked_from=f"{1:032x}"))
    proxy = open_stream(store, info(3, worker="proxy-w"))
    for stream_no in (first, fork):
        say(store, stream_no, 1, "running")
    say(store, proxy, 1, state, stream=f"{2:032x}", exit_code=None, reason="lease")
    assert (run_of(store, "state, ended_ns"), states_of(store)) == (("running", None), ["running", state])
    say(store, proxy, 2, state, stream=f"{1:032x}", exit_code=7, reason="lease")
    assert (run_of(store, "state, ended_ns, exit_code"), states_of(store)) == ((state, 20, 7), [state, state])
    assert "stream" not in json.loads(run_of(store, "facts")[0])


def test_a_stream_that_said_how_it_ended_is_not_ended_again(store: Store) -> None:
    """The proxy's word about one stream, or about one nobody knows, comes after the stream's own."""
    worker, proxy = open_stream(store), open_stream(store, info(2, worker="proxy-w"))
    say(store, worker, 1, "running")
    say(store, worker, 2, "finished")
    say(store, proxy, 3, "killed", stream=f"{1:032x}", exit_code=-9)
    say(store, proxy, 4, "killed", stream="f" * 32)
    assert (run_of(store, "state, ended_ns"), states_of(store)) == (("finished", 20), ["finished"])


# ---- identity --------------------------------------------------------------------------------------------


def identities(store: Store) -> list[tuple[Any, ...]]:
    columns = "stream, incarnation, forked_from, resumed_from, resumed_step"
    found = ask(store, f"SELECT {columns} FROM streams ORDER BY stream_no")  # noqa: S608
    return [(int(row[0], 16), *row[1:]) for row in found]


def test_a_resume_names_the_incarnation_it_goes_on_from(store: Store) -> None:
    """The newest earlier one of the same run and worker in another process that is no fork; a fork names its own."""
    ids = {number: f"{number:032x}" for number in range(1, 8)}
    open_stream(store, info(1))
    open_stream(store, info(2, forked_from=ids[1]))
    open_stream(store, info(3, worker="v"))
    open_stream(store, info(4, run="S"))
    open_stream(store, info(5, pid=9, is_resumed=True, resumed_step=500))
    open_stream(store, info(6, pid=9, is_resumed=True))
    open_stream(store, info(7))
    assert identities(store) == [
        (1, 1, None, None, None),
        (2, 2, ids[1], None, None),
        (3, 1, None, None, None),
        (4, 1, None, None, None),
        (5, 3, None, ids[1], 500),
        (6, 4, None, ids[1], None),
        (7, 5, None, None, None),
    ]


def test_the_first_incarnation_resumes_nothing(store: Store) -> None:
    """A run resumed into a new database goes on from a step, but from no stream; going back is no error."""
    open_stream(store, info(1, is_resumed=True, resumed_step=9_000))
    open_stream(store, info(2, is_resumed=True, resumed_step=100))
    assert identities(store) == [(1, 1, None, None, 9_000), (2, 2, None, f"{1:032x}", 100)]


def test_a_step_told_later_is_kept(store: Store) -> None:
    """A worker may load its checkpoint after it has announced its stream; a keep-alive without it takes nothing."""
    open_stream(store, info(1))
    open_stream(store, info(1, is_resumed=True, resumed_step=7))
    open_stream(store, info(1, is_resumed=True))
    assert identities(store) == [(1, 1, None, None, 7)]


def test_a_run_killed_with_everything_can_be_resumed_and_finish(store: Store) -> None:
    """The incarnation that nobody ended ends with the resume, and what it says later ends nothing."""
    first = open_stream(store)
    say(store, first, 1, "running")
    second = open_stream(store, info(2, is_resumed=True))
    say(store, second, 1, "running")
    assert (run_of(store), states_of(store)) == (("running",), ["killed", "running"])
    say(store, first, 2, "failed", exit_code=1)
    assert (run_of(store, "state, exit_code"), states_of(store)) == (("running", None), ["failed", "running"])
    say(store, second, 3, "finished", exit_code=0)
    assert run_of(store, "state, exit_code, ended_ns") == ("finished", 0, 30)


# ---- parts -----------------------------------------------------------------------------------------------


def end_of_command(store: Store, part: str, exit_code: int, *, other: str = "") -> tuple[Any, ...]:
    """A worker `w` whose part was killed ends with this code; perhaps `other` was killed, too."""
    for number, worker in enumerate(filter(None, ("w", part, other)), 1):
        stream_no = open_stream(store, info(number, worker=worker))
        say(store, stream_no, 1, "running")
        if worker != "w":
            say(store, open_stream(store, info(10 + number, worker=f"proxy-{worker}")), 1, "killed", stream="ab")
            say(store, stream_no, 2, "killed")
    own = open_stream(store, info(20, worker="proxy-w"))
    say(store, own, 1, "finished" if exit_code == 0 else "failed", exit_code=exit_code)
    return run_of(store, "state, exit_code")


@pytest.mark.parametrize("part", ["w-1", "w-metrics"])
def test_a_command_that_ended_well_has_finished_though_its_parts_were_killed(store: Store, part: str) -> None:
    """As a SubprocVecEnv that nobody closed: multiprocessing ends its processes by a signal."""
    assert end_of_command(store, part, 0) == ("finished", 0)
    assert ask(store, f"SELECT state FROM streams WHERE worker = '{part}'") == [("killed",)]  # noqa: S608


def test_a_command_that_ended_badly_is_not_forgiven(store: Store) -> None:
    """Its own word stands."""
    assert end_of_command(store, "w-1", 1) == ("failed", 1)


def test_another_worker_that_was_killed_is_not_forgiven_by_this_ones_end(store: Store) -> None:
    """`v` and `walker` are no parts of `w`."""
    assert end_of_command(store, "w-1", 0, other="walker")[0] == "killed"
