"""Forwarder: the relays of one process, its own streams, and the one socket to the router they share.

Used by a worker's proxy and by the recovery, which differ only in which journals they drain. Decides when a stream
has ended and in which state, by the worker's own last word, by what the supervisor says of its exit, or by its death.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from runlane.actors.own_stream import OwnStream
from runlane.actors.relay import Relay
from runlane.config import log_ids
from runlane.config.errors import EndpointError, JournalError, WireError
from runlane.config.names import INGRESS_SOCKET
from runlane.config.settings import Settings
from runlane.transport.clock import Clock
from runlane.transport.endpoint import endpoint_of, is_role_alive
from runlane.transport.journal_layout import READER_ROLE
from runlane.transport.log import log_event
from runlane.transport.messages import (
    ControlMessage,
    StreamAck,
    StreamBye,
    StreamInfo,
    StreamNack,
    StreamRefused,
    StreamWelcome,
)
from runlane.transport.sockets import Context, Rejections, Socket, connect_dealer, receive_frames, send_frames
from runlane.transport.stream_sender import StreamSender
from runlane.transport.wire import Frame, decode_control, encode_control

ROUTER_BURST = 256
SOCKET_HWM = 32
# After a worker's death, how long the supervisor or a launcher has to say how it ended.
EXIT_PATIENCE_S = 2.0
BUSY_RETRY_S = 1.0
DAMAGED_RETRY_S = 60.0


class Forwarder:
    """Relays by stream id. `is_exit_known` and `is_exit_told` are for a proxy that hears how its worker ended."""

    def __init__(
        self,
        settings: Settings,
        clock: Clock,
        exit_patience_s: float = EXIT_PATIENCE_S,
        on_done: Callable[[Relay], None] | None = None,
    ) -> None:
        """Nothing is connected before `start`. `on_done` is called before a drained journal is removed."""
        self._exit_patience_s = exit_patience_s
        self._on_done = on_done
        self.settings = settings
        self.clock = clock
        self.relays: dict[bytes, Relay] = {}
        self.rejections = Rejections({})
        self.records_acked = 0
        self.damaged: list[str] = []
        self.unreadable: set[Path] = set()
        self.is_exit_known = False
        self.is_exit_told = False
        self._own: dict[tuple[str, str], OwnStream] = {}
        self._retry_at_s: dict[Path, float] = {}

    # ---- life ----

    def start(self, context: Context) -> Socket:
        """Connect to the router; the socket is the caller's to poll, and `close` closes it."""
        endpoint = endpoint_of(self.settings, INGRESS_SOCKET)
        self.socket: Socket = connect_dealer(context, endpoint, SOCKET_HWM, self.settings.transport)
        return self.socket

    def close(self) -> None:
        """Let every journal go, with what it still holds, and the router too: it need not wait for us to stop."""
        for relay in self.relays.values():
            if hasattr(self, "socket"):
                self._send([encode_control(StreamBye(stream=relay.info.stream))])
            relay.close()
        self.relays.clear()
        if hasattr(self, "socket"):
            self.socket.close(100)

    def open(self, directory: Path, info: StreamInfo | None = None) -> Relay | None:
        """Begin to drain a journal; None when somebody else does, or nobody can. Tried again after a while."""
        now_s = self.clock.monotonic_s()
        if now_s < self._retry_at_s.get(directory, 0.0):
            return None
        if is_role_alive(directory, READER_ROLE):  # a recovery that took over, or a proxy that came back
            self._retry_at_s[directory] = now_s + BUSY_RETRY_S
            return None
        try:
            relay = Relay(directory, info, self.settings, self._send, self.clock)
        except EndpointError:  # this very moment
            return None
        except (JournalError, OSError) as error:
            self._retry_at_s[directory] = now_s + DAMAGED_RETRY_S
            log_event(log_ids.JOURNAL_DAMAGED, journal=directory, error=str(error))
            self.damaged.append(str(error))
            self.unreadable.add(directory)
            return None
        self._retry_at_s.pop(directory, None)
        self.relays[bytes.fromhex(relay.info.stream)] = relay
        return relay

    def own(self, run: str, run_name: str, worker: str) -> OwnStream:
        """Our own stream about a worker of a run."""
        key = (run, worker)
        if key not in self._own:
            self._own[key] = OwnStream(self.settings, run, run_name, worker, self._send, self.clock)
        return self._own[key]

    # ---- work ----

    def advance(self, now_s: float) -> None:
        """Everything that is due, of every stream."""
        for relay in self.relays.values():
            relay.advance(now_s)
        for own in self._own.values():
            own.sender.pump(now_s)
        self._end_streams(now_s)

    def read_router(self) -> None:
        """Take the router's answers."""
        for _ in range(ROUTER_BURST):
            frames = receive_frames(self.socket)
            if frames is None:
                return
            try:
                self._on_message(decode_control(frames[0]))
            except WireError as error:
                self.rejections.reject(error, "router")

    def _on_message(self, message: ControlMessage) -> None:
        if not isinstance(message, StreamAck | StreamNack | StreamWelcome | StreamRefused):
            raise WireError("unexpected", f"{type(message).__name__} from router")
        now_s = self.clock.monotonic_s()
        relay = self.relays.get(bytes.fromhex(message.stream))
        if relay is not None:
            self.records_acked += relay.on_message(message, now_s)
            return
        for own in self._own.values():
            if own.sender.info.stream == message.stream:
                own.sender.on_message(message, now_s)

    def _send(self, frames: Sequence[Frame]) -> bool:
        return send_frames(self.socket, frames)

    # ---- ends ----

    def _end_streams(self, now_s: float) -> None:
        """Remove the journals of streams that are over, once the database knows how they ended."""
        for key, relay in list(self.relays.items()):
            if relay.is_done and self._is_end_told(relay, now_s) and relay.sender.say_bye():
                log_event(log_ids.PROXY_STREAM_CLOSED, stream=key.hex(), last_seq=relay.window.last_seq)
                if self._on_done is not None:
                    self._on_done(relay)
                relay.finish()
                del self.relays[key]

    def _is_end_told(self, relay: Relay, now_s: float) -> bool:
        info = relay.info
        if relay.end_seq is None:
            drops = relay.untold_drops()
            is_silent = not relay.is_closed and not self.is_exit_known
            if is_silent and now_s - (relay.dead_since_s or now_s) < self._exit_patience_s:
                return False
            if not relay.is_closed and self.is_exit_known and not self.is_exit_told:
                return False
            if is_silent or drops or relay.damage is not None:
                own = self.own(info.run, info.run_name, info.worker)
                for kind, records in drops.items():
                    own.tell_drop(kind, "untold", records)
                if relay.damage is not None:
                    self.damaged.append(str(relay.damage))
                    own.tell_drop("", "journal_damaged", relay.damage.last_seq - relay.damage.seq + 1)
                if is_silent:
                    own.tell_state("killed", stream=info.stream, exit_code=None, reason="lease")
            known = self._own.get((info.run, info.worker))
            relay.end_seq = known.last_seq if known is not None else 0
        known = self._own.get((info.run, info.worker))
        return known is None or known.has_committed(relay.end_seq)

    @property
    def is_idle(self) -> bool:
        """Whether no journal is left and everything we had to say ourselves is committed."""
        return not self.relays and all(own.has_committed(own.last_seq) for own in self._own.values())

    def say_bye(self) -> bool:
        """The last word on our own streams; returns whether it has left. Only when idle."""
        return all(own.sender.say_bye() for own in self._own.values())

    # ---- figures ----

    @property
    def pending_records(self) -> int:
        """Records in journals that are not acked, as far as is known."""
        return sum(relay.pending_records for relay in self.relays.values())

    def statistics(self) -> dict[str, Any]:
        """Figures for the heartbeat."""
        windows = [sender.window for sender in self._senders()]
        return {
            "streams": len(self.relays),
            "records_acked": self.records_acked,
            "unacked_records": self.pending_records,
            "unacked_bytes": sum(window.size_bytes for window in windows),
            "rewinds": sum(window.rewinds for window in windows),
            "damaged_journals": len(self.damaged),
            "rejected": dict(self.rejections.by_reason),
        }

    def _senders(self) -> list[StreamSender]:
        return [relay.sender for relay in self.relays.values()] + [own.sender for own in self._own.values()]
