"""What the tests of the relay share: a journal, the relay that drains it, and the test in the router's place."""

from pathlib import Path

import msgspec
from fake_journal import FakeJournal

from runlane.actors.relay import LIVE_PATIENCE_S, Relay
from runlane.config.settings import ProxySettings, Settings
from runlane.transport.ack import Batch
from runlane.transport.messages import ControlMessage, StreamAck, StreamNack, StreamWelcome
from runlane.transport.testing import FakeClock, FakeSend, make_batch, make_info
from runlane.transport.wire import BatchHeader

SMALL_WINDOW = ProxySettings(outbox_bytes=1 << 18)


class RelayRig:
    """A journal, the relay that drains it, and the test in the router's place."""

    def __init__(self, home: Path, settings: Settings, clock: FakeClock) -> None:
        self.settings = msgspec.structs.replace(settings, proxy=SMALL_WINDOW)
        self.clock = clock
        self.journal = FakeJournal(home, make_info("w"))
        self.send = FakeSend()
        self.relay: Relay | None = None

    def start(self) -> Relay:
        """A proxy process begins to drain the journal."""
        self.relay = Relay(self.journal.directory, None, self.settings, self.send, self.clock)
        return self.relay

    def restart(self) -> Relay:
        """It ends, and another begins."""
        assert self.relay is not None
        self.relay.close()
        return self.start()

    def turn(self, *messages: ControlMessage, seconds: float = LIVE_PATIENCE_S + 0.01) -> list[int]:
        """The router says this, time passes; returns the seqs that went out."""
        assert self.relay is not None
        for message in messages:
            self.relay.on_message(message, self.clock.monotonic_s())
        self.relay.advance(self.clock.monotonic_s())
        self.clock.move(seconds)
        self.relay.advance(self.clock.monotonic_s())
        return self.seqs()

    def seqs(self) -> list[int]:
        """Seqs of the batches that went out since the last look, in order."""
        said = [header for header in self.send.take() if isinstance(header, BatchHeader)]
        return [seq for header in said for seq in range(header.first_seq, header.last_seq + 1)]

    def welcome(self, expected_seq: int, sent_seq: int = 0, router: str = "router") -> StreamWelcome:
        """The router has everything before this."""
        return StreamWelcome(
            stream=self.journal.info.stream, receiver=router, expected_seq=expected_seq, sent_seq=sent_seq
        )

    def ack(self, seq: int) -> StreamAck:
        """All up to this is committed."""
        return StreamAck(stream=self.journal.info.stream, seq=seq)

    def nack(self, seq: int) -> StreamNack:
        """A hole before this."""
        return StreamNack(stream=self.journal.info.stream, expected_seq=seq)

    def live(self, first_seq: int, count: int) -> Batch:
        """A batch as the worker sends it."""
        return make_batch(self.journal.info, first_seq, step=count)

    def close(self) -> None:
        """Everything."""
        if self.relay is not None:
            self.relay.close()
        self.journal.close()


def seq_range(first: int, last: int) -> list[int]:
    """Both included."""
    return list(range(first, last + 1))
