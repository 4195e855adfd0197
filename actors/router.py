"""The RunBus router: gives `RunBus` its sockets. Takes batches from proxies, delivers to every subscriber.

Ingress is one ROUTER that is simply not read while a `block` queue is full: the wait reaches the proxies and
their outboxes. Control is a second ROUTER, so that a subscriber can join or leave meanwhile.
"""

import time
from collections.abc import Sequence
from typing import Any

import zmq

from runlane.actors.accountant import Accountant
from runlane.actors.bus_reporter import subscriber_figures
from runlane.actors.bus_watch import BusWatch
from runlane.actors.deletion_post import pass_on
from runlane.actors.egress import Egress
from runlane.actors.run_bus import RunBus, Subscriber, is_same_source
from runlane.actors.stream_lease import StreamLeases
from runlane.config import log_ids
from runlane.config.errors import EndpointError, SettingsError, WireError
from runlane.config.names import CONTROL_SOCKET, DB_WRITER, INGRESS_SOCKET, ROUTER
from runlane.config.settings import QueuePolicy, Settings, check_decimate, check_kinds, check_name
from runlane.transport.ack import Verdict
from runlane.transport.clock import Clock, SystemClock
from runlane.transport.endpoint import RoleLock, endpoint_of, make_run_dir, unlink_socket
from runlane.transport.identity import new_stream_id
from runlane.transport.log import log_event
from runlane.transport.messages import (
    AccountsRequest,
    RouterBye,
    RunDelete,
    RunDeletion,
    StreamAck,
    StreamBye,
    StreamHello,
    StreamNack,
    StreamRefused,
    StreamsAlive,
    StreamWelcome,
    SubscriberBye,
    SubscriberHello,
    SubscriberLease,
    SubscriberRefused,
    SubscriberWelcome,
)
from runlane.transport.sockets import (
    Context,
    Rejections,
    Socket,
    bind_router,
    poll_events,
    receive_batch,
    receive_frames,
    send_control,
    terminate,
)
from runlane.transport.wire import BatchHeader, Frame, check_bodies, decode_control, decode_header, is_control

INGRESS_BURST = 64
CONTROL_BURST = 64
LEASE_CHECK_S = 0.25
GOODBYE_S = 0.1  # to each whose pipe is full
# Acks go out when nothing comes in, and under load every so many turns: each costs us 6 µs and a proxy 10.
ACK_TURNS = 8
# At the ordered stop, once everything is committed: so long a lossy subscriber that keeps up may take its rest.
LAST_WORDS_S = 0.3


