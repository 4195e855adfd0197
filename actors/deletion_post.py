"""The way of a deletion through the router: from whoever asks to the DB writer, and its answer back.

The router keeps nothing of it: the question carries the asker's address. What gets lost is asked again.
"""

import msgspec

from runlane.actors.egress import Egress
from runlane.config.errors import WireError
from runlane.transport.messages import RunDelete, RunDeletion
from runlane.transport.sockets import Socket, send_control

NO_WRITER = "the DB writer is not connected, or has no room for a question; try again in a moment"


def pass_on(message: RunDelete | RunDeletion, peer: bytes, control: Socket, writer: Egress | None) -> None:
    """Pass a question on to the DB writer, in the order of deliveries, or an answer to who asked. Never waits."""
    if isinstance(message, RunDeletion):
        try:
            send_control(control, message, bytes.fromhex(message.asker))
        except ValueError:
            raise WireError("invalid", f"asker {message.asker!r}") from None
        return
    question = msgspec.structs.replace(message, asker=peer.hex())
    if writer is None or not writer.subscriber.is_live or not writer.send_control(question):
        send_control(control, RunDeletion(asker=question.asker, refused=NO_WRITER, is_final=False), peer)
