"""Accounts of subscribers in the database: one row per subscriber and stream, and one per reason of a drop.

The figures are cumulative and each account is whole, so the newest replaces what was there and a repeated one changes
nothing. An account may come before its stream or its run is known here: the rows refer to neither.
"""

from collections.abc import Iterable

from runlane.actors.sql import Connection, SqlRow
from runlane.config.errors import WireError
from runlane.transport.messages import SubscriberAccount

MAX_COUNT = (1 << 63) - 1  # SQLite's integers; sum() over larger ones is an error of the whole query
MAX_REASONS = 64
MAX_REASON_LENGTH = 200

_PUT = "INSERT OR REPLACE INTO account_rows VALUES (?,?,?,?,?,?,?,?,?)"
_FORGET_DROPS = "DELETE FROM account_drop_rows WHERE subscriber = ? AND stream = ?"
_PUT_DROP = "INSERT INTO account_drop_rows VALUES (?,?,?,?)"


class AccountRows:
    """Writes accounts. Part of the store: `put` runs in the transaction the store opened."""

    def __init__(self, connection: Connection) -> None:
        self._cursor = connection.cursor()

    def put(self, accounts: Iterable[tuple[SubscriberAccount, int]]) -> None:
        """Store accounts with the time they were drawn up, each in place of an earlier one."""
        rows: list[SqlRow] = []
        keys: list[SqlRow] = []
        drops: list[SqlRow] = []
        for account, t_ns in accounts:
            key = (account.subscriber, account.stream)
            counts = (account.published, account.delivered, account.queued, account.first_seq, account.last_seq)
            keys.append(key)
            rows.append((*key, account.run, *counts, t_ns))
            drops += [(*key, reason, records) for reason, records in account.dropped.items()]
        self._cursor.executemany(_PUT, rows)
        self._cursor.executemany(_FORGET_DROPS, keys)
        self._cursor.executemany(_PUT_DROP, drops)


def check_account(account: SubscriberAccount) -> None:
    """Raise `WireError` on an account that the database, or a query of it, could not take."""
    counts = (account.published, account.delivered, account.queued, account.first_seq, account.last_seq)
    dropped = account.dropped
    if not all(0 <= count <= MAX_COUNT for count in (*counts, *dropped.values(), sum(dropped.values()))):
        raise WireError("invalid", f"account of {account.subscriber} for {account.stream}: a count is out of range")
    if len(dropped) > MAX_REASONS or any(len(reason) > MAX_REASON_LENGTH for reason in dropped):
        raise WireError(
            "invalid", f"account of {account.subscriber} for {account.stream}: too many, or too long, reasons"
        )
