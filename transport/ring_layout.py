"""The bytes of the fast lane. The only file that counts them; `docs/reference/ring-layout.md` repeats the drawing.

A ring is what one worker shows of one stream: a head file, there as long as the worker is, and a slots file, made by
the first frame and again, as the next generation, whenever frames change their size. Every word is 8 bytes in the
byte order of the machine, at an address divisible by 8, and stored whole. Nothing here leaves the host.

HEAD, 4096 bytes

     0          4           6        8         16                  24
    +----------+-----------+--------+---------+-------------------+----------------+
    | "RLFL"   | version   | zero   | pid u64 | started u64       | created_ns i64 |
    +----------+-----------+--------+---------+-------------------+----------------+
     64   generation u64   slots file in use, 0 before the first frame       written by the worker
     72   head       u64   number of the newest whole frame, 0 for none      written by the worker
     80   closed     u64   1 once the worker has ended in order              written by the worker
     88   asked      u64   of a held ring: frames wanted per 1000 seconds    written by its asker
     96   looked     i64   of a held ring: when that was, monotonic          written by its asker
     104  engine     u64   of a held ring: pid of who can draw into it       written by the engine
     128  leases     8 lines of 64 bytes, one for each viewer                written by viewers
     640  info       u32 length, then a MessagePack map: whose ring it is    written by the worker

LEASE, 64 bytes

     0            8               16               24         32
    +------------+---------------+----------------+----------+--------------+
    | viewer u64 | until_ns u64  | rate_mhz u64   | tile u64 | seen u64     |
    +------------+---------------+----------------+----------+--------------+

SLOTS: a header of 4096 bytes, then `slots` slots of `slot_bytes` each

     0          4           6        8                16            24             32              40
    +----------+-----------+--------+----------------+-------------+--------------+---------------+
    | "RLFS"   | version   | zero   | generation u64 | slots u64   | slot_bytes   | frame_bytes   |
    +----------+-----------+--------+----------------+-------------+--------------+---------------+
     40           48            56             64
    +------------+-------------+--------------+
    | width u64  | height u64  | channels u64 | then u64 1 where every slot has a check
    +------------+-------------+--------------+

SLOT of frame n, which is slot n mod `slots`

     0            8               16          24           32          40               44
    +------------+---------------+-----------+------------+-----------+----------------+------------+
    | number u64 | step_seq u64  | t_ns i64  | mono_ns i64| place u64 | env_index u32  | tile u32   |
    +------------+---------------+-----------+------------+-----------+----------------+------------+
     48               56                   64                   72                  80          88
    +----------------+--------------------+--------------------+-------------------+-----------+
    | last_reward f64| episode_return f64 | rolling_return f64 | step_rate_hz f64  | check u64 | zero to 128
    +----------------+--------------------+--------------------+-------------------+-----------+
     128  pixels   `frame_bytes`: rows from the top, no padding; 1 byte per channel (gray, RGB, RGBA)

    The worker stores `number`, then the other fields, then the pixels, then `head` in the head file: before `head`
    says n nobody reads slot n. A reader copies fields and pixels and then looks at `number` again: if it is still n,
    the worker had not begun to write over them. x86 keeps this order of stores and of loads. Other processors need
    not; there `check` is the Adler-32 of the slot up to it and of the pixels, and a reader believes a copy only if it
    fits. The number is part of it, or a slot whose new number is seen first would fit with all that was in it before.
"""

import platform
import struct
import sys
from typing import NamedTuple
from zlib import adler32

import msgspec

from runlane.config.errors import FastLaneError, WireError
from runlane.transport.wire import Frame, pack, unpack

VERSION = 1
HEAD_BYTES = 4096
SLOTS_HEADER_BYTES = 4096
SLOT_HEADER_BYTES = 128
LEASES = 8
LEASE_BYTES = 64

