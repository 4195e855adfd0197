"""Records: what a source packs is what a subscriber gets, field by field; anything else is refused."""

import msgspec
import pytest

from runlane.config.errors import WireError
from runlane.config.names import KINDS
from runlane.transport.columns import decode_records
from runlane.transport.records import (
    ABSENT,
    HUMAN,
    IS_RESET,
    RECORD_TYPES,
    TERMINATED,
    TRUNCATED,
    DropRecord,
    EpisodeRecord,
    InfoRecord,
    LogRecord,
    MetricRecord,
    Record,
    RunRecord,
)
from runlane.transport.testing import make_info
from runlane.transport.wire import KIND_NUMBER, Section, decode_header, pack
from runlane.transport.writer import encode_records_batch

RECORDS: dict[str, list[Record]] = {
    "episode": [
        EpisodeRecord(1, 5, 0, 1, 12.5, 20, "terminated", 0.25),
        EpisodeRecord(2, 6, 3, 9, -1.0, 7, "abandoned", 0.5, {"lives": 3, "nested": {"a": [1, None]}}),
    ],
    "metric": [MetricRecord(3, 7, "loss", float("inf"), 40)],
    "log": [LogRecord(4, 8, "info", "ünï\n")],
    "run": [RunRecord(5, 9, "running", {"command": "python x.py", "config": {"seed": 1}})],
    "drop": [DropRecord(6, 10, "step", "outbox_full", 77)],
    "info": [InfoRecord(7, 3, 2, {"is_success": True, "raw": b"\x00"})],
}


def _section(kind: str, records: int) -> Section:
    return Section(KIND_NUMBER[kind], 0, records, 0)


def test_every_kind_but_step_has_a_record_type() -> None:
    """Kinds, types and the examples here name the same."""
    assert {"step", *RECORD_TYPES} == set(KINDS)
    assert set(RECORDS) == set(RECORD_TYPES)


def test_a_batch_of_every_kind_comes_back_equal() -> None:
    """Encoded at the source, decoded at a subscriber: the same records in the same order."""
    info = make_info()
    head, *bodies = encode_records_batch(info.stream, 1, 99, RECORDS)
    header = decode_header(head)
    assert (header.stream.hex(), header.first_seq, header.records, header.closed_ns) == (info.stream, 1, 7, 99)
    found = {KINDS[s.kind - 1]: decode_records(body, s) for s, body in zip(header.sections, bodies, strict=True)}
    assert found == RECORDS


@pytest.mark.parametrize("kind", sorted(RECORD_TYPES))
def test_a_record_starts_with_its_seq(kind: str) -> None:
    """So a reader that knows no kind still knows which record it looks at."""
    assert RECORD_TYPES[kind].__struct_fields__[0] == "seq"
    assert msgspec.to_builtins(RECORDS[kind][0])[0] == RECORDS[kind][0].seq


def test_flags_are_separate_bits_of_one_byte() -> None:
    """Any combination fits in a byte and can be taken apart."""
    assert sorted([TERMINATED, TRUNCATED, IS_RESET, HUMAN, ABSENT]) == [1, 2, 4, 8, 16]


@pytest.mark.parametrize(
    ("kind", "rows"),
    [
        ("metric", [[1, 2, "loss", "high", 3]]),
        ("metric", [[1, 2, "loss"]]),
        ("metric", {"seq": 1}),
        ("metric", [5]),
        ("log", [[-1, 2, "info", "text"]]),
        ("episode", [[1, 2, 0, 1, 1.0, 5, "won", 0.1]]),
        ("run", [[1, 2, "sleeping", {"exit_code": 1}]]),
        ("info", [[1, 2, 0, "no map"]]),
    ],
)
def test_rows_of_the_wrong_shape_are_invalid(kind: str, rows: object) -> None:
    """A wrong type, a missing field, an unknown word: WireError, and the kind stands in its text."""
    with pytest.raises(WireError, match=kind) as caught:
        decode_records(pack(rows), _section(kind, 1))
    assert caught.value.reason == "invalid"


@pytest.mark.parametrize("told", [0, 2])
def test_there_must_be_as_many_rows_as_the_header_says(told: int) -> None:
    """A body with fewer or more records would make the seqs wrong."""
    with pytest.raises(WireError) as caught:
        decode_records(pack([[1, 2, "info", "text"]]), _section("log", told))
    assert caught.value.reason == "rows"


def test_a_step_section_is_no_message_pack() -> None:
    """Steps have their own decoder; asking this one says so."""
    with pytest.raises(WireError) as caught:
        decode_records(pack([]), _section("step", 0))
    assert caught.value.reason == "kind"


def test_a_field_added_by_a_newer_source_is_passed_over() -> None:
    """Fields are only ever added at the end."""
    found = decode_records(pack([[1, 2, "info", "text", "new"]]), _section("log", 1))
    assert found == [LogRecord(1, 2, "info", "text")]
