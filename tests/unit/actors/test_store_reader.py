"""Readers see what is committed, change nothing, and say in one line what is wrong; the schema page is true."""

# The plans of the very statements are looked at:
# pyright: reportPrivateUsage=false

import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import apsw
import pytest
from unit.actors.store_rig import SCHEMA, VECTOR, body, info, open_stream, put, put_steps

from runlane.actors import store_reader
from runlane.actors.mean_return import MEAN_EPISODES, MEAN_SQL
from runlane.actors.sql import connect
from runlane.actors.store import Store
from runlane.actors.store_figures import FigureRows
from runlane.actors.store_file import open_readonly
from runlane.actors.store_reader import LOST_NS, RunRow, list_runs, query
from runlane.config.errors import StoreError
from runlane.config.settings import DbWriterSettings
from runlane.transport.messages import SubscriberAccount
from runlane.transport.records import (
    HUMAN,
    TERMINATED,
    DropRecord,
    EpisodeRecord,
    InfoRecord,
    LogRecord,
    MetricRecord,
    RunRecord,
    RunState,
)

SCHEMA_PAGE = Path(__file__).parents[3] / "docs" / "reference" / "schema.md"
RUN = "01JD0000000000000000000000"
SEEN_NS = 1_700_000_000_000_000_000


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with closing(Store(tmp_path / "runlane.db", DbWriterSettings())) as opened:
        yield opened


def open_run(store: Store, number: int = 1, run: str = RUN, worker: str = "w", started_ns: int = 100) -> int:
    return open_stream(store, info(number, run, worker, "demo", started_ns))


def episode(seq: int, episode_return: float, t_ns: int = 0) -> EpisodeRecord:
    return EpisodeRecord(seq, t_ns, 0, seq, episode_return, 1, "terminated", 0.1)


def store_seen(store: Store, wall_ns: int, number: int = 1) -> None:
    store.begin()
    store.note_seen({f"{number:032x}": wall_ns, "f" * 32: wall_ns})
    store.commit()


@pytest.fixture
def full(store: Store) -> Store:
    """A database with at least one row in every table and view."""
    stream_no = open_run(store)
    put(store, stream_no, "run", RunRecord(1, 100, "running", {"config": {"learning_rate": 0.1}, "command": "x"}))
    put_steps(store, stream_no, range(2, 10), flags=[0, 0, 0, HUMAN, 0, 0, 0, TERMINATED], reward=1.0, episode=10)
    put(store, stream_no, "episode", episode(10, 8.0, 900))
    put(store, stream_no, "metric", MetricRecord(11, 901, "loss", 0.5, 8))
    put(store, stream_no, "log", LogRecord(12, 902, "info", "hello"))
    put(store, stream_no, "info", InfoRecord(13, 9, 0, {"lives": 0}))
    put(store, stream_no, "drop", DropRecord(14, 903, "step", "outbox_full", 5))
    put_steps(store, stream_no, range(15, 17), VECTOR, reward=2.0)
    store.begin()  # as if an earlier metric had been removed
    store._connection.execute("INSERT INTO retention_rows VALUES (1, 'metric', 'max_bytes', 1, 1, 904, 1)")
    account = SubscriberAccount("viewer", RUN, f"{1:032x}", 3, 1, 1, {"stale": 1}, 0, 3)
    store.put_figures(FigureRows([(account, 905)], [(SEEN_NS, "db_writer", "wal_bytes", 1.0)], 1), SEEN_NS)
    store.commit()
    return store


# ---- asking ----------------------------------------------------------------------------------------------


def test_a_query_returns_names_and_rows(full: Store) -> None:
    """Column names as the statement gives them, one tuple per row."""
    columns, rows = query(full.path, "SELECT run, episode AS number, sum(reward) FROM steps GROUP BY run, episode")
    assert columns == ("run", "number", "sum(reward)")
    assert rows == [(RUN, 0, 8.0), (RUN, 10, 8.0)]


def test_a_query_without_rows_still_names_its_columns(full: Store) -> None:
    """An empty answer prints as an empty table, not as nothing."""
    assert query(full.path, "SELECT run, seq FROM steps WHERE run = 'nobody'") == (("run", "seq"), [])


