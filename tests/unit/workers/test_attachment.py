"""attach(): a session where there is something to record to, and otherwise one warning and nothing."""

import inspect
import logging
import sys
import threading
from collections.abc import Generator
from contextlib import contextmanager
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType

import msgspec
import numpy as np
import pytest
import zmq
from unit.workers.session_rig import SessionRig

from runlane.config import names
from runlane.config.settings import Settings
from runlane.transport.endpoint import RoleLock, endpoint_of, make_run_dir, unlink_socket
from runlane.transport.messages import ControlMessage, Refused, StreamHello, WorkerStart, WorkerStarted
from runlane.transport.records import RunRecord
from runlane.transport.sockets import Context, bind_router
from runlane.transport.wire import decode_control, encode_control
from runlane.workers import DetachedSession, WorkerSession, attach
from runlane.workers.attachment import script_name


@pytest.fixture
def _proxy(rig: SessionRig, monkeypatch: pytest.MonkeyPatch) -> None:  # pyright: ignore[reportUnusedFunction]
    """The environment of a worker that `runlane run` started."""
    monkeypatch.setenv(names.ENV_PROXY, rig.endpoint)
    monkeypatch.setenv(names.ENV_RUN, "run-1")


def _attached(rig: SessionRig, name: str | None = None, worker: str | None = None) -> WorkerSession:
    session = attach(name, worker=worker, settings=rig.settings)
    assert isinstance(session, WorkerSession)
    rig.sessions.append(session)
    return session


# ---- nothing to record to --------------------------------------------------------------------------------


