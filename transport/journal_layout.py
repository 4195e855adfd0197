"""The bytes of a journal. The only file that counts them; `docs/reference/journal-layout.md` repeats the drawing.

A journal is what one stream's source has recorded and the database has not yet committed, in a directory of its
own, `<data_dir>/journals/<stream id>/`. It is written by the worker alone, read and deleted by its proxy (or by
whoever holds the reader's lock). Everything is little endian.

    head            4096 bytes that both sides map; one writer per word
    00000001.seg    records, in the order of their seqs; preallocated, zero where nothing was written yet
    00000002.seg    ...
    reader.lock     held by the process that drains the journal

HEAD

     0          4           6        8                      24               32
    +----------+-----------+--------+----------------------+----------------+
    | "RLJH"   | version   | zero   | stream id, 16 bytes  | created_ns i64 |
    +----------+-----------+--------+----------------------+----------------+
     64   published u64   newest seq a reader may take while the worker lives       written by the worker
     128  closed    u64   last seq of the stream, 0 while it is open                written by the worker
     192  acked     u64   everything up to here is committed                       written by the reader
     256  untold    u64 x 16, by kind: records dropped, and no drop record tells it  written by the worker
     384  telling   u64 x 16, by kind: seq of the drop record that is to tell it     written by the worker
     512  info      u32 length, then a MessagePack map: the first `StreamInfo`, for where no segment could be made

    The worker holds a lock (flock) on the file as long as it lives. A forked child closes its copy of the file: a
    POSIX lock would not be inherited, but is lost when any other code of the process opens and closes the file.

SEGMENT

     0          4           6        8                      24
    +----------+-----------+--------+----------------------+
    | "RLJS"   | version   | zero   | stream id, 16 bytes  |
    +----------+-----------+--------+----------------------+
     24             32                40         44
    +--------------+-----------------+----------+--------------------------------+
    | number u64   | first_seq u64   | check u32| zero to 64, then the records   |
    +--------------+-----------------+----------+--------------------------------+

    `first_seq` is 0 in a spare segment, made before it is needed. `check` is the Adler-32 of bytes 0 to 40.

RECORD

     0            4             8         9        10             12         20
    +------------+-------------+---------+--------+--------------+----------+-------------+
    | check u32  | length u32  | kind u8 | zero   | schema u16   | seq u64  | payload     |
    +------------+-------------+---------+--------+--------------+----------+-------------+

    `length` is that of the whole record; `check` is the Adler-32 of everything behind it. The kinds are those of
    the wire (1 = step, ...). A step's row on the wire is its record from byte 12 on; the payload of any other kind
    is the MessagePack array of its record. Two kinds never leave the journal: INFO (0), a MessagePack map of the
    `StreamInfo` as it is from here on, at the start of every segment and whenever a schema is added; and
    END (255), after the last record of a segment that has a successor. Their seq is that of the record before.

    Adler-32 and not CRC-32, because it is computed at every step: 0.05 µs against 0.16 µs for such a record (see
    docs/decisions/0007-journal.md). It finds every damage that lies within one byte, and any other but for about
    one in 2^26; the seq, which must be the next one, stands beside it.
"""

import struct
from pathlib import Path
from typing import NamedTuple
from zlib import adler32

from runlane.config.errors import JournalError

VERSION = 1
HEAD_FILE = "head"
HEAD_PART = "head.part"  # before it is whole
READER_ROLE = "reader"
SEGMENT_SUFFIX = ".seg"
HEAD_BYTES = 4096
SEGMENT_HEADER_BYTES = 64

INFO_OFFSET = 512  # of the head; what is longer than it has room for is left out
# Indices into the head seen as native u64 words.
PUBLISHED = 64 // 8
CLOSED = 128 // 8
ACKED = 192 // 8
UNTOLD = 256 // 8
TELLING = 384 // 8

INFO = 0
END = 255

RECORD_HEADER = struct.Struct("<IIBxHQ")
RECORD_HEADER_BYTES = RECORD_HEADER.size
ROW_OFFSET = 12  # a step's row begins with its seq
MAX_RECORD_BYTES = 1 << 30

# What precedes a step's row, but for the check: length, kind, schema.
ROW_PREFIX = struct.Struct("<IBxH")

