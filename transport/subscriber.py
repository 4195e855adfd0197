"""Subscriber: any process's way onto the RunBus, as a context manager and an iterator of batches.

    with Subscriber("printer", kinds=["episode"]) as subscriber:
        for batch in subscriber:
            for episode in batch.records:
                print(batch.info.worker, episode.episode, episode.episode_return)

A subscriber has its own queue in the router under its own QoS policy, so it can slow nobody but itself, and
what a lossy policy drops is counted there.
"""

from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Self

from runlane.config import log_ids, names
from runlane.config.errors import WireError
from runlane.config.load import load
from runlane.config.settings import QueuePolicy, Settings, check_kinds, check_name
from runlane.transport.log import log_event
from runlane.transport.messages import StreamInfo
from runlane.transport.records import Record
from runlane.transport.subscriber_link import SubscriberLink
from runlane.transport.wire import BatchHeader, Frame, Section

if TYPE_CHECKING:
    from runlane.transport.columns import StepColumns


class RecordBatch:
    """Records of one kind from one stream, in seq order. Decoded only when asked for."""

    def __init__(self, info: StreamInfo, header: BatchHeader, section: Section, body: Frame) -> None:
        """`body` is the section as its source encoded it."""
        self.info = info
        self.header = header
        self.section = section
        self.body = body

    @property
    def kind(self) -> str:
        """Record kind, as `step` or `episode`."""
        return names.KINDS[self.section.kind - 1]

    @property
    def columns(self) -> "StepColumns":
        """Step rows as a structured array: `columns["reward"]` and so on. Only for kind `step`."""
        from runlane.transport.columns import decode_steps, step_dtype

        schema = next((known for known in self.info.schemas if known.schema_id == self.section.schema_id), None)
        if schema is None:
            raise WireError("schema", f"stream {self.info.stream} announced no schema {self.section.schema_id}")
        return decode_steps(self.body, self.section, step_dtype(schema))

    @property
    def records(self) -> list[Record]:
        """Validated records. For every kind but `step`."""
        from runlane.transport.columns import decode_records

        return decode_records(self.body, self.section)

    def __len__(self) -> int:
        return self.section.records


class Subscriber:
    """Joins a live graph by name. One thread at a time may use it."""

    def __init__(
        self,
        name: str,
        *,
        kinds: list[str] | None = None,
        policy: QueuePolicy | None = None,
        window: int = 16,
        settings: Settings | None = None,
        config: Path | None = None,
    ) -> None:
        """`policy` None means drop_oldest with 16,384 records, or what the settings file declares for `name`.

        The graph is the one of `settings`, of the settings file `config`, or of the environment and the
        current directory. Raises `SettingsError` for a bad name or kind.
        """
        check_name(name, "name")
        check_kinds(kinds or list(names.KINDS))
        chosen = settings or load(config)
        self._link = SubscriberLink(chosen, name, kinds or list(names.KINDS), policy, window)
        self._number = 0
        self._unechoed = 0
        self._epoch = 0

    def poll(self, timeout_s: float) -> list[RecordBatch]:
        """Batches of the next delivery, waiting at most `timeout_s`; an empty list when none came.

        Calling it again tells the router that the delivery before is consumed.
        """
        delivery = self._link.receive()
        if delivery is None:
            self._echo()
            self._link.wait(timeout_s)
            delivery = self._link.receive()
            if delivery is None:
                return []
        if self._link.epoch != self._epoch:
            self._epoch, self._unechoed = self._link.epoch, 0
        elif self._unechoed >= max(1, self._link.window // 4):
            self._echo()
        self._number = delivery.number
        self._unechoed += 1
        return self._batches(delivery.header, delivery.bodies)

    def _echo(self) -> None:
        if self._unechoed:
            self._link.echo(self._number, self._epoch)
            self._unechoed = 0

    def _batches(self, header: BatchHeader, bodies: tuple[Frame | None, ...]) -> list[RecordBatch]:
        info = self._link.streams.get(header.stream)
        if info is None:
            log_event(log_ids.WIRE_REJECTED, place=self._link.name, reason="stream", stream=header.stream.hex())
            return []
        return [
            RecordBatch(info, header, section, body)
            for section, body in zip(header.sections, bodies, strict=True)
            if body is not None
        ]

    def __iter__(self) -> Iterator[RecordBatch]:
        """Batches until the graph ends (its router says goodbye)."""
        while True:
            batches = self.poll(0.5)
            yield from batches
            if not batches and self._link.router_said_bye:
                return

    @property
    def is_joined(self) -> bool:
        """Whether a router has welcomed us."""
        return self._link.is_joined

    def close(self, *, is_consumed: bool = True) -> None:
        """Leave: what still waits for us counts as dropped, reason `subscriber_left`; so does what failed here."""
        if is_consumed:
            self._echo()
        self._link.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close(is_consumed=error is None)