@pytest.mark.parametrize(
    ("sql", "part"),
    [
        ("SELEKT 1", 'near "SELEKT": syntax error'),
        ("SELECT rewards FROM steps", "no such column: rewards"),
        ("SELECT * FROM step", "no such table: step"),
        ("SELECT json_extract('{', '$')", "malformed JSON"),
        ("SELECT 1; SELECT 2", "more than one SQL statement"),
        ("  -- nothing", "ask with SELECT"),
        ("BEGIN", "ask with SELECT"),
        ("SELECT ?", "binding"),
    ],
)
def test_wrong_sql_is_explained_in_one_line(full: Store, sql: str, part: str) -> None:
    """SQLite's own words, as a `StoreError`."""
    with pytest.raises(StoreError) as caught:
        query(full.path, sql)
    assert part in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "sql",
    [
        "DELETE FROM step_rows",
        "CREATE TABLE mine (x)",
        "DROP VIEW steps",
        "PRAGMA user_version = 7",
        "INSERT INTO runs (run, state, started_ns) VALUES ('x', 'running', 1) RETURNING run",
        "VACUUM",
    ],
)
def test_a_write_is_refused_and_changes_nothing(full: Store, sql: str) -> None:
    """Only the DB writer writes; the error says so."""
    with pytest.raises(StoreError, match="read-only"):
        query(full.path, sql)
    assert query(full.path, "SELECT count(*) FROM step_rows")[1] == [(8,)]
    assert query(full.path, "PRAGMA user_version")[1] == [(4,)]


def test_no_other_file_is_written_either(full: Store) -> None:
    """`VACUUM INTO` would only read the database, but make a file: it is refused as well."""
    with pytest.raises(StoreError, match="read-only"):
        query(full.path, f"VACUUM INTO '{full.path}.copy'")
    assert not Path(f"{full.path}.copy").exists()


def test_switching_query_only_off_does_not_open_the_file_for_writing(full: Store) -> None:
    """The connection itself is read-only, whatever pragmas are set."""
    with closing(open_readonly(full.path)) as connection:
        connection.execute("PRAGMA query_only = 0")
        with pytest.raises(apsw.ReadOnlyError):
            connection.execute("DELETE FROM step_rows")


def test_no_database_says_how_to_get_one(tmp_path: Path) -> None:
    """The path that was looked at, and the command that makes one; nothing is created by looking."""
    path = tmp_path / "runlane.db"
    for ask in (lambda: query(path, "SELECT 1"), lambda: list_runs(path)):
        with pytest.raises(StoreError, match="runlane demo") as caught:
            ask()
        assert str(path) in str(caught.value)
    assert not path.exists()


def test_other_files_are_refused(tmp_path: Path) -> None:
    """An empty file, a text, another program's database: each is named, none raises anything but `StoreError`."""
    path = tmp_path / "x.db"
    path.touch()
    with pytest.raises(StoreError, match="is empty"):
        query(path, "SELECT 1")
    path.write_text("no database at all " * 50)
    with pytest.raises(StoreError, match="not a database"):
        query(path, "SELECT 1")
    path.unlink()
    with closing(connect(path)) as connection:
        connection.execute("CREATE TABLE bank (account)")
    with pytest.raises(StoreError, match="another program"):
        list_runs(path)


# ---- beside a writer -------------------------------------------------------------------------------------


def test_readers_see_commits_and_only_commits(store: Store) -> None:
    """While the writer holds the file, and even a transaction, a reader gets the last commit, without waiting."""
    stream_no = open_run(store)
    put_steps(store, stream_no, range(1, 101))
    store.begin()
    store.insert_steps(stream_no, SCHEMA, *body([101]))
    assert query(store.path, "SELECT count(*) FROM steps")[1] == [(100,)]
    assert list_runs(store.path)[0].steps == 100
    store.commit()
    assert query(store.path, "SELECT count(*) FROM steps")[1] == [(101,)]


