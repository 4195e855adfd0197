"""The records of a stream, as they stand in batches. One struct per kind; order of fields = order on the wire.

A step is a packed binary row (see `StepSchema`); every other kind is a MessagePack array, starting with its
seq. `t_ns` is wall-clock nanoseconds, for display; order is `seq`.
"""

import contextlib
from typing import Any, Literal

import msgspec

from runlane.config.names import KINDS
from runlane.transport.messages import Seq
from runlane.transport.wire import pack

# Bits of a step row's `flags`, one byte per environment.
TERMINATED = 1
TRUNCATED = 2
IS_RESET = 4
HUMAN = 8
ABSENT = 16  # with IS_RESET, in a row of several environments that carries only some episodes' final observations

Outcome = Literal["terminated", "truncated", "abandoned"]
RunState = Literal["running", "stalled", "finished", "failed", "killed", "stopped"]
ALIVE: frozenset[RunState] = frozenset({"running", "stalled"})  # what is neither has ended


class EpisodeRecord(msgspec.Struct, frozen=True, array_like=True):
    """One finished episode of one environment. `length` counts steps, never reset rows."""

    seq: Seq
    t_ns: int
    env_index: int
    episode: int
    episode_return: float
    length: int
    outcome: Outcome
    duration_s: float
    info: dict[str, Any] | None = None


class MetricRecord(msgspec.Struct, frozen=True, array_like=True):
    """One named scalar. `step` is the training step the user gave, or the count of env steps so far."""

    seq: Seq
    t_ns: int
    name: str
    value: float
    step: int


class LogRecord(msgspec.Struct, frozen=True, array_like=True):
    """One line of text from the worker."""

    seq: Seq
    t_ns: int
    level: str
    text: str


class RunRecord(msgspec.Struct, frozen=True, array_like=True):
    """A change in the life of a run. `facts` holds what is known then: command, config, host, exit code."""

    seq: Seq
    t_ns: int
    state: RunState
    facts: dict[str, Any]


class DropRecord(msgspec.Struct, frozen=True, array_like=True):
    """Records that a source gave up before they had a seq, and why. Loss is accounted, never silent."""

    seq: Seq
    t_ns: int
    kind: str
    reason: str
    records: int


class InfoRecord(msgspec.Struct, frozen=True, array_like=True):
    """The free `info` map of the step with seq `step_seq`, kept beside the fixed-size row."""

    seq: Seq
    step_seq: int
    env_index: int
    info: dict[str, Any]


Record = EpisodeRecord | MetricRecord | LogRecord | RunRecord | DropRecord | InfoRecord

RECORD_TYPES: dict[str, type[Record]] = {
    "episode": EpisodeRecord,
    "metric": MetricRecord,
    "log": LogRecord,
    "run": RunRecord,
    "drop": DropRecord,
    "info": InfoRecord,
}

if {"step", *RECORD_TYPES} != set(KINDS):  # a new kind needs a line in both places
    raise AssertionError(f"record kinds {KINDS} and types {list(RECORD_TYPES)} differ")

for _record_type in RECORD_TYPES.values():  # before there are threads, as at the end of `messages.py`
    msgspec.msgpack.Decoder(list[_record_type])  # type: ignore[valid-type]

_encode_plain = msgspec.msgpack.Encoder().encode


def state_of_exit(exit_code: int) -> RunState:
    """What an exit code says of a run. Codes above 128 and below 0 are signals: 2 and 15 are a person's stop."""
    number = -exit_code if exit_code < 0 else exit_code - 128
    if exit_code == 0:
        return "finished"
    if number in (2, 15):
        return "stopped"
    return "killed" if number > 0 else "failed"


def pack_record(record: Record) -> bytes:
    """One record as it stands in the body of its kind's section: a MessagePack array."""
    # Without a map of the user's own this makes the same bytes in a third of the time.
    if isinstance(record, EpisodeRecord) and record.info is None:
        with contextlib.suppress(TypeError, ValueError, OverflowError):  # a NumPy number, an integer beyond 64 bits
            return _encode_plain(record)
    return pack(msgspec.structs.astuple(record))
