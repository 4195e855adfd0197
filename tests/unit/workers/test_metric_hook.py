"""What SB3 and summary writers log becomes metrics, once, with the real packages; and nothing else changes."""

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
from kinds import ROOT, interpreter_of

ARM = """
import inspect, json, sys
from runlane.workers import hooked_session
from runlane.workers.metric_hook import patch_sb3_logger, patch_summary_writer
recorded = []
class Session:
    def metrics(self, values, step):
        recorded.append([step, values])
hooked_session.session_for_metrics = Session
"""
WRITERS = {
    "torch": "import torch.utils.tensorboard.writer as home",
    "tensorboardX": "import tensorboardX.writer as home",
}


def _run(directory: Path, text: str) -> Any:
    script = directory / "script.py"
    script.write_text(ARM + text + "\nprint(json.dumps(recorded))\n")
    done = subprocess.run(
        [str(interpreter_of("sb3")), str(script)],
        cwd=directory,
        capture_output=True,
        text=True,
        timeout=55,
        check=False,
        env={"PYTHONPATH": str(ROOT / "src"), "PATH": "/usr/bin:/bin", "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.parametrize("writer", sorted(WRITERS))
def test_scalars_of_a_summary_writer(tmp_path: Path, writer: str) -> None:
    """By place or by name, numbers of any kind in main memory, at their step; patched twice is patched once."""
    text = f"""
{WRITERS[writer]}
import numpy, torch
before = inspect.signature(home.SummaryWriter.add_scalar)
patch_summary_writer(home)
patch_summary_writer(home)
assert inspect.signature(home.SummaryWriter.add_scalar) == before
log = home.SummaryWriter("logs")
assert log.add_scalar("a", 0.1, 1) is None
log.add_scalar(tag="b", scalar_value=numpy.float64(0.2), global_step=numpy.int64(2))
log.add_scalar("c", numpy.array([3.0]), 3)
log.add_scalar("d", torch.tensor(4.5, requires_grad=True), 4)
log.add_scalar("e", 5)
log.add_scalars("f", {{"x": 6.5, "y": torch.tensor(7)}}, 6)
try:
    log.add_scalar("bad", numpy.zeros(3), 7)
except (AssertionError, ValueError, TypeError):
    pass
else:
    raise SystemExit("the library's own error is gone")
log.close()
"""
    assert _run(tmp_path, text) == [
        [1, {"a": 0.1}],
        [2, {"b": 0.2}],
        [3, {"c": 3.0}],
        [4, {"d": 4.5}],
        [None, {"e": 5.0}],
        [6, {"f/x": 6.5, "f/y": 7.0}],
    ]


def test_a_tensor_on_a_device_is_never_fetched_by_us(tmp_path: Path) -> None:
    """What the library has fetched to write it down is taken from there: one copy, and no `item()`."""
    text = """
import torch
import torch.utils.tensorboard.writer as home
patch_summary_writer(home)
calls = []
class Elsewhere(torch.Tensor):
    '''Says that it lies on a device, and notes who fetches it.'''
    @property
    def device(self):
        return torch.device("cuda", 0)
    def cpu(self):
        calls.append("cpu")
        return self.as_subclass(torch.Tensor)
    def item(self):
        calls.append("item")
        return super().item()
    def __float__(self):
        calls.append("float")
        return super().__float__()
    def detach(self):
        return self
log = home.SummaryWriter("logs")
log.add_scalar("loss", torch.tensor(0.5).as_subclass(Elsewhere), 1)
log.add_scalar("new", torch.tensor(0.25).as_subclass(Elsewhere), 2, new_style=True)
assert calls == ["cpu", "cpu"], calls
from runlane.workers.scalar import number_of
assert number_of(torch.tensor(0.5).as_subclass(Elsewhere)) is None
assert calls == ["cpu", "cpu"], calls
"""
    assert _run(tmp_path, text) == [[1, {"loss": 0.5}], [2, {"new": 0.25}]]


def test_what_sb3_dumps_is_recorded_once(tmp_path: Path) -> None:
    """Its TensorBoard output goes through a hooked `SummaryWriter`; another's scalars there are not lost by that."""
    text = """
import torch.utils.tensorboard.writer as home
import stable_baselines3.common.logger as logger
from torch.utils.tensorboard import SummaryWriter
patch_summary_writer(home)
patch_sb3_logger(logger)
log = logger.configure("logs", ["tensorboard", "csv"])
own = SummaryWriter("own")
class Other(logger.KVWriter):
    def write(self, key_values, key_excluded, step=0):
        own.add_scalar("own/one", 9.0, step)
    def close(self):
        pass
log.output_formats.append(Other())
log.record("train/loss", 0.5)
log.record("train/text", "no number")
log.record("time/steps", 7, exclude="tensorboard")
log.dump(step=64)
log.record("train/loss", 0.25)
log.dump(128)
log.set_level(logger.DISABLED)
log.record("train/loss", 1.0)
log.dump(192)
own.add_scalar("train/loss", 3.0, 5)
rows = open("logs/progress.csv").read().splitlines()
assert len(rows) == 3, rows
"""
    assert _run(tmp_path, text) == [
        [64, {"own/one": 9.0}],
        [64, {"train/loss": 0.5, "time/steps": 7.0}],
        [128, {"own/one": 9.0}],
        [128, {"train/loss": 0.25}],
        [5, {"train/loss": 3.0}],
    ]


def test_a_fault_of_ours_reaches_nobody(tmp_path: Path) -> None:
    """The session cannot be had: the library's call returns as ever, and the fault is counted."""
    text = """
import torch.utils.tensorboard.writer as home
patch_summary_writer(home)
faults = []
hooked_session.count_fault = faults.append
def session_for_metrics():
    raise OSError("no disk")
hooked_session.session_for_metrics = session_for_metrics
log = home.SummaryWriter("logs")
log.add_scalar("a", 1.0, 1)
assert len(faults) == 1
recorded.append("went on")
"""
    assert _run(tmp_path, text) == ["went on"]