_HEAD = struct.Struct("<4sHxx16sq")
_SEGMENT = struct.Struct("<4sHxx16sQQ")
_CHECK = struct.Struct("<I")
_LENGTH = struct.Struct("<I")
_HEAD_MAGIC = b"RLJH"
_SEGMENT_MAGIC = b"RLJS"


class SegmentHeader(NamedTuple):
    """What a segment says of itself. `first_seq` 0: a spare one, nothing in it."""

    stream: bytes
    number: int
    first_seq: int


def segment_path(directory: Path, number: int) -> Path:
    """Where segment `number` (from 1) lies."""
    return directory / f"{number:08d}{SEGMENT_SUFFIX}"


def segment_numbers(directory: Path) -> list[int]:
    """Numbers of the segments that are there, rising; files with other names are passed over."""
    found = (path.stem for path in directory.glob(f"*{SEGMENT_SUFFIX}"))
    return sorted(int(stem) for stem in found if stem.isascii() and stem.isdigit())


def encode_head(stream: bytes, created_ns: int, info: bytes = b"") -> bytes:
    """A head file as it is made, with the packed info of its stream if there is room for it."""
    head = bytearray(HEAD_BYTES)
    _HEAD.pack_into(head, 0, _HEAD_MAGIC, VERSION, stream, created_ns)
    start = INFO_OFFSET + _LENGTH.size
    if len(info) <= HEAD_BYTES - start:
        _LENGTH.pack_into(head, INFO_OFFSET, len(info))
        head[start : start + len(info)] = info
    return bytes(head)


def decode_head_info(data: bytes | memoryview) -> bytes:
    """The packed info in a head, empty where it has none."""
    (length,) = _LENGTH.unpack_from(data, INFO_OFFSET)
    start = INFO_OFFSET + _LENGTH.size
    return bytes(data[start : start + length])


def decode_head(data: bytes | memoryview) -> bytes:
    """Stream id of a head; raises `JournalError` when it is none."""
    if len(data) < HEAD_BYTES:
        raise JournalError(f"the head has {len(data)} bytes, not {HEAD_BYTES}")
    magic, version, stream, _ = _HEAD.unpack_from(data)
    _check_magic("head", magic, _HEAD_MAGIC, version)
    return bytes(stream)


def encode_segment_header(header: SegmentHeader) -> bytes:
    """The first bytes of a segment, with their check."""
    head = _SEGMENT.pack(_SEGMENT_MAGIC, VERSION, *header)
    return head + _CHECK.pack(adler32(head))


def decode_segment_header(data: bytes | memoryview) -> SegmentHeader:
    """Header of a segment; raises `JournalError` when it is none of ours, or damaged."""
    if len(data) < SEGMENT_HEADER_BYTES:
        raise JournalError(f"the file has {len(data)} bytes, less than a segment's header")
    magic, version, stream, number, first_seq = _SEGMENT.unpack_from(data)
    _check_magic("segment", magic, _SEGMENT_MAGIC, version)
    (check,) = _CHECK.unpack_from(data, _SEGMENT.size)
    if check != adler32(data[: _SEGMENT.size]):
        raise JournalError("the segment's header is damaged: its check does not fit")
    return SegmentHeader(bytes(stream), number, first_seq)


def _check_magic(what: str, magic: bytes, expected: bytes, version: int) -> None:
    if magic != expected:
        raise JournalError(f"no {what} of a runlane journal: it begins with {magic!r}, not {expected!r}")
    if version != VERSION:
        raise JournalError(f"the {what} has layout version {version}, this runlane reads {VERSION}: upgrade runlane")


def encode_record(kind: int, schema_id: int, seq: int, payload: bytes) -> bytes:
    """A whole record. The session packs its step rows itself, in the same layout."""
    length = RECORD_HEADER_BYTES + len(payload)
    record = RECORD_HEADER.pack(0, length, kind, schema_id, seq)[4:] + payload
    return _CHECK.pack(adler32(record)) + record


def record_check(data: memoryview, offset: int, length: int) -> bool:
    """Whether the record of `length` bytes at `offset` is whole."""
    (check,) = _CHECK.unpack_from(data, offset)
    return bool(check == adler32(data[offset + 4 : offset + length]))