# Indices into the head seen as native u64 words.
GENERATION = 64 // 8
HEAD = 72 // 8
CLOSED = 80 // 8
ASKED = 88 // 8
LOOKED = 96 // 8
ENGINE = 104 // 8
LEASE = 128 // 8
LEASE_WORDS = LEASE_BYTES // 8

INFO_OFFSET = 640
CHECK_OFFSET = 80  # of a slot

# A slot's fields behind its number.
FIELDS = struct.Struct("@QqqQIIdddd")
FIELDS_OFFSET = 8

MAX_SIDE = 1 << 14
CHANNELS = (1, 3, 4)

_HEAD = struct.Struct("@4sH2xQQq")
_SLOTS = struct.Struct("@4sH2xQQQQQQQQ")
_LENGTH = struct.Struct("@I")
_HEAD_MAGIC = b"RLFL"
_SLOTS_MAGIC = b"RLFS"


class Geometry(NamedTuple):
    """Size of a frame in pixels; `channels` is 1 (gray), 3 (RGB) or 4 (RGBA)."""

    width: int
    height: int
    channels: int

    @property
    def frame_bytes(self) -> int:
        """Bytes of one frame."""
        return self.width * self.height * self.channels

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of a frame as an array (height, width[, channels]) of uint8."""
        return (self.height, self.width) if self.channels == 1 else (self.height, self.width, self.channels)


class Hud(NamedTuple):
    """What belongs to a frame and stands in its slot, in the slot's order.

    `step_seq` is the seq of the step record the frame shows, 0 where that was not recorded. `t_ns` is since 1970,
    `mono_ns` on the host's monotonic clock. `place` is episode + (step << 32). `tile` is 0 for one environment, else
    how many of them the frame shows.
    """

    step_seq: int = 0
    t_ns: int = 0
    mono_ns: int = 0
    place: int = 0
    env_index: int = 0
    tile: int = 0
    last_reward: float = 0.0
    episode_return: float = 0.0
    rolling_return: float = 0.0
    step_rate_hz: float = 0.0

    @property
    def episode(self) -> int:
        """Number of the episode, from 1."""
        return self.place & 0xFFFFFFFF

    @property
    def step(self) -> int:
        """Step in the episode."""
        return self.place >> 32


class RingInfo(msgspec.Struct, frozen=True, kw_only=True):
    """Whose ring it is. `stream` is empty where nothing is recorded. `env_count` is that of a vector environment."""

    run: str
    worker: str
    stream: str = ""
    run_name: str = ""
    host: str = ""
    env_count: int = 1


class HeadHeader(NamedTuple):
    """What a head says for good: its maker's pid and start (clock ticks since boot, 0 unknown), and when."""

    pid: int
    started: int
    created_ns: int


class SlotsHeader(NamedTuple):
    """What a slots file says for good."""

    generation: int
    slots: int
    slot_bytes: int
    geometry: Geometry
    is_checked: bool

    @property
    def file_bytes(self) -> int:
        """Bytes of the whole file."""
        return SLOTS_HEADER_BYTES + self.slots * self.slot_bytes

    def slot_offset(self, number: int) -> int:
        """Where the slot of a frame begins."""
        return SLOTS_HEADER_BYTES + number % self.slots * self.slot_bytes


def slots_header(generation: int, slots: int, geometry: Geometry, *, is_checked: bool) -> SlotsHeader:
    """The header of a slots file for frames of this size. Raises `FastLaneError` for a size no frame has."""
    width, height, channels = geometry
    if not (0 < width <= MAX_SIDE and 0 < height <= MAX_SIDE and channels in CHANNELS):
        raise FastLaneError(
            f"a frame of {width} x {height} pixels with {channels} channels: give 1 to {MAX_SIDE} pixels a side, "
            "and gray, RGB or RGBA"
        )
    slot_bytes = (SLOT_HEADER_BYTES + geometry.frame_bytes + 63) // 64 * 64
    return SlotsHeader(generation, slots, slot_bytes, geometry, is_checked)


