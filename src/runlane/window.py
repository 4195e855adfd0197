"""`runlane gui`: the window as a process of its own. Here meet the window, which knows no actor, and the database.

What this machine lacks for a window is found out before Qt is asked: Qt itself would abort the process.
"""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import msgspec

from runlane.actors.return_curve import return_curve
from runlane.actors.sql import SqlValue
from runlane.actors.store_reader import list_runs, query
from runlane.config.errors import SettingsError, StoreError, WindowError
from runlane.config.settings import Settings
from runlane.transport.endpoint import database_of
from runlane.window_check import check_window


class Store:
    """The database as the window asks it. For one background thread at a time."""

    def __init__(self, path: Path) -> None:
        """Opened anew for every question, so that no transaction outlives one."""
        self.path = path

    def runs(self) -> list[dict[str, Any]]:
        """As `StoreSource.runs`."""
        return [msgspec.to_builtins(row) for row in list_runs(self.path)]

    def curve(self, run: str, points: int) -> dict[str, Any]:
        """As `StoreSource.curve`."""
        found: dict[str, Any] = msgspec.to_builtins(return_curve(self.path, run, points))
        return found

    def query(self, sql: str, bindings: Sequence[SqlValue] = ()) -> tuple[tuple[str, ...], list[tuple[Any, ...]]]:
        """As `StoreSource.query`."""
        return query(self.path, sql, bindings)

    def size(self) -> tuple[int, int]:
        """As `StoreSource.size`; zeros where there is no file."""
        wal = self.path.with_name(f"{self.path.name}-wal")
        return _bytes_of(self.path), _bytes_of(wal)


class RemoteStore(Store):
    """In the place of a database that is on another host."""

    def __init__(self, endpoint: str) -> None:
        super().__init__(Path())
        self._endpoint = endpoint

    def query(self, sql: str, bindings: Sequence[SqlValue] = ()) -> tuple[tuple[str, ...], list[tuple[Any, ...]]]:  # noqa: ARG002
        """Not from here."""
        raise self._error()

    def runs(self) -> list[dict[str, Any]]:
        """Not from here."""
        raise self._error()

    def curve(self, run: str, points: int) -> dict[str, Any]:  # noqa: ARG002
        """Not from here."""
        raise self._error()

    def size(self) -> tuple[int, int]:
        """Unknown."""
        return 0, 0

    def _error(self) -> StoreError:
        return StoreError(f"what is stored lies on the host of {self._endpoint}; ask there, with `runlane runs`")


def run_window(settings: Settings, run: str = "", connect: str = "", options: Sequence[str] = ()) -> int:
    """Open the window and stay until it is closed; returns the exit code.

    `connect` is another graph, as of `connected_to`; `options` are those that gave the settings. Raises `WindowError`
    where there can be no window.
    """
    check_window(os.environ)
    try:
        from runlane.gui.app import Application, quiet_qt
    except ImportError as error:
        raise WindowError(f"Qt cannot be loaded: {error}; `runlane doctor` names what to install") from None
    quiet_qt()
    if not connect:
        return Application(settings, Store(database_of(settings)), options=options).run(run)
    elsewhere = connected_to(settings, connect)
    is_remote = elsewhere.transport != settings.transport
    store = RemoteStore(connect) if is_remote else Store(database_of(elsewhere))
    return Application(elsewhere, store, options=[*options, "--set", f"data_dir={elsewhere.data_dir}"]).run(run)


def connected_to(settings: Settings, endpoint: str) -> Settings:
    """Settings for the graph at `tcp://HOST:PORT` (its `transport.port`), or of a data directory.

    Of a graph over TCP nothing that lies on this host is taken for its own: neither rings, nor logs, nor a database.
    """
    if "://" not in endpoint:
        if not Path(endpoint).is_dir():
            raise SettingsError("--connect", endpoint, "is neither tcp://HOST:PORT nor a directory", "give one of them")
        return msgspec.structs.replace(settings, data_dir=str(Path(endpoint).absolute()))
    parts = urlsplit(endpoint)
    try:
        port = parts.port
    except ValueError:
        port = None
    if parts.scheme != "tcp" or not parts.hostname or port is None:
        raise SettingsError("--connect", endpoint, "is no tcp://HOST:PORT", "write tcp://127.0.0.1:5610, say")
    transport = msgspec.structs.replace(settings.transport, kind="tcp", host=parts.hostname, port=port)
    place = Path(settings.data_dir, f"remote-{parts.hostname}-{port}").absolute()
    transport = msgspec.structs.replace(transport, run_dir=None)
    return msgspec.structs.replace(settings, transport=transport, data_dir=str(place))


def _bytes_of(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0
