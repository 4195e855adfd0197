"""The rival of bench_bus: `zmq.proxy` between a PULL and a PUB over unix sockets, and nothing else.

`python bus_forwarder.py IN OUT HWM`: two endpoints. A PUB, and no XPUB: what an XPUB has to say of its subscriptions
could not be passed on to a PULL. Ends when standard input does.
"""

import os
import sys
import threading

import zmq


def main(endpoint_in: str, endpoint_out: str, hwm: int) -> None:
    """Forward until the end of the process."""
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    pull, pub = context.socket(zmq.PULL), context.socket(zmq.PUB)
    pull.setsockopt(zmq.RCVHWM, hwm)
    pub.setsockopt(zmq.SNDHWM, hwm)
    pull.bind(endpoint_in)
    pub.bind(endpoint_out)
    threading.Thread(target=_end_with_input, daemon=True).start()
    zmq.proxy(pull, pub)


def _end_with_input() -> None:
    sys.stdin.read()
    os._exit(0)  # `zmq.proxy` cannot be asked to return


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]))
