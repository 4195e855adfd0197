"""Slicing: parts of a section hold exactly the rows asked for, and a body that is not what it says is refused."""

import struct
from collections.abc import Callable, Sequence

import pytest

from runlane.config.errors import WireError
from runlane.transport.messages import StepField, StepSchema
from runlane.transport.slicing import Part, after_seq, by_env, every_nth
from runlane.transport.testing import SEQ_ONLY, seqs_of
from runlane.transport.wire import KIND_NUMBER, STEP, Section, pack, unpack

ROW = struct.Struct("<QfI")
PER_ENV = StepSchema(
    schema_id=3, fields=[StepField("seq", "<u8"), StepField("reward", "<f4"), StepField("env_index", "<u4")]
)
LOG = KIND_NUMBER["log"]


def _steps(seqs: Sequence[int]) -> Part:
    body = struct.pack(f"<{len(seqs)}Q", *seqs)
    return Section(STEP, 7, len(seqs), len(body)), body


def _rows(*rows: tuple[int, float, int]) -> Part:
    body = b"".join(ROW.pack(*row) for row in rows)
    return Section(STEP, PER_ENV.schema_id, len(rows), len(body)), body


def _records(seqs: Sequence[int]) -> Part:
    body = pack([[seq, "said"] for seq in seqs])
    return Section(LOG, 0, len(seqs), len(body)), body


def _check(part: Part | None, records: int) -> Part:
    """A part's section says what its body is."""
    assert part is not None
    section, body = part
    assert (section.records, section.size_bytes) == (records, len(body))
    return part


# ---- every n-th ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("n", [1, 2, 3, 7, 100])
@pytest.mark.parametrize("size", [1, 2, 5, 64])
def test_every_nth_row_of_a_stream_however_it_is_cut(n: int, size: int) -> None:
    """The first row and every n-th after it, whatever the size of the batches."""
    seqs = list(range(1, 65))
    found: list[int] = []
    for start in range(0, len(seqs), size):
        part = every_nth(*_steps(seqs[start : start + size]), start, n)
        if part is not None:
            _check(part, len(seqs_of(part[1])))
            found += seqs_of(part[1])
    assert found == seqs[::n]


def test_a_batch_without_an_nth_row_has_no_part() -> None:
    """Rows 2 to 4 of ten."""
    assert every_nth(*_steps([2, 3, 4]), 1, 10) is None


def test_a_part_is_of_the_same_kind_and_layout() -> None:
    """A subscriber reads it by the schema of the whole."""
    section, _ = _check(every_nth(*_steps([1, 2, 3]), 0, 2), 2)
    assert (section.kind, section.schema_id) == (STEP, 7)


# ---- by environment --------------------------------------------------------------------------------------


def test_rows_of_each_environment_come_apart_in_order() -> None:
    """Every row is in one part, and within a part the order is that of the source."""
    parts = by_env(*_rows((1, 0.5, 2), (2, 1.5, 0), (3, 2.5, 2), (4, 3.5, 9)), PER_ENV)
    found = {env: list(ROW.iter_unpack(bytes(body))) for env, _, body in parts}
    assert found == {0: [(2, 1.5, 0)], 2: [(1, 0.5, 2), (3, 2.5, 2)], 9: [(4, 3.5, 9)]}
    for env, section, body in parts:
        _check((section, body), len(found[env]))


PACKED = StepSchema(schema_id=3, fields=PER_ENV.fields, env_count=4)
WIDE = StepSchema(schema_id=3, fields=[StepField("seq", "<u8"), StepField("env_index", "<u4", 2)])
ODD = StepSchema(schema_id=3, fields=[StepField("seq", "<u8"), StepField("env_index", "<i8")])


