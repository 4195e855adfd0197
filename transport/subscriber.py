"""Subscriber: any process's way onto the RunBus, as a context manager and an iterator of batches.

    with Subscriber("printer", kinds=["episode"]) as subscriber:
        for batch in subscriber:
            for episode in batch.records:
                print(batch.info.worker, episode.episode, episode.episode_return)

A subscriber has its own queue in the router under its own QoS policy, so it can slow nobody but itself, and
what a lossy policy drops is counted there: `accounts()` asks for it. The same batches come with `async for`, or in a
thread of their own with `start`.
"""

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Self

from runlane.config import log_ids, names
from runlane.config.errors import SettingsError
from runlane.config.load import load
from runlane.config.settings import QueuePolicy, Selection, Settings, check_decimate, check_kinds, check_name
from runlane.transport.log import log_event
from runlane.transport.messages import SubscriberAccount
from runlane.transport.record_batch import RecordBatch
from runlane.transport.subscriber_link import SubscriberLink
from runlane.transport.wire import Delivery

if TYPE_CHECKING:
    from runlane.transport.async_subscriber import CallbackThread, Wake
    from runlane.transport.history import History

__all__ = ["RecordBatch", "Subscriber"]

MAX_WINDOW = 1024
MAX_DECIMATE = 1_000_000_000
MAX_PATTERNS = 1_000
MAX_PATTERN_LENGTH = 64
_ASK_AGAIN_S = 0.05


# After so long without another delivery what was consumed is echoed, though more of the window is left.
IDLE_S = 0.002


