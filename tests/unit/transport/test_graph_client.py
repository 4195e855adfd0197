"""Asking a router for its accounts: all of them, or an answer that says there is none."""

import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from typing import Any

import pytest
import zmq

from runlane.config.errors import GraphError
from runlane.config.names import CONTROL_SOCKET, ROUTER
from runlane.config.settings import Settings
from runlane.transport.endpoint import RoleLock, endpoint_of, make_run_dir, unlink_socket
from runlane.transport.graph_client import GraphClient
from runlane.transport.messages import (
    Accounts,
    AccountsRequest,
    ControlMessage,
    RunDelete,
    RunDeletion,
    SubscriberAccount,
)
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


# ---- deleting a run ----------------------------------------------------------------------------------------


def test_without_a_graph_there_is_nobody_to_delete_a_run(client: GraphClient) -> None:
    """None, at once: a command then does it itself."""
    assert client.delete_run("R") is None


def deletion(**fields: Any) -> list[bytes]:
    return [encode_control(RunDeletion(asker="00", **fields))]


@pytest.fixture
def _with_supervisor(monkeypatch: pytest.MonkeyPatch) -> None:  # pyright: ignore[reportUnusedFunction]
    """A supervisor answers; what is tested here is the talk with the router."""

    def status(_client: GraphClient, _timeout_s: float) -> str:
        return "up"

    monkeypatch.setattr(GraphClient, "status", status)


@pytest.mark.usefixtures("_with_supervisor")
def test_a_deletion_is_asked_for_once_and_answered_as_it_stands(settings: Settings, client: GraphClient) -> None:
    """Accepted is an answer; who wants the end asks again."""
    parts = deletion(run="R", state="removing", rows={"step": 3})
    with closing(FakeRouter(settings, lambda _: parts)) as router:
        answer = client.delete_run("ppo", timeout_s=DEADLINE_S)
    assert router.asked == [RunDelete(run="ppo", only_ask=False)]
    assert answer is not None
    assert (answer.run, answer.state, answer.rows) == ("R", "removing", {"step": 3})


@pytest.mark.usefixtures("_with_supervisor")
@pytest.mark.parametrize(
    ("answer", "part"),
    [
        (deletion(refused="run R is running"), "run R is running"),
        (deletion(refused="no DB writer", is_final=False), "no DB writer"),
        ([b"?"], "cannot be read"),
        ([], "did not answer"),
    ],
)
def test_a_deletion_that_is_refused_or_not_answered_is_an_error(
    settings: Settings, client: GraphClient, answer: list[bytes], part: str
) -> None:
    """With the reason the graph gave, or that there was none."""
    with closing(FakeRouter(settings, lambda _: answer)), pytest.raises(GraphError, match=part):
        client.delete_run("R", timeout_s=0.3)