def test_a_query_leaves_no_reader_behind(store: Store) -> None:
    """After any query, also one that failed, the writer can empty its log."""
    put_steps(store, open_run(store), range(1, 2))
    query(store.path, "SELECT * FROM steps")
    with pytest.raises(StoreError):
        query(store.path, "SELECT abs(-9223372036854775808) FROM steps")
    list_runs(store.path)
    assert store._log.truncate(0)
    assert store.statistics().wal_bytes == 0
    assert store.statistics().checkpoints_blocked == 0


def test_a_reader_moves_nothing_into_the_database(full: Store) -> None:
    """Checkpoints are the writer's alone: the log is as long after a reader left as before."""
    before = full.statistics().wal_bytes
    query(full.path, "SELECT count(*) FROM steps")
    assert full.statistics().wal_bytes == before > 0


def test_a_closed_database_reads_and_opens_again(full: Store) -> None:
    """With the writer gone and its log moved, a reader still finds everything, and so does the next writer."""
    full.close()
    assert query(full.path, "SELECT count(*) FROM episodes")[1] == [(1,)]
    with closing(Store(full.path, DbWriterSettings())) as again:
        put(again, 1, "episode", episode(50, 1.0))
        assert query(full.path, "SELECT count(*) FROM episodes")[1] == [(2,)]


def test_any_sqlite_can_read_the_views(full: Store) -> None:
    """Python's own, older SQLite, in another process: the schema needs nothing that only apsw has."""
    code = (
        "import sqlite3, sys; c = sqlite3.connect(f'file:{sys.argv[1]}?mode=ro', uri=True);"
        "print([c.execute(f'SELECT count(*) FROM {v}').fetchone()[0] for v in sys.argv[2:]])"
    )
    views = ["steps", "step_records", "episodes", "metrics", "logs", "infos", "drops", "run_states"]
    views += ["accounts", "account_drops", "graph_metrics"]
    asked = subprocess.run(
        [sys.executable, "-c", code, str(full.path), *views], check=True, capture_output=True, env=dict(os.environ)
    )
    assert asked.stdout.decode().strip() == "[12, 12, 1, 1, 1, 1, 1, 1, 1, 1, 1]"


# ---- the list of runs ------------------------------------------------------------------------------------


def test_a_run_is_listed_with_its_figures(full: Store) -> None:
    """Name, state, times, workers, steps, episodes, mean return and drops of the one run there is."""
    store_seen(full, SEEN_NS)
    assert list_runs(full.path, SEEN_NS + LOST_NS) == [
        RunRow(
            run=RUN,
            name="demo",
            state="running",
            started_ns=100,
            ended_ns=None,
            seen_ns=SEEN_NS,
            workers=1,
            steps=12,
            episodes=1,
            mean_return=8.0,
            drops=5,
        )
    ]


@pytest.mark.parametrize("said", ["running", "stalled"])
def test_a_run_nobody_is_heard_of_is_lost(store: Store, said: RunState) -> None:
    """Four seconds after the last word of anybody who could write it, and not while one of its streams speaks."""
    first, second = open_run(store, 1), open_run(store, 2, worker="v")
    for stream_no in (first, second):
        put(store, stream_no, "run", RunRecord(1, 0, "running", {}))
    put(store, open_run(store, 3, worker="proxy-w"), "run", RunRecord(1, 1, said, {}))
    store_seen(store, SEEN_NS, 1)
    store_seen(store, SEEN_NS + 10, 2)

    def state(now_ns: int) -> str:
        return list_runs(store.path, now_ns)[0].state

    assert state(SEEN_NS + 10 + LOST_NS) == said
    assert state(SEEN_NS + 11 + LOST_NS) == "lost"
    put(store, second, "run", RunRecord(2, 2, "finished", {}))
    assert state(SEEN_NS + LOST_NS) == said
    assert state(SEEN_NS + 1 + LOST_NS) == "lost"
    put(store, first, "run", RunRecord(2, 3, "failed", {}))
    assert state(SEEN_NS + 2 * LOST_NS) == "failed"


def test_sql_users_see_lost_runs_too(store: Store) -> None:
    """The view `run_status` derives the state from the clock of now."""
    open_run(store, 1, "A")
    open_run(store, 2, "B")
    open_run(store, 3, "C")
    store_seen(store, time.time_ns(), 1)
    store_seen(store, time.time_ns() - LOST_NS - 1_000_000_000, 2)
    assert query(store.path, "SELECT run, state FROM run_status ORDER BY run")[1] == [
        ("A", "running"),
        ("B", "lost"),
        ("C", "lost"),
    ]


