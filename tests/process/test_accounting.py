"""Whoever subscribes, stops, dies or comes back: nobody else is hurt, and every record is accounted for."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec
import psutil
import pytest
from process.graph_under_test import GraphUnderTest, wait_until
from process.test_graph import assert_exact, report_of, worker_table

from runlane.config.settings import QueuePolicy
from runlane.transport.messages import SubscriberAccount

pytestmark = pytest.mark.timeout(180)

SCRIPT = Path(__file__).with_name("counting_subscriber.py")
POLICIES = {
    "drop_oldest": QueuePolicy("drop_oldest", 1_024),
    "drop_newest": QueuePolicy("drop_newest", 1_024),
    "latest": QueuePolicy("latest"),
    "block": QueuePolicy("block"),
    "stale": QueuePolicy("drop_oldest", 16_384, max_age_ms=50),
}


class Counting:
    """A process of counting subscribers."""

    def __init__(
        self, graph: GraphUnderTest, name: str, policy: QueuePolicy, *, count: int = 1, pause_ms: float = 0
    ) -> None:
        self.name = name
        self.report = graph.directory / f"{name}.json"
        self.report.unlink(missing_ok=True)
        command = [sys.executable, str(SCRIPT), str(graph.config), str(self.report)]
        command += [msgspec.json.encode(policy).decode(), str(count), name, str(pause_ms)]
        self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL)

    def facts(self) -> dict[str, Any]:
        """Its own counts, by subscriber; empty before it has any."""
        return json.loads(self.report.read_text()) if self.report.exists() else {}

    def until_joined(self) -> None:
        """Wait until the router has welcomed all of them."""
        wait_until(
            lambda: self.facts() and all(one["is_joined"] for one in self.facts().values()), f"{self.name} joins"
        )

    def received(self) -> int:
        """Records given to it, all streams together."""
        return sum(self.facts()[self.name]["records"].values())

    def end(self, signum: int = signal.SIGTERM) -> None:
        """End it and wait."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGCONT)
            self.process.send_signal(signum)
        self.process.wait(20)


@contextmanager
def counting(graph: GraphUnderTest, *args: Any, **options: Any) -> Generator[Counting]:
    """Counting subscribers that have joined, and end with the test."""
    found = Counting(graph, *args, **options)
    try:
        found.until_joined()
        yield found
    finally:
        found.end(signal.SIGKILL)


def accounts_of(graph: GraphUnderTest) -> dict[str, list[SubscriberAccount]]:
    """What the router says now, by subscriber."""
    found: dict[str, list[SubscriberAccount]] = {}
    answer: list[list[SubscriberAccount] | None] = [None]

    def ask() -> bool:
        answer[0] = graph.client.accounts(5.0)
        return answer[0] is not None

    wait_until(ask, "the router answers")
    for account in answer[0] or ():
        found.setdefault(account.subscriber, []).append(account)
    return found


def balance(account: SubscriberAccount) -> int:
    """0 where every record is accounted for."""
    return account.published - account.delivered - account.queued - sum(account.dropped.values())


def assert_balanced(graph: GraphUnderTest) -> dict[str, list[SubscriberAccount]]:
    """The equation holds for every subscriber and stream, now."""
    found = accounts_of(graph)
    assert [account for accounts in found.values() for account in accounts if balance(account)] == []
    return found


def assert_stored(graph: GraphUnderTest, report: dict[str, Any]) -> None:
    """Whatever happened to others: every record of the worker is in the database, once."""
    wait_until(
        lambda: graph.sql("SELECT last_seq FROM streams WHERE worker = 'counter'") == [(worker_records(report),)],
        "all is stored",
        60,
    )
    assert_exact(graph, {**report, "is_committed": True})  # its own patience may have ended first


def settled(graph: GraphUnderTest, name: str, report: dict[str, Any]) -> SubscriberAccount:
    """A subscriber's account of the worker's stream, once all of it was published and nothing is queued."""

    def account() -> SubscriberAccount | None:
        found = of_worker(graph, assert_balanced(graph)[name])
        return found if found.last_seq == worker_records(report) and not found.queued else None

    found = wait_until(account, f"{name} has caught up", 60)
    assert isinstance(found, SubscriberAccount)
    return found


