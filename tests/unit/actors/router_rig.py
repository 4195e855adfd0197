"""What the tests of the router share: the actor moved by hand, with sources and subscribers on real sockets."""

# pyright: reportPrivateUsage=false

from typing import TypeVar

from runlane.actors.router import RouterActor
from runlane.actors.run_bus import Subscriber
from runlane.config.names import INGRESS_SOCKET, KINDS
from runlane.config.settings import QueuePolicy, Settings
from runlane.transport.endpoint import endpoint_of, unlink_socket
from runlane.transport.messages import ControlMessage, StreamInfo, StreamWelcome, SubscriberHello
from runlane.transport.testing import FakeClock, FakeSource, FakeSubscriber, make_batch, make_info, until

Message = TypeVar("Message", bound=ControlMessage)


class RouterRig:
    """One router, in this thread. Sources and subscribers made here are closed with it."""

    def __init__(self, settings: Settings, clock: FakeClock) -> None:
        self.settings = settings
        self.clock = clock
        self.sources: list[FakeSource] = []
        self.subscribers: list[FakeSubscriber] = []
        self._left: list[str] = []  # sockets of routers that crashed: their files stay, as after a kill
        self.router = self.start()

    def start(self) -> RouterActor:
        """A router process begins."""
        self.router = RouterActor(self.settings, self.clock)
        self.router.on_start()
        return self.router

    def restart(self) -> RouterActor:
        """It ends, and another begins."""
        self.router.on_close()
        return self.start()

    def crash(self) -> RouterActor:
        """It ends as after `kill -9`: sockets gone, lock free, its files as they are; and another begins."""
        memory = self.router._accountant._memory
        self._left += [egress.endpoint for egress in self.router._egress.values()]
        self.router._context.destroy(linger=0)
        self.router._lock.release()
        if memory is not None and memory._ledger is not None:
            memory._ledger.close(is_over=False)
        return self.start()

    def turn(self) -> None:
        """One turn of the router; everybody else listens."""
        self.router.do_work(0.005)
        for source in self.sources:
            source.listen()
        for subscriber in self.subscribers:
            subscriber.listen()

    def settle(self, turns: int = 10) -> None:
        """Enough turns for whatever is under way to arrive; to show that something does not happen."""
        for _ in range(turns):
            self.turn()

    def source(self, info: StreamInfo | None = None, oldest_seq: int = 1) -> FakeSource:
        """A proxy whose stream is open."""
        endpoint = endpoint_of(self.settings, INGRESS_SOCKET)
        source = FakeSource(self.settings, endpoint, info or make_info())
        self.sources.append(source)
        source.hello(oldest_seq)
        until(lambda: bool(heard(source, StreamWelcome)), self.turn)
        return source

    def subscriber(
        self, name: str, policy: QueuePolicy | None = None, *, instance: str = "1", window: int = 16
    ) -> FakeSubscriber:
        """A subscriber whose deliveries begin."""
        subscriber = FakeSubscriber(self.settings, name, instance)
        self.subscribers.append(subscriber)
        subscriber.hello(policy, window=window)
        until(lambda: subscriber.is_welcome and self.bus_subscriber(name).is_live, self.turn)
        return subscriber

    def resume(self, source: FakeSource, oldest_seq: int = 1) -> None:
        """A source of the router before says hello to this one."""
        source.heard.clear()
        source.hello(oldest_seq)
        until(lambda: bool(heard(source, StreamWelcome)), self.turn)

    def rejoin(
        self, subscriber: FakeSubscriber, policy: QueuePolicy | None = None, received: dict[str, int] | None = None
    ) -> None:
        """A subscriber of the router before says hello to this one, and what it was given so far."""
        if subscriber.data is not None:
            subscriber.data.close(0)
            subscriber.data = None
        subscriber.say(
            SubscriberHello(
                name=subscriber.name,
                instance=subscriber.instance,
                kinds=list(KINDS),
                policy=policy,
                received=received or {},
            )
        )
        until(lambda: subscriber.is_welcome and self.bus_subscriber(subscriber.name).is_live, self.turn)

    def bus_subscriber(self, name: str) -> Subscriber:
        """The router's own picture of a subscriber."""
        return self.router.bus.subscribers[name]

    def publish(self, source: FakeSource, first_seq: int, count: int = 1) -> None:
        """Send a batch of steps and wait until the router has it."""
        source.send(*make_batch(source.info, first_seq, step=count).frames)
        until(lambda: self.expected_seq(source) >= first_seq + count, self.turn)

    def expected_seq(self, source: FakeSource) -> int:
        """What the router expects next of a stream."""
        return self.router.bus.streams[bytes.fromhex(source.info.stream)].gate.expected_seq

    def close(self) -> None:
        """Everybody."""
        for far_end in (*self.sources, *self.subscribers):
            far_end.close()
        self.router.on_close()
        for endpoint in self._left:
            unlink_socket(endpoint)


def heard(end: FakeSource | FakeSubscriber, kind: type[Message]) -> list[Message]:
    """Messages of one kind that a far end has heard."""
    return [message for message in end.heard if isinstance(message, kind)]
