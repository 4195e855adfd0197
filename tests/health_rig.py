"""A graph's status as a router, a DB writer, a window and a worker make it, and a store with nothing in it."""

import os
from collections.abc import Sequence
from typing import Any

from runlane.gui.store_source import SqlValue
from runlane.transport.messages import ChildStatus, Status

SUBSCRIBER: dict[str, Any] = {
    "overflow": "block", "max_queue": 1_000, "depth": 0, "in_flight": 5, "peak": 9, "published": 105, "delivered": 100,
    "dropped": {}, "window": 64, "credits": 63, "is_live": True, "latency_p50_ms": 4.0, "latency_p99_ms": 8.0,
    "state": "live",
}  # fmt: skip


def child(name: str, kind: str, statistics: dict[str, Any], **facts: Any) -> ChildStatus:
    known: dict[str, Any] = {"state": "running", "pid": 7, "restarts": 0, "heartbeat_age_s": 0.1, "exit_code": None}
    return ChildStatus(name=name, kind=kind, statistics=statistics, **{**known, **facts})


def status_of(*, worker: str = "ppo", depth: int = 0, **gui: Any) -> Status:
    """A graph with a router, a DB writer, this window on the bus, and one worker."""
    durable = {**SUBSCRIBER, "depth": depth, "published": 105 + depth}
    window = {**SUBSCRIBER, "overflow": "drop_oldest", **gui}
    router = {"subscribers": {"db_writer": durable, "gui": window}, "records_per_s": 500.0, "is_blocked": False}
    proxy = {"worker": worker, "run": "run", "records_in": 50, "unacked_records": 3, "unacked_bytes": 99}
    return Status(
        pid=os.getpid(),
        uptime_s=1.0,
        data_dir="/d",
        run_dir="/r",
        state="running",
        children=[
            child("router", "router", router, pid=10),
            child("db_writer", "subscriber", {"rows_committed": 100, "commit_s": 0.002, "pending_rows": 4}, pid=11),
            child(f"proxy-{worker}", "proxy", proxy, pid=12, restarts=1),
        ],
    )


class FakeStore:
    """A `StoreSource` of a database without a run."""

    def runs(self) -> list[dict[str, Any]]:
        """None."""
        return []

    def curve(self, run: str, points: int) -> dict[str, Any]:  # noqa: ARG002  the protocol's
        """Nothing."""
        return {}

    def query(self, sql: str, bindings: Sequence[SqlValue] = ()) -> tuple[tuple[str, ...], list[tuple[Any, ...]]]:  # noqa: ARG002
        """One row of one 0 where a sum is asked for, else none."""
        return (("n",), [(0,)]) if "sum(" in sql else (("n",), [])

    def size(self) -> tuple[int, int]:
        """Nothing."""
        return 0, 0
