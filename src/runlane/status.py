"""`runlane status`: the supervisor's word about its children, and where asked for the router's accounts."""

import json
from typing import Any, NamedTuple

import msgspec

from runlane.config.errors import GraphError
from runlane.config.settings import Settings
from runlane.transport.graph_client import NOT_RUNNING, GraphClient
from runlane.transport.messages import Status, SubscriberAccount


class GraphStatus(NamedTuple):
    """A graph at one moment. `accounts` is None where nobody asked for them, or the router did not answer."""

    status: Status
    accounts: list[dict[str, Any]] | None

    def json(self) -> str:
        """The supervisor's message as JSON, and the accounts beside its own fields."""
        return json.dumps({**msgspec.to_builtins(self.status), "accounts": self.accounts}, indent=2)


def graph_status(settings: Settings, *, with_accounts: bool) -> GraphStatus:
    """Ask the running graph; raises `GraphError` when none is running. A router that is silent is no error."""
    with GraphClient(settings) as client:
        status = client.status()
        if status is None:
            raise GraphError(NOT_RUNNING.format(settings.data_dir))
        found = client.accounts() if with_accounts else None
    return GraphStatus(status, None if found is None else [account_dict(account) for account in found])


def account_dict(account: SubscriberAccount) -> dict[str, Any]:
    """An account by name, with its `balance`, which is 0 when the account adds up."""
    return {
        "subscriber": account.subscriber,
        "run": account.run,
        "stream": account.stream,
        "published": account.published,
        "delivered": account.delivered,
        "queued": account.queued,
        "dropped": dict(account.dropped),
        "balance": account.balance,
        "first_seq": account.first_seq,
        "last_seq": account.last_seq,
    }
