"""Accounts and figures in a real database: whole, idempotent, readable in SQL, and bounded."""

# The store's connection is asked to fail, and its table's limit made small:
# pyright: reportPrivateUsage=false

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from unit.actors.retention_rig import add_run, retention, work
from unit.actors.store_rig import ask, info, open_stream, put

from runlane.actors.account_rows import MAX_COUNT, MAX_REASONS, check_account
from runlane.actors.sql import SqlRow, connect
from runlane.actors.store import Store
from runlane.actors.store_figures import FigureRows
from runlane.actors.store_metrics import MAX_AGE_NS, MIN_BITE_ROWS, StoreMetrics
from runlane.config.errors import StoreError, WireError
from runlane.config.settings import DbWriterSettings
from runlane.transport.messages import SubscriberAccount
from runlane.transport.records import LogRecord

NOW_NS = 1_700_000_000_000_000_000
STREAM = f"{1:032x}"


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with closing(Store(tmp_path / "runlane.db", DbWriterSettings())) as opened:
        yield opened


def account(published: int = 10, delivered: int = 6, queued: int = 1, **more: Any) -> SubscriberAccount:
    """What is neither delivered nor queued was dropped, unless told otherwise."""
    fields: dict[str, Any] = {
        "subscriber": "viewer", "run": "R", "stream": STREAM, "published": published, "delivered": delivered,
        "queued": queued, "dropped": {"drop_oldest": published - delivered - queued}, "first_seq": 0,
        "last_seq": published, **more,
    }  # fmt: skip
    return SubscriberAccount(**fields)


def put_accounts(store: Store, *accounts: SubscriberAccount, t_ns: int = NOW_NS) -> None:
    store.begin()
    store.put_figures(FigureRows([(found, t_ns) for found in accounts], [], 0), t_ns)
    store.commit()


def put_metrics(store: Store, t_ns: int, *names: str, now_ns: int | None = None) -> None:
    store.begin()
    rows = FigureRows([], [(t_ns, "router", name, 1.0) for name in names], 1)
    store.put_figures(rows, t_ns if now_ns is None else now_ns)
    store.commit()


# ---- accounts --------------------------------------------------------------------------------------------


def test_an_account_reads_with_its_run_and_worker(store: Store) -> None:
    """One row per subscriber and stream, and a balance of 0 where it adds up."""
    open_stream(store, info(1, "R", "w", "demo"))
    put_accounts(store, account(10, 6, 1, dropped={"drop_oldest": 1, "stale": 2}, first_seq=4, last_seq=14))
    assert ask(store, "SELECT * FROM accounts") == [
        ("R", "demo", "w", 1, STREAM, "viewer", 10, 6, 3, 1, 0, 4, 14, NOW_NS, "2023-11-14 22:13:20.000")
    ]
    assert ask(store, "SELECT worker, subscriber, reason, records FROM account_drops ORDER BY reason") == [
        ("w", "viewer", "drop_oldest", 1),
        ("w", "viewer", "stale", 2),
    ]


def test_an_account_may_come_before_its_stream(store: Store) -> None:
    """It is kept, without a worker's name; when the stream comes, the same row has one."""
    put_accounts(store, account())
    assert ask(store, "SELECT run, name, worker, published FROM accounts") == [("R", None, None, 10)]
    open_stream(store, info(1, "R", "w", "demo"))
    assert ask(store, "SELECT run, name, worker, published FROM accounts") == [("R", "demo", "w", 10)]


def test_the_newest_account_replaces_the_one_before(store: Store) -> None:
    """All of it: also reasons that are no longer there, and figures that became smaller. Twice is once."""
    put_accounts(store, account(10, 6, 1, dropped={"drop_oldest": 1, "stale": 2}), account(subscriber="other"))
    for _ in range(2):
        put_accounts(store, account(9, 8, 0, dropped={"stale": 1}), t_ns=NOW_NS + 1)
        assert ask(store, "SELECT subscriber, published, delivered, dropped, balance, updated_ns FROM accounts") == [
            ("other", 10, 6, 3, 0, NOW_NS),
            ("viewer", 9, 8, 1, 0, NOW_NS + 1),
        ]
        assert ask(store, "SELECT reason, records FROM account_drops WHERE subscriber = 'viewer'") == [("stale", 1)]


def test_an_account_that_does_not_add_up_is_kept_and_shows(store: Store) -> None:
    """A fault of the router must be seen in SQL, so nothing refuses it."""
    put_accounts(store, account(10, 6, 1, dropped={}))
    assert ask(store, "SELECT subscriber, balance FROM accounts WHERE balance <> 0") == [("viewer", 3)]


def test_the_greatest_counts_are_stored_and_summed(store: Store) -> None:
    """Up to what SQLite can add up."""
    greatest = account(MAX_COUNT, 0, 0, dropped={"a": MAX_COUNT - 1, "b": 1})
    check_account(greatest)
    put_accounts(store, greatest)
    assert ask(store, "SELECT dropped, balance FROM accounts") == [(MAX_COUNT, 0)]


@pytest.mark.parametrize(
    "bad",
    [
        account(published=-1, dropped={}),
        account(last_seq=1 << 63),
        account(dropped={"a": MAX_COUNT, "b": 1}),
        account(dropped={str(number): 0 for number in range(MAX_REASONS + 1)}),
        account(dropped={"x" * 201: 1}),
    ],
)
def test_an_account_that_would_break_a_query_is_refused(bad: SubscriberAccount) -> None:
    """A count out of range, a sum out of range, or reasons without end."""
    with pytest.raises(WireError, match="account of viewer"):
        check_account(bad)


