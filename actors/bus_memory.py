"""BusMemory: what a router leaves to its successor, however it ended: accounts, and who was subscribed.

The accounts are in the ledger, written once a turn, before anything of the turn is sent or acked: a record that was
taken and not noted yet is taken again. Subscribers are a small file, replaced whenever one joins or leaves: a `block`
subscriber that is not declared keeps its hold on acks while a new router waits for it.
"""

from pathlib import Path

import msgspec

from runlane.actors.ledger import FILE, Ledger, Saved, restore
from runlane.actors.run_bus import RunBus, Subscriber
from runlane.config import log_ids
from runlane.config.settings import QueuePolicy, Selection
from runlane.transport.log import log_event

SUBSCRIBERS_FILE = "router.subscribers"


class _Remembered(msgspec.Struct, frozen=True, kw_only=True):
    """One subscriber that is not declared in the settings."""

    name: str
    instance: str
    policy: QueuePolicy
    selection: Selection
    window: int


class BusMemory:
    """The files of one router in its run directory. Where they cannot be written it goes on without, and says so."""

    def __init__(self, directory: Path, bus: RunBus) -> None:
        """Open the files; nothing is restored before `restore`."""
        self._bus = bus
        self._path = directory / SUBSCRIBERS_FILE
        self._ledger: Ledger | None = None
        self._has_complained = False
        try:
            self._ledger = Ledger(directory / FILE)
        except OSError as error:
            self._complain(error)

    def restore(self, first_number: int) -> list[Subscriber]:
        """Take up what the router before left; returns the subscribers it had that may come back."""
        found: list[Subscriber] = []
        for known in self._read():
            subscriber = self._bus.subscribers.get(known.name)
            if subscriber is None:
                subscriber = self._bus.add_subscriber(
                    known.name, known.policy, known.selection, known.window, first_number
                )
            subscriber.instance = known.instance
            found.append(subscriber)
        self._restore_accounts()
        return found

    def _restore_accounts(self) -> None:
        if self._ledger is None:
            return
        records = accounts = 0
        for saved in self._ledger.read():
            subscriber = self._bus.subscribers.get(saved.subscriber)
            records += restore(saved.account, is_block=subscriber is not None and subscriber.is_block)
            self._bus.restore(saved.subscriber, saved.stream, saved.run, saved.account)
            self._write(saved)
            accounts += 1
        if accounts:
            log_event(log_ids.RUNBUS_RESTORED, accounts=accounts, dropped=records)

    def _read(self) -> list[_Remembered]:
        try:
            return msgspec.json.decode(self._path.read_bytes(), type=list[_Remembered])
        except FileNotFoundError:
            return []
        except (OSError, msgspec.MsgspecError) as error:
            self._complain(error)
            return []

    def note(self, changed: set[tuple[str, bytes]]) -> None:
        """Write accounts that have changed."""
        for name, stream in changed:
            account = self._bus.account_of(name, stream)
            if account is not None:
                self._write(Saved(name, stream, self._bus.runs.get(stream, ""), account))

    def _write(self, saved: Saved) -> None:
        ledger = self._ledger
        if ledger is None:
            return
        ledger.write(saved.subscriber, saved.stream, saved.run, saved.account)
        if not ledger.is_complete:
            self._complain("no room for more accounts")

    def forget(self, name: str, stream: bytes) -> None:
        """An account was put away."""
        if self._ledger is not None:
            self._ledger.forget(name, stream)

    def note_subscribers(self) -> None:
        """Write who is subscribed now, in one step: a killed router leaves the old list or the new one."""
        known = [
            _Remembered(
                name=name,
                instance=subscriber.instance,
                policy=subscriber.queue.policy,
                selection=subscriber.selection,
                window=subscriber.queue.window,
            )
            for name, subscriber in self._bus.subscribers.items()
            if not subscriber.is_declared or subscriber.instance
        ]
        part = self._path.with_suffix(".part")
        try:
            part.write_bytes(msgspec.json.encode(known))
            part.replace(self._path)
        except OSError as error:
            self._complain(error)

    def _complain(self, error: object) -> None:
        if not self._has_complained:
            self._has_complained = True
            log_event(log_ids.RUNBUS_NO_MEMORY, error=error)

    def close(self) -> None:
        """The router ends in order, so that nothing is left to know: the files go."""
        if self._ledger is not None:
            self._ledger.close(is_over=True)
        self._path.unlink(missing_ok=True)