def worker_records(report: dict[str, Any]) -> int:
    """What the worker's own stream has, by its own count."""
    return int(report["records"])


def assert_is_whole(account: SubscriberAccount, report: dict[str, Any]) -> None:
    """It asked for every kind: each seq since it joined, up to the last one the worker made, counts once."""
    assert account.last_seq == worker_records(report)
    assert account.published == account.last_seq - account.first_seq > 0


def of_worker(graph: GraphUnderTest, accounts: list[SubscriberAccount]) -> SubscriberAccount:
    """The account of the worker's stream; its proxy may have one of its own."""
    [(stream,)] = graph.sql("SELECT stream FROM streams WHERE worker = 'counter'")
    return next(account for account in accounts if account.stream == stream)


def test_stopped_subscribers_hurt_nobody_and_all_is_accounted_for(short_dir: Path) -> None:
    """Two lossy ones asleep at full load: the store is complete, the router does not grow, the sums are exact."""
    with (
        GraphUnderTest(short_dir, worker_table(short_dir, 400_000, 80_000)) as graph,
        counting(graph, "oldest", QueuePolicy("drop_oldest")) as oldest,
        counting(graph, "latest", POLICIES["latest"]) as latest,
    ):
        router = psutil.Process(graph.child("router").pid)
        wait_until(lambda: _stored(graph) > 20_000, "the run is under way")
        before_bytes = router.memory_info().rss
        for sleeper in (oldest, latest):
            os.kill(sleeper.process.pid, signal.SIGSTOP)
        wait_until(lambda: _stored(graph) > 300_000, "the run goes on without them", 60)
        assert router.memory_info().rss - before_bytes < 10 << 20
        assert_balanced(graph)
        wait_until(lambda: _state(graph, "oldest") == "stalled", "the router says who sleeps")
        for sleeper in (oldest, latest):
            os.kill(sleeper.process.pid, signal.SIGCONT)
        report = report_of(short_dir)
        for sleeper in (oldest, latest):
            account = settled(graph, sleeper.name, report)
            assert_is_whole(account, report)
            assert account.delivered < account.published
            wait_until(lambda s=sleeper, a=account: s.received() >= a.delivered, "it has told what it got")
            facts = sleeper.facts()[sleeper.name]
            assert facts["records"][account.stream] == account.delivered
            assert (facts["newest"], facts["backwards"]) == (worker_records(report), 0)
            # Rare and vital: a firehose of steps takes none of them away.
            share = account.published / account.last_seq  # it may have joined a little late
            assert sleeper is latest or facts["kinds"]["episode"] >= report["episodes"] * share - 1
        assert set(settled(graph, "oldest", report).dropped) == {"drop_oldest"}
        assert_stored(graph, report)


def test_a_killed_router_leaves_accounts_that_add_up(short_dir: Path) -> None:
    """Twice in mid-run: what its lossy queues held is counted, and each subscriber's own count is what it says."""
    with (
        GraphUnderTest(short_dir, worker_table(short_dir, 120_000, 20_000)) as graph,
        counting(graph, "slow", POLICIES["drop_oldest"], pause_ms=20) as slow,
        counting(graph, "quick", POLICIES["stale"]) as quick,
        counting(graph, "archive", POLICIES["block"]) as archive,
    ):
        for rows in (20_000, 60_000):
            wait_until(lambda least=rows: _stored(graph) >= least, f"{rows} rows are stored", 60)
            graph.kill("router")
            assert_balanced(graph)
        report = report_of(short_dir)
        for subscriber in (slow, quick, archive):
            account = settled(graph, subscriber.name, report)
            assert_is_whole(account, report)
            wait_until(lambda s=subscriber, a=account: s.received() >= a.delivered, "it has told what it got")
            facts = subscriber.facts()[subscriber.name]
            if subscriber is archive:  # it may be sent again what it had not acked, and it is told nothing is lost
                assert account.dropped == {}
                assert facts["records"][account.stream] >= account.published
            else:
                assert facts["records"][account.stream] == account.delivered
                assert facts["backwards"] == 0
        assert "router_restart" in settled(graph, "slow", report).dropped
        assert_stored(graph, report)


