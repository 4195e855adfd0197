"""Ids: unique without a registry, and a run's id sorts by time."""

import re

from hypothesis import given
from hypothesis import strategies as st

from runlane.transport.identity import new_run_id, new_stream_id

MS = 1_000_000


def test_a_run_id_is_a_ulid_in_lower_case() -> None:
    """26 digits of Crockford's base32, which has no i, l, o and u."""
    assert re.fullmatch(r"[0-7][0-9a-hjkmnp-tv-z]{25}", new_run_id(1_700_000_000_000 * MS))


def test_the_time_is_in_front() -> None:
    """48 bits of milliseconds in the first ten digits: the example in the ULID specification."""
    assert new_run_id(1_469_918_176_385 * MS)[:10] == "01aryz6s41"


@given(earlier=st.integers(0, (1 << 48) - 2), later=st.integers(1, 1 << 40))
def test_run_ids_sort_by_time(earlier: int, later: int) -> None:
    """Text order is time order, a millisecond apart or a century."""
    then = min(earlier + later, (1 << 48) - 1)
    assert new_run_id(earlier * MS) < new_run_id(then * MS)


def test_ids_of_one_instant_differ() -> None:
    """80 random bits keep runs of one millisecond apart, 128 the streams."""
    assert len({new_run_id(0) for _ in range(1_000)}) == 1_000
    assert len({new_stream_id() for _ in range(1_000)}) == 1_000


def test_a_stream_id_is_16_bytes_in_hexadecimal() -> None:
    """As it stands in a batch header, so in text."""
    assert len(bytes.fromhex(new_stream_id())) == 16
