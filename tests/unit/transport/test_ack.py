"""AckWindow and IngressGate: what is unacked is kept and resent; what is accepted is in order and once."""

import pytest

from runlane.config.errors import WireError
from runlane.transport.ack import AckWindow, Batch, IngressGate, Verdict


def _batch(first_seq: int, last_seq: int, size_bytes: int = 10) -> Batch:
    return Batch(first_seq, last_seq, (b"",), size_bytes)


def _window(*ranges: tuple[int, int], sent: int = 0, max_bytes: int = 1_000) -> AckWindow:
    """A window with these batches, the first `sent` of them sent."""
    window = AckWindow(max_bytes, ranges[0][0] if ranges else 1)
    for first_seq, last_seq in ranges:
        window.append(_batch(first_seq, last_seq))
    _send(window, sent)
    return window


def _send(window: AckWindow, count: int = 1_000) -> list[int]:
    """Send what is unsent, at most `count` batches; returns their first seqs."""
    sent: list[int] = []
    while len(sent) < count and (batch := window.next_unsent()) is not None:
        window.mark_sent()
        sent.append(batch.first_seq)
    return sent


THREE = ((1, 3), (4, 4), (5, 9))


def test_batches_go_out_once_and_in_order() -> None:
    """Each batch is offered for sending until it is marked sent, then the next."""
    window = _window(*THREE)
    assert _send(window) == [1, 4, 5]
    assert window.next_unsent() is None


@pytest.mark.parametrize("first_seq", [1, 3, 5, 6])
def test_a_hole_is_refused_where_it_would_arise(first_seq: int) -> None:
    """Only the batch that follows the last one can be appended."""
    window = _window((1, 3))
    with pytest.raises(ValueError, match=f"starts at seq {first_seq}, the one before ended at 3"):
        window.append(_batch(first_seq, 9))


def test_a_stream_may_begin_anywhere() -> None:
    """A proxy that starts in the middle of a stream begins with the oldest unacked seq."""
    window = AckWindow(1_000, first_seq=50)
    assert (window.oldest_seq, window.last_seq, window.sent_seq) == (50, 49, 49)
    window.append(_batch(50, 51))
    assert window.pending_records == 2


def test_an_ack_frees_whole_batches_only() -> None:
    """An ack inside a batch frees the ones before it; the batch is kept, because it is resent as a whole."""
    window = _window(*THREE, sent=3)
    assert window.on_ack(7) == 4
    assert (window.oldest_seq, window.pending_records, window.size_bytes) == (5, 5, 10)
    assert window.on_ack(9) == 5
    assert (window.oldest_seq, window.pending_records, window.size_bytes, len(window)) == (10, 0, 0, 0)


@pytest.mark.parametrize("seq", [0, 2, 3])
def test_an_old_or_repeated_ack_changes_nothing(seq: int) -> None:
    """Acks may come twice or late."""
    window = _window(*THREE, sent=2)
    window.on_ack(3)
    assert window.on_ack(seq) == 0
    assert (window.oldest_seq, window.sent_seq) == (4, 4)


def test_an_ack_of_what_was_not_sent_since_a_rewind_is_taken() -> None:
    """The first copies may have arrived after all: what is acked is not sent again."""
    window = _window(*THREE, sent=3)
    window.rewind(1)
    window.on_ack(4)
    assert _send(window) == [5]


def test_a_rewind_sends_again_from_the_batch_that_holds_the_seq() -> None:
    """Go-back-N: that batch and all after it, in order."""
    window = _window(*THREE, sent=3)
    assert window.rewind(4) is True
    assert window.sent_seq == 3
    assert _send(window) == [4, 5]
    assert window.rewind(7) is True
    assert _send(window) == [5]
    assert window.rewinds == 2


@pytest.mark.parametrize("expected_seq", [5, 9, 10])
def test_a_rewind_to_what_is_not_sent_yet_changes_nothing(expected_seq: int) -> None:
    """There is nothing to send again, and it is not counted."""
    window = _window(*THREE, sent=2)
    assert window.rewind(expected_seq) is False
    assert window.rewinds == 0
    assert _send(window) == [5]


def test_a_welcome_that_misses_something_sent_goes_back() -> None:
    """The receiver wants 4 and we had sent up to 9: 4 to 9 were lost on the way."""
    window = _window(*THREE, sent=3)
    assert window.on_welcome(expected_seq=4, sent_seq=9) is True
    assert _send(window) == [4, 5]


def test_a_welcome_that_has_all_we_had_sent_changes_nothing() -> None:
    """The receiver wants 4 and we had sent up to 3 when we asked; what went out since is still on its way."""
    window = _window(*THREE, sent=3)
    assert window.on_welcome(expected_seq=4, sent_seq=3) is False
    assert window.sent_seq == 9


def test_a_window_is_full_by_bytes() -> None:
    """Full is said at `max_bytes`, and taken back when acks free enough."""
    window = _window((1, 1), (2, 2), max_bytes=30)
    assert not window.is_full
    window.append(_batch(3, 3))
    assert window.is_full
    window.on_ack(1)
    assert not window.is_full


def test_iteration_shows_what_is_held() -> None:
    """Oldest first, sent or not."""
    assert [batch.first_seq for batch in _window(*THREE, sent=1)] == [1, 4, 5]


# ---- the gate --------------------------------------------------------------------------------------------


def test_the_gate_lets_each_seq_through_once() -> None:
    """In order it is new, again it is a duplicate, ahead it is a gap; each counted."""
    gate = IngressGate(1)
    verdicts = [gate.accept(*seqs) for seqs in [(1, 3), (1, 3), (5, 9), (4, 4), (5, 9), (1, 3), (4, 4)]]
    new, duplicate, gap = Verdict.NEW, Verdict.DUPLICATE, Verdict.GAP
    assert verdicts == [new, duplicate, gap, new, new, duplicate, duplicate]
    assert (gate.expected_seq, gate.duplicates, gate.gaps) == (10, 3, 1)


@pytest.mark.parametrize(("first_seq", "last_seq"), [(1, 4), (3, 5), (2, 9)])
def test_a_batch_that_is_half_new_is_refused(first_seq: int, last_seq: int) -> None:
    """A source sends a batch again as it was; taking this one would deliver some of its records twice."""
    gate = IngressGate(1)
    gate.accept(1, 3)
    with pytest.raises(WireError) as caught:
        gate.accept(first_seq, last_seq)
    assert caught.value.reason == "overlap"
    assert gate.expected_seq == 4
    assert gate.accept(4, 5) is Verdict.NEW


def test_one_gap_is_asked_for_once() -> None:
    """A flood behind a hole makes one question, not a thousand; the next hole makes the next."""
    gate = IngressGate(1)
    gate.accept(5, 5)
    assert [gate.should_ask() for _ in range(3)] == [True, False, False]
    gate.accept(1, 4)
    gate.accept(9, 9)
    assert [gate.should_ask() for _ in range(2)] == [True, False]


def test_a_gap_may_be_asked_for_again_after_progress_to_the_same_place_was_lost() -> None:
    """Progress resets the question, so the same hole one batch further on is asked for too."""
    gate = IngressGate(1)
    assert gate.should_ask()
    gate.accept(1, 1)
    assert gate.should_ask()
