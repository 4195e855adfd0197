"""What an actor is: three calls, and figures. Production loops it (`runner.py`), a test calls it by hand."""

from typing import Any, Protocol


class Actor(Protocol):
    """One process's work. `on_start` binds, `do_work` does a bounded piece, `on_close` frees everything."""

    @property
    def name(self) -> str:
        """Name under which it reports and logs."""
        ...

    def on_start(self) -> None:
        """Bind and open; raise a `RunlaneError` when that is impossible."""
        ...

    def do_work(self, timeout_s: float) -> None:
        """Wait at most `timeout_s` for something to do, then do a bounded piece of it."""
        ...

    def request_stop(self) -> None:
        """Begin to drain: take nothing new, finish what was accepted."""
        ...

    def is_drained(self) -> bool:
        """Whether, after `request_stop`, nothing accepted is left to do."""
        ...

    def statistics(self) -> dict[str, Any]:
        """Figures for the heartbeat, plain types only."""
        ...

    def on_close(self) -> None:
        """Close every socket, file and lock. Called once, also after an error."""
        ...
