"""A session in a process of its own: however that ends, and whatever it forks, the run says so."""

import os
import subprocess
import sys

import pytest
from unit.workers.session_rig import SessionRig

from runlane.config import names
from runlane.transport.endpoint import data_dir_of
from runlane.transport.records import EpisodeRecord, LogRecord, RunRecord

BEGIN = """
import os, sys
from runlane.workers import attach
session = attach(config={"seed": 1})
assert session.is_attached
session.step(1, 1.0)
"""


def _run(rig: SessionRig, script: str) -> "subprocess.CompletedProcess[str]":
    """Run a script as a worker whose proxy is the rig's receiver."""
    environment = {
        **os.environ,
        f"{names.ENV_PREFIX}DATA_DIR": str(data_dir_of(rig.settings)),
        names.ENV_PROXY: rig.endpoint,
        names.ENV_RUN: "01aryz6s410000000000000000",
        names.ENV_RUN_NAME: "my run",
        names.ENV_WORKER_NAME: "trainer",
        names.ENV_COMMAND: "python train.py",
    }
    command = [sys.executable, "-W", "error", "-c", BEGIN + script]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=50, check=False)


def _states(rig: SessionRig, stream: str) -> list[str]:
    return [record.state for record in rig.records(RunRecord, stream)]


def _only(rig: SessionRig) -> str:
    (stream,) = rig.streams()
    return stream


def test_the_environment_says_which_run_it_is(rig: SessionRig) -> None:
    """Run, names, host and process are announced; command, configuration and versions are the run's facts."""
    assert _run(rig, "session.close()").returncode == 0
    info = rig.info(_only(rig))
    assert (info.run, info.run_name, info.worker) == ("01aryz6s410000000000000000", "my run", "trainer")
    assert info.pid not in (0, os.getpid())
    facts = rig.records(RunRecord, info.stream)[0].facts
    assert (facts["command"], facts["config"], facts["pid"]) == ("python train.py", {"seed": 1}, info.pid)
    assert {"runlane", "numpy"} <= set(facts["versions"])


@pytest.mark.parametrize(
    ("end", "code", "state", "error"),
    [
        ("", 0, "finished", ""),
        ("sys.exit(0)", 0, "finished", ""),
        ("raise ValueError('diverged')", 1, "failed", "ValueError: diverged"),
        ("raise KeyboardInterrupt", -2, "stopped", ""),
    ],
)
def test_a_script_that_never_closes_is_closed_for_it(
    rig: SessionRig, end: str, code: int, state: str, error: str
) -> None:
    """At exit everything is sent and acked, and the last record says how it ended."""
    process = _run(rig, end)
    assert process.returncode == code
    stream = _only(rig)
    assert _states(rig, stream) == ["running", state]
    assert rig.records(RunRecord, stream)[-1].facts["error"] == error
    assert [row["action"] for row in rig.steps(stream)] == [1]
    seqs = rig.seqs(stream)
    assert seqs == list(range(1, len(seqs) + 1))


def test_a_worker_prints_nothing_of_ours_when_all_is_well(rig: SessionRig) -> None:
    """Its standard output and error belong to the training script."""
    process = _run(rig, "print('mine')")
    assert (process.stdout, process.stderr) == ("mine\n", "")


def test_a_forked_child_that_records_is_a_stream_of_its_own(rig: SessionRig) -> None:
    """The parent's socket and seqs do not survive a fork: the child begins anew, the parent goes on."""
    script = """
sys.stdout.flush()
pid = os.fork()
if pid == 0:
    for number in range(300):
        session.step(number, 2.0, number == 299)
    session.log("child")
    is_drained = session.close()
    os._exit(0 if is_drained else 9)
_, status = os.waitpid(pid, 0)
assert os.waitstatus_to_exitcode(status) == 0
session.step(2, 1.0, True)
assert session.close() is True
"""
    process = _run(rig, script)
    assert (process.returncode, process.stderr) == (0, "")
    parent, child = sorted(rig.streams(), key=lambda stream: len(rig.steps(stream)))
    assert [row["action"] for row in rig.steps(parent)] == [1, 2]
    assert [row["action"] for row in rig.steps(child)] == list(range(300))
    assert rig.info(parent).pid != rig.info(child).pid
    assert rig.info(parent).run == rig.info(child).run
    assert (rig.info(parent).forked_from, rig.info(child).forked_from) == ("", parent)
    assert [record.length for record in rig.records(EpisodeRecord, child)] == [300]
    assert [record.text for record in rig.records(LogRecord, child)] == ["child"]
    for stream in (parent, child):
        seqs = rig.seqs(stream)
        assert seqs == list(range(1, len(seqs) + 1))


def test_a_forked_child_that_records_nothing_disturbs_nobody(rig: SessionRig) -> None:
    """A data loader's worker may end as it likes, even through the interpreter's exit."""
    script = """
pid = os.fork()
if pid == 0:
    sys.exit(0)
assert os.waitpid(pid, 0)[1] == 0
session.step(2, 1.0)
"""
    process = _run(rig, script)
    assert (process.returncode, process.stderr) == (0, "")
    stream = _only(rig)
    assert [row["action"] for row in rig.steps(stream)] == [1, 2]
    assert _states(rig, stream) == ["running", "finished"]


def test_a_worker_killed_outright_loses_nothing(rig: SessionRig) -> None:
    """Every call that had returned is in the journal, without a gap; there is no goodbye."""
    script = """
import signal
for number in range(2, 5000):
    session.step(number, 1.0)
os.kill(os.getpid(), signal.SIGKILL)
"""
    assert _run(rig, script).returncode == -9
    stream = _only(rig)
    assert [row["action"] for row in rig.steps(stream)] == list(range(1, 5000))
    assert rig.seqs(stream) == list(range(1, 5001))
    assert not rig.proxy.ended