def test_accounts_go_with_the_transaction_they_came_in(store: Store) -> None:
    """A rollback takes them back with the records."""
    store.begin()
    store.put_figures(FigureRows([(account(), NOW_NS)], [(NOW_NS, "router", "x", 1.0)], 1), NOW_NS)
    store.rollback()
    assert ask(store, "SELECT (SELECT count(*) FROM accounts) + (SELECT count(*) FROM graph_metrics)") == [(0,)]


def test_figures_that_cannot_be_stored_leave_the_records_alone(store: Store) -> None:
    """All of them are taken back, none of the transaction's records, and it goes on."""
    stream_no = open_stream(store)
    short: list[SqlRow] = [(NOW_NS, "router", "x", 1.0), (NOW_NS,)]
    store.begin()
    store.insert_records(stream_no, "log", [LogRecord(1, 0, "info", "x")])
    with pytest.raises(OverflowError):
        store.put_figures(FigureRows([(account(), NOW_NS), (account(1 << 64), NOW_NS)], [], 0), NOW_NS)
    with pytest.raises(StoreError):
        store.put_figures(FigureRows([(account(), NOW_NS)], short, 1), NOW_NS)
    store.commit()
    put(store, stream_no, "log", LogRecord(2, 0, "info", "y"))
    assert ask(store, "SELECT seq FROM logs") == [(1,), (2,)]
    assert ask(store, "SELECT count(*) FROM accounts") == [(0,)]


def test_accounts_outlive_their_run(store: Store) -> None:
    """As its drops do: retention takes records, and what became of them stays on record."""
    add_run(store, 1, ended_ns=NOW_NS)
    put_accounts(store, account(run="R1"))
    assert work(retention(store, max_runs=0)) > 0
    assert ask(store, "SELECT (SELECT count(*) FROM episodes), (SELECT count(*) FROM removed_runs)") == [(0, 1)]
    assert ask(store, "SELECT run, dropped FROM accounts") == [("R1", 3)]


def test_a_database_made_before_there_were_accounts_gets_them(store: Store) -> None:
    """At its next opening, with all it holds."""
    stream_no = open_stream(store)
    put(store, stream_no, "log", LogRecord(1, 0, "info", "x"))
    store.close()
    with closing(connect(store.path)) as connection:
        connection.execute(
            "DROP VIEW accounts; DROP VIEW account_drops; DROP VIEW graph_metrics;"
            "DROP TABLE account_rows; DROP TABLE account_drop_rows; DROP TABLE graph_metric_rows"
        )
    with closing(Store(store.path, DbWriterSettings())) as again:
        put_accounts(again, account())
        assert ask(again, "SELECT (SELECT count(*) FROM accounts), (SELECT count(*) FROM logs)") == [(1, 1)]


# ---- figures over time -----------------------------------------------------------------------------------


def test_a_figure_reads_with_its_time(store: Store) -> None:
    """A NaN is NULL, as everywhere; the same figure twice is stored once."""
    rows = FigureRows([], [(NOW_NS, "router", "a", 1.5), (NOW_NS, "router", "b", float("nan"))], 1)
    for _ in range(2):
        store.begin()
        store.put_figures(rows, NOW_NS)
        store.commit()
    assert ask(store, "SELECT source, name, value, time FROM graph_metrics ORDER BY name") == [
        ("router", "a", 1.5, "2023-11-14 22:13:20.000"),
        ("router", "b", None, "2023-11-14 22:13:20.000"),
    ]


def test_figures_beyond_the_limit_go_oldest_first_and_in_bites(store: Store) -> None:
    """After the store was opened anew too, when it has to count what is there."""
    most = 100
    put_metrics(store, NOW_NS, *map(str, range(1_000)))
    store._metrics = StoreMetrics(store._connection, most)
    left: list[int] = []
    while not left or left[-1] > most:
        put_metrics(store, NOW_NS + 1 + len(left), "new")
        left += ask(store, "SELECT count(*) FROM graph_metrics")[0]
    assert left == [1_000 - MIN_BITE_ROWS + 1, 1_000 - 2 * MIN_BITE_ROWS + 2, 1_000 - 3 * MIN_BITE_ROWS + 3, most]
    assert ask(store, "SELECT count(*) FROM graph_metrics WHERE name = 'new'") == [(4,)]


def test_old_figures_go_in_bites(store: Store) -> None:
    """What is older than the limit goes, what is as old as it stays."""
    put_metrics(store, NOW_NS - 1, *map(str, range(300)))
    put_metrics(store, NOW_NS, "kept")
    for left in (300 + 2 - MIN_BITE_ROWS, 3):
        put_metrics(store, NOW_NS + 1, f"new {left}", now_ns=NOW_NS + MAX_AGE_NS)
        assert ask(store, "SELECT count(*) FROM graph_metrics") == [(left,)]
    assert ask(store, "SELECT count(*) FROM graph_metrics WHERE name = 'kept'") == [(1,)]


def test_a_rollback_does_not_disturb_the_count(store: Store) -> None:
    """What was counted of a transaction that never was would let the table grow, or empty it."""
    store._metrics = StoreMetrics(store._connection, 3)
    put_metrics(store, NOW_NS, "a", "b", "c")
    store.begin()
    store.put_figures(FigureRows([], [(NOW_NS + 1, "router", "lost", 1.0)], 1), NOW_NS)
    store.rollback()
    put_metrics(store, NOW_NS + 2, "d")
    assert ask(store, "SELECT name FROM graph_metrics ORDER BY t_ns, name") == [("b",), ("c",), ("d",)]
