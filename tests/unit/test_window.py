"""`runlane gui` before Qt: what is missing is said, what to connect to is understood."""

import sys
from pathlib import Path

import pytest

from runlane.config.errors import SettingsError, StoreError, WindowError
from runlane.config.settings import Settings
from runlane.window import Store, connected_to
from runlane.window_check import can_open, check_window, has_display

LINUX = pytest.mark.skipif(sys.platform != "linux", reason="other systems have their display always")


@LINUX
def test_without_a_display_the_error_says_what_to_do_instead() -> None:
    """Qt itself would abort with a page of plugins."""
    with pytest.raises(WindowError, match=r"there is no display.*runlane watch"):
        check_window({})
    assert not can_open({})


def test_offscreen_needs_no_display_but_shows_nobody_anything() -> None:
    """As tests and screenshots use it; `make demo` does not open a window that nobody sees."""
    check_window({"QT_QPA_PLATFORM": "offscreen"})
    assert not can_open({"QT_QPA_PLATFORM": "offscreen"})


@LINUX
@pytest.mark.parametrize(("missing", "package"), [("PySide6", "PySide6"), ("pyqtgraph", "pyqtgraph")])
def test_a_missing_package_is_named_with_the_command_that_installs_it(
    missing: str, package: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The window is an extra: who trains on a cluster does not need it."""
    from runlane import window_check

    def find_spec(name: str) -> object | None:
        return None if name == missing else object()

    monkeypatch.setattr(window_check.importlib.util, "find_spec", find_spec)
    with pytest.raises(WindowError, match=rf'needs {package}.*pip install "runlane\[gui\]"'):
        check_window({"DISPLAY": ":0"})


@LINUX
def test_a_missing_library_that_qt_would_abort_without_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only under X11."""
    from runlane import window_check

    monkeypatch.setattr(window_check, "WINDOW_LIBRARIES", {"libxcb-not-there.so.0": "libxcb-not-there0"})
    with pytest.raises(WindowError, match=r"libxcb-not-there\.so\.0.*apt-get install libxcb-not-there0"):
        check_window({"DISPLAY": ":0"})
    check_window({"WAYLAND_DISPLAY": "wayland-0"})


@pytest.mark.parametrize(
    ("environment", "expected"), [({}, False), ({"DISPLAY": ":0"}, True), ({"WAYLAND_DISPLAY": "w"}, True)]
)
def test_a_display_is_x11_or_wayland(environment: dict[str, str], expected: bool) -> None:
    """An empty variable is none."""
    assert has_display(environment) is expected


def test_a_graph_on_another_host_is_named_by_its_endpoint(settings: Settings) -> None:
    """As `transport.host` and `transport.port` would."""
    found = connected_to(settings, "tcp://127.0.0.1:5999").transport
    assert (found.kind, found.host, found.port) == ("tcp", "127.0.0.1", 5999)


def test_a_graph_on_this_host_is_named_by_its_data_directory(settings: Settings, tmp_path: Path) -> None:
    """Wherever the command is run."""
    assert connected_to(settings, str(tmp_path)).data_dir == str(tmp_path)


@pytest.mark.parametrize("endpoint", ["udp://a:1", "tcp://127.0.0.1", "tcp://:5610", "tcp://a:port", "not/there"])
def test_an_endpoint_that_is_none_is_refused_by_name(settings: Settings, endpoint: str) -> None:
    """One error with what to write instead."""
    with pytest.raises(SettingsError, match="--connect"):
        connected_to(settings, endpoint)


def test_the_store_says_what_to_do_while_there_is_none(tmp_path: Path) -> None:
    """A window may be opened before the first run."""
    store = Store(tmp_path / "runlane.db")
    with pytest.raises(StoreError, match="runlane demo"):
        store.runs()
    assert store.size() == (0, 0)
