"""StreamSender: one stream's way from its proxy to the router over a DEALER.

Says hello first, sends what the `AckWindow` holds, goes back when told, says goodbye after the last ack.
No socket of its own: the owner gives a function that sends frames without waiting.
"""

from collections.abc import Callable, Sequence

from runlane.transport.ack import AckWindow
from runlane.transport.messages import (
    ControlMessage,
    StreamAck,
    StreamBye,
    StreamHello,
    StreamInfo,
    StreamNack,
    StreamWelcome,
)
from runlane.transport.wire import Frame, encode_control

# Tries to hand frames to the socket without waiting; False when its window is full or no peer is there.
Send = Callable[[Sequence[Frame]], bool]

KEEPALIVE_S = 0.5
ANSWER_S = 1.0


class StreamSender:
    """Sender's half of the stream protocol. Time is an argument, in monotonic seconds."""

    def __init__(self, info: StreamInfo, window: AckWindow, send: Send) -> None:
        """`window` holds the batches; its `oldest_seq` is what a new receiver will expect."""
        self.info = info
        self.window = window
        self.receiver = ""
        self._send = send
        self._told_schemas = -1
        self._is_asking = False
        self._next_hello_s = 0.0
        self._is_closed = False
        self.high_seq: Callable[[], int] = lambda: 0  # the source's newest record, where it is further than the window

    def pump(self, now_s: float) -> int:
        """Say what is due and send what can be sent; returns how many batches went out."""
        if now_s >= self._next_hello_s:
            self._told_schemas = -1
        if self._told_schemas < len(self.info.schemas) and not self._hello(now_s):
            return 0
        sent = 0
        while (batch := self.window.next_unsent()) is not None and self._send(batch.frames):
            self.window.mark_sent()
            sent += 1
        return sent

    def _hello(self, now_s: float) -> bool:
        """Announce the stream as it is now. Also the keep-alive that finds batches lost on the way."""
        info = self.info  # read once: the owner may announce new schemas from another thread at any moment
        hello = StreamHello(
            info=info,
            oldest_seq=self.window.oldest_seq,
            sent_seq=self.window.sent_seq,
            high_seq=max(self.high_seq(), self.window.last_seq),
        )
        if not self._send([encode_control(hello)]):
            return False
        self._told_schemas = len(info.schemas)
        # Until it is answered, ask again only after a while: a receiver under backpressure reads late.
        self._next_hello_s = now_s + ANSWER_S
        return True

    def on_message(self, message: ControlMessage, now_s: float) -> bool:
        """Take the receiver's word on this stream; returns whether batches will be sent again."""
        if isinstance(message, StreamAck):
            self.window.on_ack(message.seq)
            return False
        if isinstance(message, StreamNack):
            if message.expected_seq == 0:  # it does not know us: introduce ourselves, it will say what it expects
                self._next_hello_s = now_s
                return False
            return self.window.rewind(message.expected_seq)
        if isinstance(message, StreamWelcome):
            self.receiver = message.receiver
            self._next_hello_s = now_s + KEEPALIVE_S
            return self.window.on_welcome(message.expected_seq, message.sent_seq)
        return False

    def begin_anew(self) -> None:
        """Have the receiver forget the stream, and introduce it again from the oldest seq we hold."""
        self._send([encode_control(StreamBye(stream=self.info.stream))])
        self.receiver = ""
        self._next_hello_s = 0.0

    def say_bye(self) -> bool:
        """After the final ack: the stream is over. Returns whether that has left."""
        if not self._is_closed and not self.window.pending_records:
            self._is_closed = self._send([encode_control(StreamBye(stream=self.info.stream))])
        return self._is_closed
