"""Asking a router for its accounts: all of them, or an answer that says there is none."""

import threading
from collections.abc import Callable, Iterator
from contextlib import closing

import pytest
import zmq

from runlane.config.names import CONTROL_SOCKET, ROUTER
from runlane.config.settings import Settings
from runlane.transport.endpoint import RoleLock, endpoint_of, make_run_dir, unlink_socket
from runlane.transport.graph_client import GraphClient
from runlane.transport.messages import Accounts, AccountsRequest, ControlMessage, SubscriberAccount
from runlane.transport.sockets import Context, bind_router
from runlane.transport.wire import decode_control, encode_control

DEADLINE_S = 10.0
Answer = Callable[[ControlMessage], list[bytes]]


class FakeRouter:
    """Holds the router's lock and socket, and answers one question, in a thread of its own."""

    def __init__(self, settings: Settings, answer: Answer) -> None:
        self.asked: list[ControlMessage] = []
        self._answer = answer
        self._endpoint = endpoint_of(settings, CONTROL_SOCKET)
        self._lock = RoleLock(make_run_dir(settings), ROUTER)
        self._context: Context = zmq.Context()
        self._socket = bind_router(self._context, self._endpoint, 100, settings.transport)
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        if self._socket.poll(int(DEADLINE_S * 1000)):
            peer, frame = self._socket.recv_multipart()
            self.asked.append(decode_control(frame))
            for part in self._answer(self.asked[0]):
                self._socket.send_multipart([peer, part])

    def close(self) -> None:
        """Once the question has come."""
        self._thread.join()
        self._context.destroy(linger=1000)
        unlink_socket(self._endpoint)
        self._lock.release()


@pytest.fixture
def client(settings: Settings) -> Iterator[GraphClient]:
    with GraphClient(settings) as opened:
        yield opened


def account(name: str) -> SubscriberAccount:
    return SubscriberAccount(name, "R", "0" * 32, 3, 1, 1, {"stale": 1}, 0, 3)


def part(*names: str, is_last: bool) -> bytes:
    accounts = [account(name) for name in names]
    return encode_control(Accounts(router="r", t_ns=1, accounts=accounts, is_last=is_last))


def test_accounts_in_parts_are_put_together(settings: Settings, client: GraphClient) -> None:
    """A graph may have more of them than a message may hold; all are asked for by an empty name."""
    parts = [part("a", "b", is_last=False), part("c", is_last=True)]
    with closing(FakeRouter(settings, lambda _: parts)) as router:
        assert client.accounts(DEADLINE_S) == [account("a"), account("b"), account("c")]
    assert router.asked == [AccountsRequest(name="")]


@pytest.mark.parametrize("answer", [[], [part("a", is_last=False)]])
def test_a_part_of_the_accounts_is_no_answer(settings: Settings, client: GraphClient, answer: list[bytes]) -> None:
    """Nor is silence, as of a router that is stopped."""
    with closing(FakeRouter(settings, lambda _: answer)):
        assert client.accounts(0.3) is None


def test_an_answer_nobody_can_read_is_none(settings: Settings, client: GraphClient) -> None:
    """As of another version."""
    with closing(FakeRouter(settings, lambda _: [b"\xff\xff"])):
        assert client.accounts(DEADLINE_S) is None


def test_without_a_router_nobody_waits(client: GraphClient) -> None:
    """Its lock tells, at once."""
    assert client.accounts(DEADLINE_S) is None