def is_ordered() -> bool:
    """Whether this processor keeps stores, and loads, in the order of the program, so that no check is needed."""
    return platform.machine().lower() in ("x86_64", "amd64", "i686", "i386")


def encode_head(header: HeadHeader, info: RingInfo) -> bytes:
    """A whole head file, as it is made. Raises `FastLaneError` where the info is too long."""
    packed = pack(msgspec.to_builtins(info))
    head = bytearray(HEAD_BYTES)
    _HEAD.pack_into(head, 0, _HEAD_MAGIC, VERSION, *header)
    start = INFO_OFFSET + _LENGTH.size
    if len(packed) > HEAD_BYTES - start:
        raise FastLaneError(f"a ring's names take {len(packed)} bytes, {HEAD_BYTES - start} have room: shorten them")
    _LENGTH.pack_into(head, INFO_OFFSET, len(packed))
    head[start : start + len(packed)] = packed
    return bytes(head)


def decode_head(data: Frame) -> tuple[HeadHeader, RingInfo]:
    """The head's own words on itself; raises `FastLaneError` when it is none of ours, or damaged."""
    _check(data, HEAD_BYTES, "head", _HEAD_MAGIC)
    _, _, pid, started, created_ns = _HEAD.unpack_from(data)
    (length,) = _LENGTH.unpack_from(data, INFO_OFFSET)
    start = INFO_OFFSET + _LENGTH.size
    try:
        info = msgspec.convert(unpack(bytes(data[start : start + length])), RingInfo)
    except (WireError, msgspec.ValidationError) as error:
        raise FastLaneError(f"the ring's head does not say whose it is: {error}") from None
    return HeadHeader(pid, started, created_ns), info


def encode_slots(header: SlotsHeader) -> bytes:
    """The first bytes of a slots file."""
    first = (header.generation, header.slots, header.slot_bytes, header.geometry.frame_bytes)
    return _SLOTS.pack(_SLOTS_MAGIC, VERSION, *first, *header.geometry, header.is_checked)


def decode_slots(data: Frame, size: int) -> SlotsHeader:
    """Header of a slots file of `size` bytes; raises `FastLaneError` when it is none of ours, or not of this size."""
    _check(data, SLOTS_HEADER_BYTES, "slots file", _SLOTS_MAGIC)
    _, _, generation, slots, slot_bytes, frame_bytes, width, height, channels, is_checked = _SLOTS.unpack_from(data)
    geometry = Geometry(width, height, channels)
    header = slots_header(generation, slots, geometry, is_checked=bool(is_checked))
    is_right = slots and (slot_bytes, frame_bytes) == (header.slot_bytes, geometry.frame_bytes)
    if not is_right or header.file_bytes > size:
        raise FastLaneError(f"the ring's slots file of {size} bytes contradicts itself: {header}")
    return header


def _check(data: Frame, least: int, what: str, expected: bytes) -> None:
    if len(data) < least:
        raise FastLaneError(f"the ring's {what} has {len(data)} bytes, not {least}")
    magic, version = bytes(data[:4]), int.from_bytes(data[4:6], sys.byteorder)
    if magic != expected:
        raise FastLaneError(f"no {what} of a ring: it begins with {magic!r}, not {expected!r}")
    if version != VERSION:
        raise FastLaneError(f"the ring's {what} has layout version {version}, this runlane reads {VERSION}: upgrade")


def check_of(first: Frame, pixels: Frame) -> int:
    """What stands in `check`: Adler-32 over a slot's bytes before it (`CHECK_OFFSET` of them) and its pixels."""
    return adler32(pixels, adler32(first))


def check_of_copy(number: int, hud: Hud, pixels: Frame) -> int:
    """The same of what a reader has copied, so that it looks at nothing twice."""
    return check_of(number.to_bytes(FIELDS_OFFSET, sys.byteorder) + FIELDS.pack(*hud), pixels)
