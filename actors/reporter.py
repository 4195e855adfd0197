"""An actor's line to its supervisor: heartbeats up, messages down, over one DEALER that never waits."""

from typing import Any

import zmq

from runlane.config import log_ids, names
from runlane.config.errors import WireError
from runlane.config.settings import Settings
from runlane.transport.endpoint import endpoint_of
from runlane.transport.log import log_event
from runlane.transport.messages import ControlMessage, Heartbeat
from runlane.transport.sockets import Context, Rejections, Socket, connect_dealer, receive_frames, send_control
from runlane.transport.wire import decode_control

SOCKET_HWM = 8
BURST = 16
RETRY_S = 0.01


class Reporter:
    """Owns its socket and its context, apart from the actor's. Lost heartbeats are normal, the next one counts."""

    def __init__(self, settings: Settings, name: str, pid: int) -> None:
        """`name` is the child's, as its supervisor knows it. The connection is made in the background."""
        self.rejections = Rejections({})
        self._name = name
        self._pid = pid
        self._interval_s = settings.supervisor.heartbeat_s
        self._due_s = 0.0
        self.has_reported = False
        self._context: Context = zmq.Context()
        endpoint = endpoint_of(settings, names.SUPERVISOR_SOCKET)
        self._socket: Socket = connect_dealer(self._context, endpoint, SOCKET_HWM, settings.transport)

    def is_due(self, now_s: float) -> bool:
        """Whether a heartbeat should be sent: at first, then every `heartbeat_s`."""
        return now_s >= self._due_s

    def beat(self, state: str, statistics: dict[str, Any], now_s: float) -> bool:
        """Send one; False when it could not leave (not connected yet), so that it is due again at once."""
        message = Heartbeat(name=self._name, pid=self._pid, state=state, statistics=statistics)
        is_sent = send_control(self._socket, message)
        self.has_reported = self.has_reported or is_sent
        self._due_s = now_s + (self._interval_s if is_sent else RETRY_S)
        return is_sent

    def say(self, message: ControlMessage) -> bool:
        """Send something else than a heartbeat; False when it could not leave now."""
        return send_control(self._socket, message)

    def receive(self) -> list[ControlMessage]:
        """What the supervisor sent since."""
        found: list[ControlMessage] = []
        for _ in range(BURST):
            frames = receive_frames(self._socket)
            if frames is None:
                break
            try:
                if len(frames) != 1:
                    raise WireError("frames", f"{len(frames)} from the supervisor")
                found.append(decode_control(frames[0]))
            except WireError as error:
                count = self.rejections.count(error)
                log_event(log_ids.WIRE_REJECTED, place="supervisor", reason=error.reason, count=count)
        return found

    def close(self) -> None:
        """Let go at once; an unsent heartbeat is not worth a wait."""
        self._socket.close(0)
        self._context.term()