class Subscriber:
    """Joins a live graph by name. One thread, or one task, at a time may use it."""

    def __init__(
        self,
        name: str,
        *,
        kinds: Sequence[str] | None = None,
        runs: Sequence[str] = (),
        workers: Sequence[str] = (),
        decimate: int = 1,
        policy: QueuePolicy | None = None,
        window: int = 16,
        echo_every: int | None = None,
        history: bool = False,
        settings: Settings | None = None,
        config: Path | None = None,
    ) -> None:
        """`policy` None means drop_oldest with 16,384 records, or what the settings file declares for `name`.

        `runs` and `workers` are names or shell patterns, a run by its id or name; `decimate` n is every n-th step row.
        At most `echo_every` deliveries stay unechoed; None is a quarter of the window. With `history` what the
        database has of all this comes first. The graph is the one of `settings`, of the settings file `config`, or
        of the environment and the current directory. Raises `SettingsError` for whatever cannot be.
        """
        check_name(name, "name")
        asked = Selection(list(names.KINDS) if kinds is None else _texts("kinds", kinds), [], [], decimate)
        check_kinds(asked.kinds)
        _check_range("decimate", decimate, MAX_DECIMATE)
        check_decimate(decimate, policy or QueuePolicy())
        _check_range("window", window, MAX_WINDOW)
        if echo_every is not None:
            _check_range("echo_every", echo_every, window)
        wanted = Selection(asked.kinds, _patterns("runs", runs), _patterns("workers", workers), decimate)
        chosen = settings or load(config)
        self._link = SubscriberLink(
            chosen, name, wanted.kinds, policy, window, runs=wanted.runs, workers=wanted.workers, decimate=decimate
        )
        self._echo_every = echo_every
        self._number = 0
        self._unechoed = 0
        self._epoch: int = 0
        self._kept: list[RecordBatch] = []
        self._wake: Wake | None = None
        self._thread: CallbackThread | None = None
        self._is_awaited = False
        self._history = self._history_of(chosen, wanted) if history else None

    def _history_of(self, settings: Settings, wanted: Selection) -> "History":
        from runlane.transport.history import History

        declared = settings.subscribers.get(self._link.name)  # which is then what counts, for what comes live too
        return History(settings, wanted if declared is None else declared.selection, self._link)

    # ---- batches ----

    def poll(self, timeout_s: float) -> list[RecordBatch]:
        """Batches of the next delivery, waiting at most `timeout_s`; an empty list when none came.

        Calling it again tells the router that the delivery before is consumed.
        """
        if self._thread is not None and not self._thread.is_current:
            raise RuntimeError(f"subscriber {self._link.name} belongs to the thread that `start` made; stop it first")
        if self._kept:
            kept, self._kept = self._kept, []
            return kept
        if self._is_reading_history and self._history is not None:
            return list(self._history.poll(timeout_s, self._is_woken))
        delivery = self._link.receive()
        if delivery is None and self._unechoed:  # more may come at once: an echo each costs as much as a delivery
            idle_s = min(timeout_s, IDLE_S)
            self._link.wait(idle_s)
            timeout_s -= idle_s
            delivery = self._link.receive()
        if delivery is None:
            self._echo()
            self._link.wait(timeout_s)
            delivery = self._link.receive()
            if delivery is None:
                return []
        if self._link.epoch != self._epoch:
            self._epoch, self._unechoed = self._link.epoch, 0
        elif self._unechoed >= min(self._echo_every or max(1, self._link.window // 4), self._link.window):
            self._echo()
        self._number = delivery.number
        self._unechoed += 1
        self._link.count_received(delivery)
        return self._batches(delivery)

    def next_batch(self, timeout_s: float) -> RecordBatch | None:
        """As `poll`, one batch at a time; those behind it in the same delivery wait for the next call."""
        batches = self.poll(timeout_s)
        self._kept = batches[1:]
        return batches[0] if batches else None

    def _is_woken(self) -> bool:
        return self._wake is not None and self._wake.is_set

    @property
    def _is_reading_history(self) -> bool:
        return self._history is not None and not self._history.is_done

    def _echo(self) -> None:
        if self._unechoed:
            self._link.echo(self._number, self._epoch)
            self._unechoed = 0

    def _batches(self, delivery: Delivery) -> list[RecordBatch]:
        header = delivery.header
        info = self._link.streams.get(header.stream)
        if info is None:
            log_event(log_ids.WIRE_REJECTED, place=self._link.name, reason="stream", stream=header.stream.hex())
            return []
        found: list[RecordBatch] = []
        for section, body in zip(header.sections, delivery.bodies, strict=True):
            part = None if body is None else (section, body)
            if part is not None and self._history is not None:
                part = self._history.unseen(header, *part)
            if part is not None:
                found.append(RecordBatch(info, header, *part))
        return found

    def __iter__(self) -> Iterator[RecordBatch]:
        """Batches until the graph ends (its router says goodbye)."""
        while True:
            batch = self.next_batch(0.5)
            if batch is not None:
                yield batch
            elif self.is_over:
                return

    # ---- from an event loop, or in a thread ----

    async def poll_async(self, timeout_s: float) -> list[RecordBatch]:
        """As `poll`, for an event loop. Cancelling it loses no batch and leaves no thread."""
        import asyncio

        from runlane.transport.async_subscriber import wait_in_thread

        if self._is_awaited:
            raise RuntimeError(f"subscriber {self._link.name} is awaited by another task already")
        self._is_awaited = True
        try:
            await asyncio.sleep(0)  # in a flood, where nothing has to be waited for, other tasks have their turn
            if not self._is_reading_history and ((batches := self.poll(0.0)) or timeout_s <= 0):
                return batches

            def wait() -> None:
                self._kept = self.poll(timeout_s)  # kept here, a batch survives when nobody waits for it any more

            await wait_in_thread(wait, self._waker())
            kept, self._kept = self._kept, []
            return kept
        finally:
            self._is_awaited = False

    async def _next_async(self) -> RecordBatch | None:
        while not (batches := await self.poll_async(0.5)):
            if self.is_over:
                return None
        self._kept = batches[1:]
        return batches[0]

    def __aiter__(self) -> AsyncIterator[RecordBatch]:
        """Batches until the graph ends, for `async for`."""
        return _AsyncBatches(self._next_async)

    def start(self, callback: Callable[[RecordBatch], object]) -> None:
        """Give every batch to `callback`, in a thread that owns this subscriber until `stop`."""
        from runlane.transport.async_subscriber import CallbackThread

        if self._thread is not None:
            raise RuntimeError(f"subscriber {self._link.name} is started already")

        def turn() -> bool:
            batch = self.next_batch(0.5)
            if batch is not None:
                callback(batch)
            return not self.is_over

        self._thread = CallbackThread(turn, self._waker())
        self._thread.start()

    def stop(self) -> None:
        """End the thread that `start` made, after the batch in hand; raises what the callback raised."""
        thread = self._thread
        if thread is not None:
            try:
                thread.stop()
            finally:
                if not thread.is_current:
                    self._thread = None

    def join(self, timeout_s: float | None = None) -> bool:
        """Wait until that thread ends, as it does with the graph; raises what the callback raised. False: not yet."""
        thread = self._thread
        if thread is None:
            return True
        try:
            has_ended = thread.join(timeout_s)
        except BaseException:
            self._thread = None
            raise
        if has_ended:
            self._thread = None
        return has_ended

    def _waker(self) -> "Wake":
        if self._wake is None:
            from runlane.transport.async_subscriber import Wake

            self._wake = Wake()
            self._link.watch(self._wake.fd)
        return self._wake

    # ---- what is known ----

    @property
    def is_joined(self) -> bool:
        """Whether a router has welcomed us."""
        return self._link.is_joined

    @property
    def is_over(self) -> bool:
        """Whether the router has said goodbye and everything before that was handed out."""
        return self._link.router_said_bye and not self._kept and not self._is_reading_history

    @property
    def history_missing(self) -> dict[str, int]:
        """Records by stream that history lacks, because the database did not get them in time. Empty: all is there."""
        return {} if self._history is None else dict(self._history.missing)

    def accounts(self, timeout_s: float = 1.0) -> list[SubscriberAccount]:
        """What the router counted for this subscriber, by stream; the last known when no router answers in time."""
        if self._thread is not None and not self._thread.is_current:
            raise RuntimeError(f"subscriber {self._link.name} belongs to the thread that `start` made; ask in there")
        link = self._link
        answers, end_s, is_asked = link.answers, link.clock.monotonic_s() + timeout_s, False
        while link.answers == answers:
            is_asked = is_asked or link.ask_accounts()
            left_s = end_s - link.clock.monotonic_s()
            if left_s <= 0:
                break
            link.wait(left_s if is_asked else min(left_s, _ASK_AGAIN_S), for_data=False)
        return list(link.accounts.values())

    @property
    def dropped(self) -> dict[str, int]:
        """Records dropped by reason, over all streams, as far as is known: `accounts()` asks for the newest."""
        total: dict[str, int] = {}
        for account in self._link.accounts.values():
            for reason, records in account.dropped.items():
                total[reason] = total.get(reason, 0) + records
        return total

    # ---- leaving ----

    def close(self, *, is_consumed: bool = True) -> None:
        """Leave: what still waits for us counts as dropped, reason `subscriber_left`; so does what failed here."""
        try:
            self.stop()
        except BaseException:
            is_consumed = False
            raise
        finally:
            if is_consumed and self._kept and self._unechoed:  # of the last delivery some was never handed out
                self._link.echo(self._number - 1, self._epoch)
            elif is_consumed:
                self._echo()
            self._link.close()
            if self._history is not None:
                self._history.close()
            if self._wake is not None:
                self._wake.close()
                self._wake = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close(is_consumed=error is None)


class _AsyncBatches:
    """An iterator and no generator: one that is left half way needs nobody to close it."""

    def __init__(self, next_batch: Callable[[], Awaitable[RecordBatch | None]]) -> None:
        self._next_batch = next_batch

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> RecordBatch:
        batch = await self._next_batch()
        if batch is None:
            raise StopAsyncIteration
        return batch


def _check_range(key: str, value: object, most: int) -> None:
    if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= most:
        raise SettingsError(key, value, f"is no whole number from 1 to {most}", "choose one")


def _texts(key: str, values: Sequence[str]) -> list[str]:
    if isinstance(values, str) or not all(isinstance(value, str) for value in values):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise SettingsError(key, values, "is no list of names", f'write {key}=["..."]')
    return list(values)


def _patterns(key: str, values: Sequence[str]) -> list[str]:
    found = _texts(key, values)
    if len(found) > MAX_PATTERNS or not all(1 <= len(value) <= MAX_PATTERN_LENGTH for value in found):
        raise SettingsError(
            key,
            values,
            f"holds more than {MAX_PATTERNS} patterns, or one that is empty or above {MAX_PATTERN_LENGTH} characters",
            "choose fewer or shorter ones; * stands for any text",
        )
    return found