def test_without_a_graph_there_is_one_warning_and_no_session(
    settings: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    """It says what to do, at once; the script goes on."""
    with caplog.at_level(logging.DEBUG, "runlane"):
        session = attach(settings=settings)
    assert isinstance(session, DetachedSession)
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert record.getMessage().startswith("WORKER_DETACHED")
    assert "runlane run -- python" in record.getMessage()


def test_a_detached_session_does_nothing(settings: Settings, run_dir: Path) -> None:
    """Every call returns at once, whatever it is given, and nothing is made on disk."""
    session = attach(settings=settings)
    session.step("anything", object(), None, None, observation=session, info=5)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    session.step_vector(1, 2, 3, 4)
    session.episode(1.0)
    session.metrics({"a": 1.0})
    session.log("text")
    session.frame(np.zeros((2, 2, 3)))
    assert (session.is_attached, session.faults, session.statistics(), session.close("failed")) == (False, 0, {}, True)
    assert not run_dir.exists()


def test_a_detached_session_has_every_call_of_a_real_one() -> None:
    """So a script needs no `if`."""
    real = {name for name, _ in inspect.getmembers(WorkerSession, inspect.isfunction) if not name.startswith("_")}
    assert real <= set(dir(DetachedSession))


@pytest.mark.usefixtures("_proxy")
def test_telemetry_can_be_switched_off(
    rig: SessionRig, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """RUNLANE_DISABLED=1: not even a warning."""
    monkeypatch.setenv(names.ENV_DISABLED, "1")
    with caplog.at_level(logging.DEBUG, "runlane"):
        assert isinstance(attach(settings=rig.settings), DetachedSession)
    assert caplog.records == []


def test_a_bad_setting_stops_no_training(
    short_dir: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The mistake is in the warning."""
    monkeypatch.chdir(short_dir)
    monkeypatch.setenv("RUNLANE_ROUTER__LEASE", "3")
    assert isinstance(attach(), DetachedSession)
    assert "RUNLANE_ROUTER__LEASE" in caplog.text


@pytest.mark.usefixtures("_proxy")
@pytest.mark.parametrize("worker", ["a b", "x" * 65, "../up", "ä"])
def test_a_worker_name_nobody_would_take_is_refused_here(
    rig: SessionRig, worker: str, caplog: pytest.LogCaptureFixture
) -> None:
    """A stream that its proxy refuses for ever would fill the outbox and stop training."""
    assert isinstance(attach(worker=worker, settings=rig.settings), DetachedSession)
    assert "is no plain name" in caplog.text


# ---- started by somebody ---------------------------------------------------------------------------------


@pytest.mark.usefixtures("_proxy")
def test_a_started_worker_finds_its_proxy(rig: SessionRig, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run, names and endpoint stand in the environment."""
    monkeypatch.setenv(names.ENV_RUN_NAME, "from outside")
    monkeypatch.setenv(names.ENV_WORKER_NAME, "trainer")
    session = _attached(rig, name="from the script")
    session.step(1, 1.0)
    assert session.close() is True
    info = rig.info(session.info.stream)
    assert (info.run, info.run_name, info.worker) == ("run-1", "from outside", "trainer")


@pytest.mark.usefixtures("_proxy")
def test_a_script_may_name_itself(rig: SessionRig) -> None:
    """Where nobody outside did."""
    session = _attached(rig, name="my run", worker="actor-3")
    assert (session.info.run_name, session.info.worker) == ("my run", "actor-3")


@pytest.mark.usefixtures("_proxy")
@pytest.mark.parametrize("name", ["ünï run", "x" * 1_000, "bad\udcff", "\0"])
def test_any_run_name_can_be_announced(rig: SessionRig, name: str) -> None:
    """A readable name is cut or escaped, never a reason to refuse the stream."""
    session = _attached(rig, name=name)
    hello = StreamHello(info=session.info, oldest_seq=1, sent_seq=0)
    assert isinstance(decode_control(encode_control(hello)), StreamHello)
    assert session.close() is True


@pytest.mark.usefixtures("_proxy")
def test_the_configuration_is_a_fact_of_the_run(rig: SessionRig) -> None:
    """As plain values, whatever it was made of."""
    session = attach(
        config={"seed": np.int64(3), "layers": (64, 64), "env": {"id": "CartPole-v1"}}, settings=rig.settings
    )
    assert isinstance(session, WorkerSession)
    rig.sessions.append(session)
    session.close()
    facts = rig.records(RunRecord)[0].facts
    assert facts["config"] == {"seed": 3, "layers": [64, 64], "env": {"id": "CartPole-v1"}}
    assert facts["directory"] == str(Path.cwd())


@pytest.mark.parametrize("is_started", [True, False])
def test_a_removed_working_directory_stops_no_training(
    rig: SessionRig, short_dir: Path, is_started: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Some clusters clean up early: with a proxy it is recorded all the same, without one there is a warning."""
    if is_started:  # whoever starts a worker also says where the journals lie
        monkeypatch.setenv(names.ENV_PROXY, rig.endpoint)
        monkeypatch.setenv(names.ENV_RUN, "run-1")
        monkeypatch.setenv(f"{names.ENV_PREFIX}DATA_DIR", str(short_dir / "data"))
    gone = short_dir / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    session = attach()
    assert session.is_attached is is_started
    assert session.close() is True


@pytest.mark.usefixtures("_proxy")
def test_a_journal_that_has_no_place_stops_no_training(
    short_dir: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A relative data directory below a directory that is gone: one warning, and the script goes on."""
    gone = short_dir / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    assert isinstance(attach(), DetachedSession)
    assert "WORKER_DETACHED" in caplog.text


# ---- asking a supervisor ---------------------------------------------------------------------------------


@contextmanager
def _supervisor(settings: Settings, answer: ControlMessage) -> Generator[list[ControlMessage]]:
    """A supervisor that answers one question, in a thread; yields what it was asked."""
    asked: list[ControlMessage] = []
    endpoint = endpoint_of(settings, names.SUPERVISOR_SOCKET)
    with RoleLock(make_run_dir(settings), names.SUPERVISOR):
        context: Context = zmq.Context()
        with context, bind_router(context, endpoint, 8, settings.transport) as socket:

            def serve() -> None:
                if socket.poll(5_000):
                    peer, frame = socket.recv_multipart()
                    asked.append(decode_control(frame))
                    socket.send_multipart([peer, encode_control(answer)])

            thread = threading.Thread(target=serve)
            thread.start()
            try:
                yield asked
            finally:
                thread.join()
                socket.close(1_000)
                unlink_socket(endpoint)


def test_a_running_graph_is_asked_for_a_proxy(rig: SessionRig) -> None:
    """The answer says where, and under which name this worker goes."""
    answer = WorkerStarted(worker="trainer-2", run="run-7", endpoint=rig.endpoint)
    with _supervisor(rig.settings, answer) as asked:
        session = _attached(rig, name="my run", worker="trainer")
        session.step(1, 1.0)
        assert session.close() is True
    (question,) = asked
    assert isinstance(question, WorkerStart)
    assert (question.worker, question.run_name) == ("trainer", "my run")
    assert len(question.run) == 26
    assert (session.info.worker, session.info.run) == ("trainer-2", "run-7")


@pytest.mark.parametrize("name", ["x" * 1_000, "bad\udcff"])
def test_any_run_name_can_be_asked_for(rig: SessionRig, name: str) -> None:
    """A question the supervisor cannot read would be answered by nobody."""
    answer = WorkerStarted(worker="trainer", run="run-7", endpoint=rig.endpoint)
    with _supervisor(rig.settings, answer) as asked:
        assert _attached(rig, name=name).close() is True
    assert len(asked) == 1


def test_a_graph_that_refuses_leaves_the_script_alone(settings: Settings, caplog: pytest.LogCaptureFixture) -> None:
    """Its reason is the warning."""
    with _supervisor(settings, Refused(reason="the graph is stopping")):
        assert isinstance(attach(worker="trainer", settings=settings), DetachedSession)
    assert "the graph is stopping" in caplog.text


@pytest.mark.parametrize(
    ("module", "expected"),
    [(None, "python /home/me/train.py"), ("pkg.train", "python -m pkg.train"), ("pkg.__main__", "python -m pkg")],
)
def test_the_remedy_is_the_command_that_was_given(
    settings: Settings,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
    module: str | None,
    expected: str,
) -> None:
    """A module by its name: by its path it would miss its package."""
    main = ModuleType("__main__")
    main.__spec__ = None if module is None else ModuleSpec(module, None)
    monkeypatch.setitem(sys.modules, "__main__", main)
    monkeypatch.setattr(sys, "argv", ["/home/me/train.py"])
    assert isinstance(attach(settings=settings), DetachedSession)
    assert f"runlane run -- {expected}" in caplog.text


# ---- names -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("argument", "expected"),
    [
        ("/home/me/train.py", "train"),
        ("my script (2).py", "my-script--2"),
        ("-c", "c"),
        ("", "python"),
        ("äöü.py", "python"),
        ("x" * 99 + ".py", "x" * 24),
        ("/usr/lib/python3/site-packages/pkg/__main__.py", "__main__"),
    ],
)
def test_a_script_names_its_worker(argument: str, expected: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """By its file, made plain enough for paths."""
    monkeypatch.setattr(sys, "argv", [argument])
    assert script_name() == expected


def test_settings_reach_the_session(rig: SessionRig, monkeypatch: pytest.MonkeyPatch) -> None:
    """The rules of `[session]` are those of the settings that were given."""
    monkeypatch.setenv(names.ENV_PROXY, f"{rig.endpoint}.nobody")
    monkeypatch.setenv(names.ENV_RUN, "run-1")
    quick = msgspec.structs.replace(rig.settings.session, close_s=0.01)
    session = attach(settings=msgspec.structs.replace(rig.settings, session=quick))
    assert session.close() is False