def test_a_delivered_batch_is_a_word_too(store: Store) -> None:
    """The time a batch came is kept with its watermark; a commit without one leaves it."""
    stream_no = open_run(store)
    store.begin()
    store.advance(stream_no, 1, SEEN_NS)
    store.commit()
    put_steps(store, stream_no, [2])
    assert query(store.path, "SELECT seen_ns, last_seq FROM streams")[1] == [(SEEN_NS, 2)]


def test_runs_are_listed_newest_first_and_apart(store: Store) -> None:
    """Streams of a run are added up, proxies are no workers, a run without episodes has no mean."""
    put_steps(store, open_run(store, 1, "A", "w", 10), range(1, 4))
    put_steps(store, open_run(store, 2, "A", "v", 20), range(1, 6))
    put_steps(store, open_run(store, 3, "A", "v", 30), range(1, 2))
    open_run(store, 4, "A", "proxy-w", 40)
    gap = open_run(store, 5, "B", "w", 50)
    store.begin()
    store.note_gap(gap, 1, 7, 0)
    store.commit()
    found = [(row.run, row.workers, row.steps, row.mean_return, row.drops) for row in list_runs(store.path)]
    assert found == [("B", 1, 0, None, 7), ("A", 2, 9, None, 0)]


def test_the_mean_return_is_over_the_newest_episodes_of_all_workers(store: Store) -> None:
    """The last hundred by time, whichever stream they are in; a NaN return is not among the summands."""
    old, new = open_run(store, 1), open_run(store, 2, worker="v")
    put(store, old, "episode", *(episode(seq, 1000.0, t_ns=seq) for seq in range(1, 200)))
    newest = [episode(seq, 3.0, t_ns=1000 + seq) for seq in range(1, MEAN_EPISODES)]
    put(store, new, "episode", *newest, episode(200, float("nan"), t_ns=5000))
    assert list_runs(store.path)[0].mean_return == 3.0


def test_listing_runs_reads_no_step(full: Store) -> None:
    """Its statements touch counters and episodes only, so it is as quick after ten million steps."""
    seen: list[str] = []
    with closing(open_readonly(full.path)) as connection:
        for sql, values in ((store_reader._RUNS, 2), (MEAN_SQL, 2)):
            seen += [row[3] for row in connection.execute(f"EXPLAIN QUERY PLAN {sql}", (0,) * values)]
    assert seen
    assert not [step for step in seen if "step_rows" in step or step.startswith("SCAN episode_rows")]


# ---- the page --------------------------------------------------------------------------------------------


def documented() -> dict[str, list[str]]:
    """Columns by table or view, as the page lists them."""
    found: dict[str, list[str]] = {}
    for section in SCHEMA_PAGE.read_text("utf-8").split("\n### ")[1:]:
        name = re.match("`(.+?)`", section)
        assert name
        columns = section.split("\n## ")[0].split("\n#### ")[0]  # behind it comes what one of them holds
        found[name[1]] = re.findall(r"^\| `(.+?)` \|", columns, re.MULTILINE)
    return found


def test_the_page_lists_every_table_view_and_column(full: Store) -> None:
    """In the order of the schema, none missing, none left over."""
    with closing(open_readonly(full.path)) as connection:
        names = "SELECT name FROM sqlite_schema WHERE type IN ('table', 'view') AND name NOT LIKE 'sqlite_%'"
        real = {
            name: [row[1] for row in connection.execute(f"PRAGMA table_info({name})")]
            for (name,) in connection.execute(names).fetchall()
        }
    assert documented() == real


EXAMPLES = re.findall("```sql\n(.+?)\n```", SCHEMA_PAGE.read_text("utf-8"), re.DOTALL)


@pytest.mark.parametrize("sql", EXAMPLES)
def test_every_example_of_the_page_runs_and_finds_something(full: Store, sql: str) -> None:
    """On a database with a row of everything."""
    columns, rows = query(full.path, sql)
    assert columns
    assert rows
