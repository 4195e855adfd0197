"""kill -9 at any moment: the journal holds every record whose call had returned, and at most the one under way."""

import os
import random
import signal
import struct
import subprocess
import sys
from pathlib import Path
from typing import IO

import pytest
from unit.workers.session_rig import SessionRig

from runlane.config import names
from runlane.transport.endpoint import data_dir_of
from runlane.transport.records import EpisodeRecord, InfoRecord, MetricRecord

# Each number is written, with a plain write, to the worker's own file once its call has returned.
WORKER = """
import os, struct, sys
from runlane.workers import attach
session = attach()
assert session.is_attached
report = os.open(sys.argv[1], os.O_WRONLY | os.O_CREAT)
kind = sys.argv[2]
print("ready", flush=True)
number = 0
while True:
    number += 1
    if kind == "step":
        session.step(number, 1.0)
    elif kind == "metric":
        session.metric("m", number)
    elif kind == "large":
        session.step(number, 1.0, observation=[float(number)] * (1 + number % 3000))
    else:
        session.step(number, 1.0, number % 5 == 0, info={"n": number})
    os.pwrite(report, struct.pack("<Q", number), 0)
"""


def _start(rig: SessionRig, report: Path, kind: str) -> "subprocess.Popen[bytes]":
    environment = {
        **os.environ,
        f"{names.ENV_PREFIX}DATA_DIR": str(data_dir_of(rig.settings)),
        f"{names.ENV_PREFIX}JOURNAL__SEGMENT_BYTES": str(1 << 16),
        names.ENV_PROXY: rig.endpoint,
        names.ENV_RUN: "run-1",
    }
    command = [sys.executable, "-c", WORKER, str(report), kind]
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE)


def _kill_after(process: "subprocess.Popen[bytes]", seconds: float) -> None:
    output: IO[bytes] | None = process.stdout
    assert output is not None
    assert output.readline() == b"ready\n"
    try:
        process.wait(seconds)
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGKILL)
    process.wait(10)
    output.close()
    assert process.returncode == -signal.SIGKILL


def _recorded(rig: SessionRig, stream: str, kind: str) -> list[int]:
    if kind == "metric":
        return [int(record.value) for record in rig.records(MetricRecord, stream)]
    return [row["action"] for row in rig.steps(stream)]


@pytest.mark.parametrize("kind", ["step", "metric", "large", "mixed"])
def test_a_kill_loses_no_returned_record(rig: SessionRig, short_dir: Path, kind: str) -> None:
    """At random moments, also between the segments: all that had returned, at most one more, no gap, no wrong row."""
    seed = int.from_bytes(os.urandom(4), "little")
    dice = random.Random(seed)  # noqa: S311
    known: set[str] = set()
    for turn in range(3):
        report = short_dir / f"report-{turn}"
        _kill_after(_start(rig, report, kind), dice.uniform(0.01, 0.3))
        (stream,) = set(rig.streams()) - known
        known.add(stream)
        data = report.read_bytes()
        (returned,) = struct.unpack("<Q", data) if data else (0,)
        recorded = _recorded(rig, stream, kind)
        assert recorded == list(range(1, len(recorded) + 1)), seed
        assert returned <= len(recorded) <= returned + 1, seed
        seqs = rig.seqs(stream)
        assert seqs == list(range(1, len(seqs) + 1)), seed
        if kind == "mixed":
            # A step's episode and info are records of their own, and of the last call some may be missing.
            infos = [record.info["n"] for record in rig.records(InfoRecord, stream)]
            assert infos in (recorded, recorded[:-1]), seed
            assert len(recorded) // 5 - len(rig.records(EpisodeRecord, stream)) in (0, 1), seed


def test_a_killed_worker_is_seen_to_be_dead(rig: SessionRig, short_dir: Path) -> None:
    """The lock on its journal's head goes with it, and was there before."""
    process = _start(rig, short_dir / "report", "step")
    rig.wait(lambda: len(rig.proxy.journals) == 1)
    (stream,) = rig.streams()
    head = rig.head(stream)
    assert head.is_writer_alive
    _kill_after(process, 0.05)
    assert not head.is_writer_alive
    assert head.published <= len(rig.seqs(stream))
