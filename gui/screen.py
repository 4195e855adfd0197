"""Where the view of `runlane demo` goes: redrawn in place on a terminal, a line now and then anywhere else."""

from types import TracebackType
from typing import IO, Protocol, Self

from rich.console import Console
from rich.live import Live

from runlane.gui.run_view import RunView
from runlane.gui.terminal_view import plain_line, render
from runlane.transport.messages import Status

PLAIN_INTERVAL_S = 2.0
LIVE_INTERVAL_S = 0.2


class Screen(Protocol):
    """Where the view goes. `interval_s` is how often it is worth calling `show`."""

    interval_s: float

    def show(self, view: RunView, status: Status | None, now_s: float) -> None:
        """Draw the view as it stands."""
        ...

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


class LiveScreen:
    """Redraws in place; the last picture stays when it ends."""

    interval_s = LIVE_INTERVAL_S

    def __init__(self, console: Console) -> None:
        self._console = console
        self._live = Live(console=console, auto_refresh=False, vertical_overflow="crop")

    def show(self, view: RunView, status: Status | None, now_s: float) -> None:
        """Draw in the terminal's present size."""
        width, height = self._console.size
        self._live.update(render(view, status, now_s, width, height - 1), refresh=True)

    def __enter__(self) -> Self:
        self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._live.stop()


class PlainLines:
    """Writes a line now and then: for a log, a pipe, or a terminal that knows no cursor."""

    interval_s = PLAIN_INTERVAL_S

    def __init__(self, stream: IO[str]) -> None:
        self._stream = stream

    def show(self, view: RunView, status: Status | None, now_s: float) -> None:
        """Write the line, at once."""
        self._stream.write(plain_line(view, status, now_s) + "\n")
        self._stream.flush()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        return


def screen_for(console: Console) -> Screen:
    """A live view where the terminal can draw one, plain lines otherwise."""
    can_draw = console.is_terminal and not console.is_dumb_terminal and not console.options.ascii_only
    return LiveScreen(console) if can_draw else PlainLines(console.file)