def test_a_killed_subscriber_comes_back_under_its_name(short_dir: Path) -> None:
    """What was under way to the dead one is dropped for that reason; the successor goes on with the account."""
    with GraphUnderTest(short_dir, worker_table(short_dir, 60_000, 15_000)) as graph:
        with counting(graph, "fragile", POLICIES["drop_oldest"], pause_ms=30) as first:
            wait_until(lambda: first.received() > 1_000, "it works")
            first.end(signal.SIGKILL)
        with counting(graph, "fragile", POLICIES["drop_oldest"]) as second:
            report = report_of(short_dir)
            account = settled(graph, "fragile", report)
            assert account.last_seq == worker_records(report)
            assert account.dropped[
                "subscriber_restart" if "subscriber_restart" in account.dropped else "subscriber_left"
            ]
            assert second.received() > 0
        assert_stored(graph, report)


def test_subscribers_of_every_policy_come_and_go_at_random(short_dir: Path) -> None:
    """Joining, leaving, dying, sleeping, in an order drawn once: the equation holds at every look."""
    dice = random.Random(4)  # noqa: S311  dice, no secret
    with GraphUnderTest(short_dir, worker_table(short_dir, 100_000, 10_000)) as graph:
        there: dict[str, Counting] = {}
        try:
            ends_s = time.monotonic() + 9
            for turn in range(1_000):
                if time.monotonic() > ends_s:
                    break
                _one_turn(graph, dice, there, turn)
                assert_balanced(graph)
        finally:
            for subscriber in there.values():
                subscriber.end(signal.SIGKILL)
        report = report_of(short_dir)
        assert_balanced(graph)
        assert_stored(graph, report)


def _one_turn(graph: GraphUnderTest, dice: random.Random, there: dict[str, Counting], turn: int) -> None:
    if len(there) < 3 or (len(there) < 10 and dice.random() < 0.5):
        policy = dice.choice(sorted(POLICIES))
        name = f"{policy}-{turn}"
        there[name] = Counting(graph, name, POLICIES[policy], pause_ms=dice.choice([0, 0, 20]))
        there[name].until_joined()
        return
    name = dice.choice(sorted(there))
    how = dice.choice(["leave", "kill", "sleep"])
    if how == "sleep" and not name.startswith("block"):  # that would be asking the whole graph to wait
        os.kill(there[name].process.pid, signal.SIGSTOP)
        assert_balanced(graph)
        os.kill(there[name].process.pid, signal.SIGCONT)
        return
    there.pop(name).end(signal.SIGTERM if how == "leave" else signal.SIGKILL)


def test_a_hundred_subscribers_at_once(short_dir: Path) -> None:
    """Each gets all of it, the store too, and nothing breaks."""
    with (
        GraphUnderTest(short_dir, worker_table(short_dir, 12_000, 2_000)) as graph,
        counting(graph, "a", QueuePolicy("drop_oldest", 16_384), count=50) as some,
        counting(graph, "b", QueuePolicy("drop_oldest", 16_384), count=50) as others,
    ):
        report = report_of(short_dir)
        found = accounts_of(graph)
        names = [f"{group}{number}" for group in "ab" for number in range(50)]
        for name in names:
            account = settled(graph, name, report)
            assert_is_whole(account, report)
            assert account.dropped == {}
        assert len(found) == 101
        for group in (some, others):
            wait_until(lambda g=group: _all_have(g, worker_records(report)), "everybody has counted")
        assert_stored(graph, report)


def _all_have(group: Counting, records: int) -> bool:
    return all(one["newest"] >= records for one in group.facts().values())


def _stored(graph: GraphUnderTest) -> int:
    [(rows,)] = graph.sql("SELECT coalesce(sum(steps), 0) FROM streams")
    return int(rows)


def _state(graph: GraphUnderTest, name: str) -> str:
    return str(graph.child("router").statistics["subscribers"][name]["state"])
