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
