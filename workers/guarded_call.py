"""never_raising: calls that are made inside a stranger's training, and must not stop it."""

import functools
from collections.abc import Callable
from typing import Any, TypeVar, cast

from runlane.config import log_ids
from runlane.transport.log import log_event

Call = TypeVar("Call", bound=Callable[..., None])


def never_raising(call: Call) -> Call:
    """A method that never raises: what it would is counted in `faults` of its object, and the first told."""

    @functools.wraps(call)
    def guarded(owner: Any, *arguments: Any, **options: Any) -> None:
        try:
            call(owner, *arguments, **options)
        except Exception as error:
            owner.faults += 1
            if owner.faults == 1:
                shown = f"{type(error).__name__}: {error}"
                log_event(log_ids.WORKER_FAULT, where=call.__name__, error=shown, count=1)

    return cast("Call", guarded)