class RouterActor:
    """The router process. One thread, one context; the only owner of every subscriber's queue."""

    name = ROUTER

    def __init__(self, settings: Settings, clock: Clock | None = None) -> None:
        """Nothing is bound before `on_start`."""
        self.settings = settings
        self.clock = clock or SystemClock()
        self.bus = RunBus()
        self.rejections = Rejections({})
        self.router_id = new_stream_id()
        self._egress: dict[str, Egress] = {}
        self._streams_heard = StreamLeases(settings.router.lease_s)
        self._serial = 0
        self._is_stopping = False
        self._was_blocked = False
        self._next_lease_check_s = 0.0
        self._awaited_s: dict[str, float] = {}  # subscribers of the router before this one, until when they may come
        self._last_words_s: float | None = None
        self._unacked: set[bytes] = set()
        self._turns = 0
        self._watch = BusWatch(self.bus, settings.router.lease_s)
        self._accountant = Accountant(self.bus, settings.router, self.clock, self.router_id)

    # ---- life ----

    def on_start(self) -> None:
        """Take the role's lock, bind both sockets, open the queues of the declared subscribers."""
        self._context: Context = zmq.Context()
        self._lock = RoleLock(make_run_dir(self.settings), ROUTER)
        transport = self.settings.transport
        self._ingress_endpoint = endpoint_of(self.settings, INGRESS_SOCKET)
        self._control_endpoint = endpoint_of(self.settings, CONTROL_SOCKET)
        self._ingress: Socket = bind_router(
            self._context, self._ingress_endpoint, self.settings.router.ingress_hwm, transport
        )
        self._control: Socket = bind_router(self._context, self._control_endpoint, 1000, transport)
        self._poller = zmq.Poller()
        self._poller.register(self._ingress, zmq.POLLIN)
        self._poller.register(self._control, zmq.POLLIN)
        for name, declared in self.settings.subscribers.items():
            self.bus.add_subscriber(
                name, declared.policy, declared.selection, declared.window, self.clock.wall_ns(), is_declared=True
            )
        until_s = self.clock.monotonic_s() + self.settings.router.lease_s
        for subscriber in self._accountant.open(make_run_dir(self.settings)):
            if not subscriber.is_declared:
                self._awaited_s[subscriber.name] = until_s

    def do_work(self, timeout_s: float) -> None:
        """One turn: control, echoes, a burst of ingress, deliveries, acks."""
        ready = poll_events(self._poller, timeout_s)
        if self._control in ready:
            self._read_control()
        for egress in list(self._egress.values()):
            if egress.socket in ready:
                self._unacked |= self._read_egress(egress)
        if self._ingress in ready:
            self._read_ingress()
        self._accountant.remember()  # before anything of this turn is sent or acked
        self._pump()
        self._turns += 1
        if self._ingress not in ready or self._turns % ACK_TURNS == 0:
            self._send_acks(self._unacked)
            self._unacked.clear()
        self._watch_backpressure()
        self._check_leases()
        self._tell_alive()
        self._accountant.report(self._egress)

    def request_stop(self) -> None:
        """Go on delivering until every proxy said goodbye and the durable path is empty."""
        self._is_stopping = True

    def is_drained(self) -> bool:
        """Whether no stream is open and no `block` queue holds anything; others get a moment for what they hold."""
        if self.bus.streams or self.bus.holds_any(is_block=True):
            return False
        now_s = self.clock.monotonic_s()
        if self._last_words_s is None:
            self._last_words_s = now_s + LAST_WORDS_S
        return now_s >= self._last_words_s or not self.bus.holds_any(is_block=False)

    def statistics(self) -> dict[str, Any]:
        """Figures for the heartbeat."""
        now_s = self.clock.monotonic_s()
        figures = self.bus.statistics()
        for name, latencies in subscriber_figures(self.bus, now_s).items():
            figures["subscribers"][name] |= {**latencies, "state": self._watch.state(self._egress.get(name), now_s)}
        return {
            **figures,
            "records_per_s": round(self._accountant.records_per_s, 1),
            "rejected": dict(self.rejections.by_reason),
            "router": self.router_id,
        }

    def on_close(self) -> None:
        """Say the last accounts and goodbye to subscribers, close all, remove the socket files, let the lock go."""
        for egress in self._egress.values():
            self._read_egress(egress)
        self._accountant.close(self._egress)
        for egress in self._egress.values():
            egress.insist(RouterBye(router=self.router_id), time.monotonic() + GOODBYE_S)
            egress.close()
        for socket, endpoint in (
            (getattr(self, "_ingress", None), getattr(self, "_ingress_endpoint", "")),
            (getattr(self, "_control", None), getattr(self, "_control_endpoint", "")),
        ):
            if socket is not None:
                socket.close(0)
                unlink_socket(endpoint)
        if hasattr(self, "_context"):
            terminate(self._context)
        if hasattr(self, "_lock"):
            self._lock.release()

    # ---- ingress: proxies ----

    def _read_ingress(self) -> None:
        """Take up to a burst of messages, stopping at once when a `block` queue is full."""
        for _ in range(INGRESS_BURST):
            if self.bus.is_blocked:
                break
            frames = receive_batch(self._ingress)
            if frames is None:
                break
            try:
                self._on_ingress(frames)
            except WireError as error:
                self.rejections.reject(error, "ingress")

    def _on_ingress(self, frames: list[Frame]) -> None:
        if len(frames) < 2:
            raise WireError("frames", f"{len(frames)} at ingress")
        peer, head = bytes(frames[0]), frames[1]
        if is_control(head):
            self._on_stream_control(peer, frames)
            return
        header = decode_header(head)
        bodies = frames[2:]
        check_bodies(header, [len(body) for body in bodies])
        self._on_batch(peer, header, head, bodies)

    def _on_batch(self, peer: bytes, header: BatchHeader, head: Frame, bodies: Sequence[Frame]) -> None:
        stream = self.bus.streams.get(header.stream)
        if stream is None or stream.peer != peer:
            send_control(self._ingress, StreamNack(stream=header.stream.hex(), expected_seq=0), peer)
            return
        now_s = self.clock.monotonic_s()
        self._streams_heard.hear(header.stream, now_s)
        self._unacked.add(header.stream)  # a batch we had already, too: its ack was lost, or will come in its turn
        verdict, overflowed = self.bus.publish(header, head, bodies, now_s)
        for name in overflowed:
            self._watch.overflowed(name, now_s)
        if verdict is Verdict.GAP and stream.gate.should_ask():
            expected = stream.gate.expected_seq
            log_event(log_ids.RUNBUS_GAP, stream=stream.info.stream, expected=expected, got=header.first_seq)
            send_control(self._ingress, StreamNack(stream=stream.info.stream, expected_seq=expected), peer)

    def _on_stream_control(self, peer: bytes, frames: list[Frame]) -> None:
        if len(frames) != 2:
            raise WireError("frames", f"{len(frames)} in a control message at ingress")
        message = decode_control(frames[1])
        if isinstance(message, StreamHello):
            self._on_stream_hello(peer, message)
        elif isinstance(message, StreamBye):
            stream = self.bus.streams.get(bytes.fromhex(message.stream))
            if stream is not None and stream.peer == peer:
                self._accountant.stream_closed(bytes.fromhex(message.stream))
                self.bus.close_stream(bytes.fromhex(message.stream))
                log_event(log_ids.RUNBUS_STREAM_CLOSED, stream=message.stream, worker=stream.info.worker)
        else:
            raise WireError("unexpected", f"{type(message).__name__} at ingress")

    def _on_stream_hello(self, peer: bytes, hello: StreamHello) -> None:
        key = bytes.fromhex(hello.info.stream)
        known = self.bus.streams.get(key)
        if known is not None and not is_same_source(known.info, hello.info):
            reason = f"host {known.info.host} pid {known.info.pid} writes stream {known.info.stream} already"
            log_event(log_ids.RUNBUS_STREAM_REFUSED, stream=hello.info.stream, reason=reason)
            send_control(self._ingress, StreamRefused(stream=hello.info.stream, reason=reason), peer)
            return
        is_new = known is None
        stream = self.bus.open_stream(key, hello.info, peer, hello.oldest_seq)
        stream.high_seq = max(stream.high_seq, hello.high_seq)
        self._accountant.stream_opened(key)
        self._streams_heard.hear(key, self.clock.monotonic_s())
        if is_new:
            log_event(
                log_ids.RUNBUS_STREAM_OPENED,
                stream=hello.info.stream,
                run=hello.info.run,
                worker=hello.info.worker,
                expected=stream.gate.expected_seq,
            )
        welcome = StreamWelcome(
            stream=hello.info.stream,
            receiver=self.router_id,
            expected_seq=stream.gate.expected_seq,
            sent_seq=hello.sent_seq,
        )
        send_control(self._ingress, welcome, peer)
        self._accountant.remember()
        self._send_acks({key}, force=True)

    def _send_acks(self, keys: set[bytes], *, force: bool = False) -> None:
        for key in keys:
            stream = self.bus.streams.get(key)
            if stream is None:
                continue
            acked = self.bus.acked_seq(key)
            if acked > stream.acked_seq or force:
                message = StreamAck(stream=stream.info.stream, seq=max(0, acked))
                if send_control(self._ingress, message, stream.peer):
                    stream.acked_seq = acked

    # ---- control: subscribers ----

    def _read_control(self) -> None:
        for _ in range(CONTROL_BURST):
            frames = receive_frames(self._control)
            if frames is None:
                return
            try:
                if len(frames) != 2:
                    raise WireError("frames", f"{len(frames)} at control")
                self._on_control(frames[0], frames[1])
            except WireError as error:
                self.rejections.reject(error, "control")
                if error.reason == "invalid":  # a message of ours with an absurd field: who sent it should know
                    self._refuse(frames[0], "", f"invalid message: {error.detail}")

    def _on_control(self, peer: bytes, frame: bytes) -> None:
        message = decode_control(frame)
        if isinstance(message, SubscriberHello):
            self._on_subscriber_hello(peer, message)
        elif isinstance(message, SubscriberLease):
            self._on_lease(peer, message)
        elif isinstance(message, SubscriberBye):
            subscriber = self.bus.subscribers.get(message.name)
            if subscriber is not None and subscriber.instance == message.instance:
                self._leave(subscriber, "bye")
        elif isinstance(message, AccountsRequest):
            for accounts in self._accountant.answer(message.name):
                send_control(self._control, accounts, peer)
        elif isinstance(message, RunDelete | RunDeletion):
            pass_on(message, peer, self._control, self._egress.get(DB_WRITER))
        else:
            raise WireError("unexpected", f"{type(message).__name__} at control")

    def _on_lease(self, peer: bytes, lease: SubscriberLease) -> None:
        egress = self._egress.get(lease.name)
        if egress is None or egress.subscriber.instance != lease.instance or egress.is_gone:
            answer = SubscriberRefused(name=lease.name, reason="unknown to this router", is_final=False)
            send_control(self._control, answer, peer)
            return
        egress.lease_at_s = self.clock.monotonic_s()
        send_control(self._control, lease, peer)

    def _on_subscriber_hello(self, peer: bytes, hello: SubscriberHello) -> None:
        reason, is_final = self._objection(hello)
        if reason:
            self._refuse(peer, hello.name, reason, is_final=is_final)
            return
        subscriber, self._serial = self._admit(hello), self._serial + 1
        try:
            egress = Egress(self._context, self.settings, subscriber, self._serial, self.clock.monotonic_s())
        except (EndpointError, zmq.ZMQError) as error:  # no descriptor, a path too long: its trouble, not everybody's
            self._leave(subscriber, str(error))
            self._refuse(peer, hello.name, str(error))
            return
        self._egress[hello.name] = egress
        self._poller.register(egress.socket, zmq.POLLIN)
        self._accountant.joined(subscriber)
        policy = subscriber.queue.policy
        log_event(
            log_ids.RUNBUS_SUBSCRIBER_JOINED,
            subscriber=hello.name,
            pid=hello.pid,
            overflow=policy.overflow,
            max_queue=policy.max_queue,
            window=subscriber.queue.window,
        )
        welcome = SubscriberWelcome(
            name=hello.name,
            router=self.router_id,
            endpoint=egress.endpoint,
            policy=policy,
            window=subscriber.queue.window,
            first_number=subscriber.queue.next_number - 1,
            watermarks=self.bus.begin(subscriber),
        )
        send_control(self._control, welcome, peer)

    def _refuse(self, peer: bytes, name: str, reason: str, *, is_final: bool = True) -> None:
        log_event(log_ids.RUNBUS_SUBSCRIBER_REFUSED, subscriber=name, reason=reason)
        send_control(self._control, SubscriberRefused(name=name, reason=reason, is_final=is_final), peer)

    def _objection(self, hello: SubscriberHello) -> tuple[str, bool]:
        """Why a hello is refused, and whether asking again is useless. An empty reason means welcome."""
        try:
            check_name(hello.name, "name")
            check_kinds(hello.kinds)
            check_decimate(hello.decimate, hello.policy or QueuePolicy())
        except SettingsError as error:
            return str(error), True
        known = self.bus.subscribers.get(hello.name)
        if known is None:
            return "", True
        if known.is_declared and hello.policy is not None and hello.policy != known.queue.policy:
            return f"{hello.name} is declared in the settings with another policy; leave the policy out", True
        egress = self._egress.get(hello.name)
        is_other = known.instance not in ("", hello.instance)
        if is_other and egress is not None and not egress.is_gone and not self._is_silent(egress):
            # Not final: the socket of a process just killed may not be known dead yet.
            return f"a subscriber named {hello.name} is connected already; choose another name", False
        return "", True

    def _is_silent(self, egress: Egress) -> bool:
        return self.clock.monotonic_s() - egress.lease_at_s > self.settings.router.lease_s

    def _admit(self, hello: SubscriberHello) -> Subscriber:
        """The subscriber this hello speaks for: a new one, or a known one whose process or router restarted."""
        known = self.bus.subscribers.get(hello.name)
        self._awaited_s.pop(hello.name, None)
        if known is not None:
            self._disconnect(known)
            wanted = hello.policy or QueuePolicy(), hello.selection
            if not known.is_declared and wanted != (known.queue.policy, known.selection):
                self.bus.remove_subscriber(hello.name, "subscriber_restart")  # it wants something else now
                self._unacked |= set(self.bus.streams)
                known = None
        if known is None:
            known = self.bus.add_subscriber(
                hello.name, hello.policy or QueuePolicy(), hello.selection, hello.window, self.clock.wall_ns()
            )
        received = {bytes.fromhex(key): records for key, records in hello.received.items()}
        if hello.instance in (known.instance, known.last_instance):
            if moved := sum(known.queue.resume(*given) for given in received.items()):
                log_event(log_ids.RUNBUS_RESUMED, subscriber=hello.name, records=moved)
        else:
            known.queue.begin_instance(received)
        known.instance = hello.instance
        return known

    def _disconnect(self, subscriber: Subscriber) -> None:
        """Cut the way to a subscriber's former process; what was under way is queued again, or counted."""
        egress = self._egress.pop(subscriber.name, None)
        if egress is not None:
            moved = self._read_egress(egress)
            self._accountant.remember()
            self._send_acks(moved)
            self._poller.unregister(egress.socket)
            egress.close()
        if subscriber.is_block:
            records = subscriber.queue.requeue_in_flight()
            if records:
                log_event(log_ids.RUNBUS_RESENT, subscriber=subscriber.name, records=records)
        else:
            subscriber.queue.drop_in_flight("subscriber_restart")

    def _leave(self, subscriber: Subscriber, reason: str) -> None:
        """A subscriber process is gone. A declared one keeps its queue; any other gives up its place."""
        log_event(log_ids.RUNBUS_SUBSCRIBER_LEFT, subscriber=subscriber.name, reason=reason)
        self._disconnect(subscriber)
        subscriber.last_instance, subscriber.instance = subscriber.instance, ""
        self._awaited_s.pop(subscriber.name, None)
        if not subscriber.is_declared:
            self.bus.remove_subscriber(subscriber.name, "subscriber_left")
        self._accountant.left(subscriber.name)
        if subscriber.is_block and not subscriber.is_declared:  # nobody waits for its echoes any more
            self._send_acks(set(subscriber.committed))
        self._watch.forget(subscriber.name)

    def _check_leases(self) -> None:
        now_s = self.clock.monotonic_s()
        if now_s < self._next_lease_check_s:
            return
        self._next_lease_check_s = now_s + LEASE_CHECK_S
        for name in [name for name, until_s in self._awaited_s.items() if now_s >= until_s]:
            del self._awaited_s[name]
            self._leave(self.bus.subscribers[name], "did not come back after the router's restart")
        for egress in list(self._egress.values()):
            self._watch.look(egress, now_s)
            if egress.is_gone and (egress.subscriber.is_declared or self._is_silent(egress)):
                self._leave(egress.subscriber, "disconnected")
            elif not egress.subscriber.is_live and self._is_silent(egress):
                self._leave(egress.subscriber, "never connected")

    # ---- egress ----

    def _read_egress(self, egress: Egress) -> set[bytes]:
        was_live = egress.subscriber.is_live
        moved, refused = egress.receive(self.bus, self.clock.monotonic_s())
        for error in refused:
            self.rejections.reject(error, egress.subscriber.name)
        if egress.subscriber.is_live and not was_live:
            log_event(log_ids.RUNBUS_SUBSCRIBER_LIVE, subscriber=egress.subscriber.name)
        return moved

    def _pump(self) -> None:
        now_s = self.clock.monotonic_s()
        for egress in self._egress.values():
            if egress.subscriber.queue.is_due:
                egress.pump(self.bus.infos, now_s)

    def _tell_alive(self) -> None:
        """Tell `block` subscribers which streams are there. Never waits: a full pipe goes without."""
        now_s = self.clock.monotonic_s()
        if not self._streams_heard.turn(now_s, is_listening=not self.bus.is_blocked):
            return
        listeners = [egress for egress in self._egress.values() if egress.subscriber.is_block]
        for streams in self._streams_heard.alive(self.bus.streams, now_s):
            for egress in listeners:
                if egress.subscriber.is_live:
                    egress.send_control(StreamsAlive(streams=streams))

    def _watch_backpressure(self) -> None:
        is_blocked = self.bus.is_blocked
        if is_blocked == self._was_blocked:
            return
        self._was_blocked = is_blocked
        log_event(log_ids.RUNBUS_BACKPRESSURE, is_blocked=is_blocked)
        if is_blocked:
            self._poller.unregister(self._ingress)
        else:
            self._poller.register(self._ingress, zmq.POLLIN)
