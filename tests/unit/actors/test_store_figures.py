"""What waits for a commit is the newest, is bounded, and is checked before it may break a transaction."""

from typing import Any

import pytest

from runlane.actors import store_figures
from runlane.actors.store_figures import CommitTimes, Figures
from runlane.transport.messages import Accounts, GraphMetrics, SubscriberAccount
from runlane.transport.sockets import Rejections


@pytest.fixture
def rejections() -> Rejections:
    return Rejections({})


@pytest.fixture
def figures(rejections: Rejections) -> Figures:
    return Figures(rejections, lambda: {"pending_rows": 7.0})


def account(stream: int = 1, published: int = 0, **more: Any) -> SubscriberAccount:
    fields: dict[str, Any] = {"published": published, "delivered": published, "queued": 0, "dropped": {}, **more}
    return SubscriberAccount(
        subscriber="viewer", run="R", stream=f"{stream:032x}", first_seq=0, last_seq=published, **fields
    )


def said(*accounts: SubscriberAccount, t_ns: int = 1) -> Accounts:
    return Accounts(router="r", t_ns=t_ns, accounts=list(accounts))


def test_of_accounts_only_the_newest_waits(figures: Figures) -> None:
    """Of each subscriber and stream, with the time it was drawn up."""
    figures.on_accounts(said(account(1, 5), account(2, 5)))
    figures.on_accounts(said(account(1, 9), t_ns=2))
    assert figures.next_rows().accounts == [(account(2, 5), 1), (account(1, 9), 2)]


def test_what_is_committed_waits_no_longer(figures: Figures) -> None:
    """And what was not, as after a full disk, is offered again."""
    figures.on_accounts(said(account()))
    figures.on_metrics(GraphMetrics(t_ns=1, values={}))
    assert figures.next_rows() == figures.next_rows()
    figures.forget(figures.next_rows())
    assert not figures


def test_one_transaction_takes_a_part(figures: Figures, monkeypatch: pytest.MonkeyPatch) -> None:
    """So that no record waits for a hundred thousand accounts; the rest comes with the next."""
    monkeypatch.setattr(store_figures, "ACCOUNTS_A_COMMIT", 2)
    figures.on_accounts(said(*(account(stream) for stream in range(3))))
    taken: list[int] = []
    while figures:
        rows = figures.next_rows()
        taken.append(len(rows.accounts))
        figures.forget(rows)
    assert taken == [2, 1]


def test_what_waits_is_bounded_and_the_oldest_goes(figures: Figures, monkeypatch: pytest.MonkeyPatch) -> None:
    """Counted; an outage of hours costs accounts that said nothing new, and old figures."""
    monkeypatch.setattr(store_figures, "MAX_PENDING_ACCOUNTS", 2)
    monkeypatch.setattr(store_figures, "MAX_PENDING_REPORTS", 2)
    figures.on_accounts(said(account(1), account(2), account(1), account(3)))
    for t_ns in (1, 2, 3):
        figures.on_metrics(GraphMetrics(t_ns=t_ns, values={}))
    rows = figures.next_rows()
    assert [found for found, _ in rows.accounts] == [account(1), account(3)]
    assert [row[0] for row in rows.metrics] == [2, 3]
    assert figures.lost == 2


@pytest.mark.parametrize("message", [said(account(dropped={"a": -1})), said(account(), t_ns=1 << 63)])
def test_a_bad_account_is_told_and_dropped(figures: Figures, rejections: Rejections, message: Accounts) -> None:
    """By the route of everything that cannot be read; the others of the message stay."""
    figures.on_accounts(said(account(2)))
    figures.on_accounts(message)
    assert [found for found, _ in figures.next_rows().accounts] == [account(2)]
    assert rejections.by_reason == {"invalid": 1}


def test_figures_come_with_those_of_the_writer(figures: Figures) -> None:
    """Beside what the router says of it."""
    figures.on_metrics(GraphMetrics(t_ns=5, values={"router": {"records_in": 2}, "db_writer": {"depth": 3}}))
    assert figures.next_rows().metrics == [
        (5, "router", "records_in", 2.0),
        (5, "db_writer", "depth", 3.0),
        (5, "db_writer", "pending_rows", 7.0),
    ]


def test_figures_without_end_are_cut_and_told(
    figures: Figures, rejections: Rejections, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Names too long, too many values, a time that is none: what can be kept is, and the writer's own first."""
    monkeypatch.setattr(store_figures, "MAX_VALUES", 2)
    figures.on_metrics(GraphMetrics(t_ns=5, values={"x": {"a": 1.0, "b": 2.0}}))
    figures.on_metrics(GraphMetrics(t_ns=6, values={"x" * 201: {"a": 1.0}}))
    figures.on_metrics(GraphMetrics(t_ns=-1, values={}))
    assert figures.next_rows().metrics == [
        (5, "x", "b", 2.0), (5, "db_writer", "pending_rows", 7.0), (6, "db_writer", "pending_rows", 7.0),
    ]  # fmt: skip
    assert rejections.by_reason == {"invalid": 3}


def test_commit_times_are_those_since_the_last_report() -> None:
    """Median, ninety-ninth of a hundred and rows per second; nothing is said of commits that were not."""
    times = CommitTimes(10.0)
    for number in range(100, 0, -1):
        times.note(number / 1000, 5)
    assert times.take(12.0) == {"rows_per_s": 250.0, "commit_p50_s": 0.05, "commit_p99_s": 0.099}
    assert times.take(12.0) == {"rows_per_s": 0.0}
    times.note(0.5, 1)
    assert times.take(13.0) == {"rows_per_s": 1.0, "commit_p50_s": 0.5, "commit_p99_s": 0.5}