@pytest.mark.parametrize("schema", [None, SEQ_ONLY, PACKED, WIDE, ODD], ids=["none", "no column", "packed", "2", "i8"])
def test_rows_that_name_no_environment_stay_together(schema: StepSchema | None) -> None:
    """As environment 0, and as they came: without a copy."""
    section, body = _rows((1, 0.5, 2), (2, 1.5, 0))
    ((env, same_section, same_body),) = by_env(section, body, schema)
    assert (env, same_section) == (0, section)
    assert same_body is body


def test_a_column_behind_an_array_is_found() -> None:
    """Offsets count every item of a column before it."""
    schema = StepSchema(schema_id=0, fields=[StepField("observation", "<f4", 3), StepField("env_index", "<u4")])
    body = struct.pack("<3fI3fI", 1, 1, 1, 6, 2, 2, 2, 5)
    assert [env for env, _, _ in by_env(Section(STEP, 0, 2, len(body)), body, schema)] == [5, 6]


# ---- after a seq -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("make", [_steps, _records], ids=["steps", "records"])
@pytest.mark.parametrize(("seq", "left"), [(0, 4), (2, 3), (3, 3), (4, 2), (8, 1)])
def test_records_after_a_seq_are_kept(make: Callable[[Sequence[int]], Part], seq: int, left: int) -> None:
    """Seqs within a section rise, and may have holes that other sections fill."""
    section, body = make([2, 4, 7, 9])
    part = after_seq(section, body, seq)
    part_section, part_body = _check(part, left)
    assert part_section.kind == section.kind
    seqs = seqs_of(part_body) if section.kind == STEP else [record[0] for record in unpack(part_body)]
    assert seqs == [known for known in (2, 4, 7, 9) if known > seq]


@pytest.mark.parametrize("part", [_steps([5, 6]), _records([5, 6])])
def test_nothing_after_the_last_seq_is_no_part(part: Part) -> None:
    """So nothing is sent of it."""
    assert after_seq(*part, 6) is None


def test_records_that_were_kept_are_not_changed() -> None:
    """Whatever they hold besides their seq."""
    records = [[1, "a"], [2, {"x": [1.5, None]}, b"raw"], [3, float("inf")]]
    body = pack(records)
    part = _check(after_seq(Section(LOG, 0, 3, len(body)), body, 1), 2)
    assert unpack(part[1]) == records[1:]


# ---- bodies that are not what they say -------------------------------------------------------------------


def _cut(part: Part) -> Part:
    return part[0], part[1][:-1]


bad_bodies: list[tuple[int, bytes, int]] = [
    (LOG, pack([[1], "no record"]), 2),
    (LOG, pack([[1], []]), 2),
    (LOG, b"\x92\x91\x01\x80", 2),
    (LOG, pack([["one"], [2]]), 2),
    (LOG, pack(7), 1),
    (LOG, pack(None), 1),
    (LOG, b"\xc1", 1),
    (LOG, pack([[1]]) + b"more", 1),
    (LOG, pack([[1], [2], [3]]), 1),
    (LOG, pack([[1]]), 2),
    (STEP, bytes(12), 3),
    (STEP, bytes(17), 2),
    (STEP, bytes(16), 0),
]


@pytest.mark.parametrize(("kind", "body", "records"), bad_bodies, ids=range(len(bad_bodies)))
def test_after_seq_refuses_what_has_no_seqs(kind: int, body: bytes, records: int) -> None:
    """A `WireError` and nothing else, whoever made the body."""
    with pytest.raises(WireError):
        after_seq(Section(kind, 0, records, len(body)), body, 0)


def test_every_nth_refuses_rows_that_do_not_fit() -> None:
    """A row's size is the body's, divided without a rest."""
    with pytest.raises(WireError):
        every_nth(*_cut(_steps([1, 2])), 0, 2)


@pytest.mark.parametrize("size", [8, 12, 15])
def test_by_env_refuses_rows_shorter_than_their_schema(size: int) -> None:
    """The column it needs would lie behind the row's end."""
    with pytest.raises(WireError):
        by_env(Section(STEP, 3, 2, 2 * size), bytes(2 * size), PER_ENV)
