"""What the router says of the graph, and the DB writer of itself, between its arrival and its commit. Bounded.

Loss is normal here and harmless: of accounts only the newest counts, and a figure over time has a next one. What is
bounded is the wait, as on a full disk, and the part of one transaction, so that no record waits for it.
"""

from collections import deque
from collections.abc import Callable, Mapping
from itertools import islice
from typing import NamedTuple

from runlane.actors.account_rows import MAX_COUNT, check_account
from runlane.actors.sql import SqlRow
from runlane.config.errors import WireError
from runlane.config.names import DB_WRITER
from runlane.transport.messages import Accounts, GraphMetrics, SubscriberAccount
from runlane.transport.sockets import Rejections

MAX_PENDING_ACCOUNTS = 65_536
MAX_PENDING_REPORTS = 64
ACCOUNTS_A_COMMIT = 2_000
REPORTS_A_COMMIT = 4
MAX_VALUES = 2_000  # of one report
MAX_NAME_LENGTH = 200
MAX_COMMITS = 1_024  # remembered between two reports; of more, the newest

_Key = tuple[str, str]


class FigureRows(NamedTuple):
    """One transaction's part: accounts with their time, and rows of time, source, name and value."""

    accounts: list[tuple[SubscriberAccount, int]]
    metrics: list[SqlRow]
    reports: int


class Figures:
    """Accounts and figures that wait for a commit. One thread owns it."""

    def __init__(self, rejections: Rejections, own_values: Callable[[], Mapping[str, float]]) -> None:
        """`own_values` is asked for the DB writer's figures whenever the router's come."""
        self.lost = 0
        self._rejections = rejections
        self._own_values = own_values
        self._accounts: dict[_Key, tuple[SubscriberAccount, int]] = {}
        self._reports: deque[list[SqlRow]] = deque()

    def __bool__(self) -> bool:
        """Whether something waits."""
        return bool(self._accounts or self._reports)

    # ---- what comes --------------------------------------------------------------------------------------

    def on_accounts(self, message: Accounts) -> None:
        """Keep the newest account of each subscriber and stream; one that cannot be stored is told and dropped."""
        for account in message.accounts:
            try:
                check_account(account)
                _check_time(message.t_ns)
            except WireError as error:
                self._rejections.reject(error, DB_WRITER)
                continue
            key = account.subscriber, account.stream
            self._accounts.pop(key, None)  # to the end: the one that waited longest is stored, or lost, first
            self._accounts[key] = account, message.t_ns
            if len(self._accounts) > MAX_PENDING_ACCOUNTS:
                del self._accounts[next(iter(self._accounts))]
                self.lost += 1

    def on_metrics(self, message: GraphMetrics) -> None:
        """Keep figures of one moment, with those of the DB writer itself."""
        try:
            _check_time(message.t_ns)
        except WireError as error:
            self._rejections.reject(error, DB_WRITER)
            return
        values = {source: dict(found) for source, found in message.values.items()}
        values[DB_WRITER] = {**values.get(DB_WRITER, {}), **self._own_values()}
        rows: list[SqlRow] = [
            (message.t_ns, source, name, float(value))
            for source, found in values.items()
            for name, value in found.items()
            if max(len(source), len(name)) <= MAX_NAME_LENGTH
        ]
        if len(rows) > MAX_VALUES or len(rows) < sum(map(len, values.values())):
            self._rejections.reject(WireError("invalid", "graph metrics: too many, or names too long"), DB_WRITER)
        self._reports.append(rows[-MAX_VALUES:])  # ours come last
        if len(self._reports) > MAX_PENDING_REPORTS:
            self._reports.popleft()
            self.lost += 1

    # ---- what is committed -------------------------------------------------------------------------------

    def next_rows(self) -> FigureRows:
        """What the next transaction shall store. Call `forget` when it has, and only then."""
        reports = list(islice(self._reports, REPORTS_A_COMMIT))
        accounts = list(islice(self._accounts.values(), ACCOUNTS_A_COMMIT))
        return FigureRows(accounts, [row for rows in reports for row in rows], len(reports))

    def forget(self, rows: FigureRows) -> None:
        """These are committed, or cannot be."""
        for account, _ in rows.accounts:
            del self._accounts[account.subscriber, account.stream]
        for _ in range(rows.reports):
            self._reports.popleft()


class CommitTimes:
    """Commits between two reports: how long they took, and how many rows they brought. Time is an argument."""

    def __init__(self, now_s: float) -> None:
        self._seconds: deque[float] = deque(maxlen=MAX_COMMITS)
        self._rows = 0
        self._since_s = now_s

    def note(self, seconds: float, rows: int) -> None:
        """A commit with records succeeded."""
        self._seconds.append(seconds)
        self._rows += rows

    def take(self, now_s: float) -> dict[str, float]:
        """Figures since the last call. Without a commit there is no time of one."""
        seconds, rows, elapsed_s = sorted(self._seconds), self._rows, now_s - self._since_s
        self._seconds.clear()
        self._rows, self._since_s = 0, now_s
        values = {"rows_per_s": rows / elapsed_s if elapsed_s > 0 else 0.0}
        if seconds:
            values |= {"commit_p50_s": _percentile(seconds, 50), "commit_p99_s": _percentile(seconds, 99)}
        return values


def _check_time(t_ns: int) -> None:
    if not 0 <= t_ns <= MAX_COUNT:
        raise WireError("invalid", f"t_ns {t_ns}")


def _percentile(rising: list[float], percent: int) -> float:
    """The nearest rank."""
    return rising[-(-len(rising) * percent // 100) - 1]
