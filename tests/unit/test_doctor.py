"""doctor: what would not work is found before it does not work, with what mends it."""

import shutil
import sys
from collections.abc import Mapping
from pathlib import Path

import msgspec
import pytest

from runlane import doctor
from runlane.actors.store import Store
from runlane.config.settings import DbWriterSettings, Settings
from runlane.transport.endpoint import RoleLock, database_of, make_run_dir
from runlane.transport.graph_client import GraphClient
from runlane.transport.messages import ChildStatus, Status
from runlane.window_check import WINDOW_LIBRARIES, missing_libraries


@pytest.fixture(autouse=True)
def _qt_is_not_started(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> None:  # pyright: ignore[reportUnusedFunction]
    """It takes a second, and one test is about it."""
    if "starts_qt" not in request.fixturenames:
        monkeypatch.setattr(doctor, "_qt_problem", _nothing)


def _nothing(_environment: Mapping[str, str]) -> str:
    return ""


@pytest.fixture
def starts_qt() -> None:
    """Let it start."""


def _with_run_dir(settings: Settings, run_dir: Path) -> Settings:
    transport = msgspec.structs.replace(settings.transport, run_dir=str(run_dir))
    return msgspec.structs.replace(settings, transport=transport)


# ---- the whole -------------------------------------------------------------------------------------------


def test_a_good_machine_has_no_failure(settings: Settings) -> None:
    """Where these tests run, runlane runs; every finding that asks for something says what."""
    checks = doctor.examine(settings)
    assert [check for check in checks if check.state == "fail"] == []
    assert all(check.remedy for check in checks if check.state != "ok")
    assert len({check.name for check in checks}) == len(checks)


def test_nothing_is_left_behind(settings: Settings, short_dir: Path) -> None:
    """Looking makes no directory, no database, no file."""
    before = sorted(short_dir.rglob("*"))
    doctor.examine(settings)
    assert sorted(short_dir.rglob("*")) == before


def test_the_exit_code_tells_a_failure(settings: Settings, capsys: pytest.CaptureFixture[str]) -> None:
    """1 when something fails, 0 otherwise; each remedy is printed."""
    assert doctor.print_doctor(settings) == 0
    database_of(settings).parent.mkdir(parents=True)
    database_of(settings).write_text("no database at all, but long enough to be taken for one" * 50)
    assert doctor.print_doctor(settings) == 1
    assert "1 fail" in capsys.readouterr().out


def test_a_check_that_breaks_is_a_finding(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    """A doctor that dies helps nobody."""

    def broken(_settings: Settings) -> doctor.Check:
        raise RuntimeError("surprise")

    monkeypatch.setattr(doctor, "check_run_dir", broken)
    (found,) = [check for check in doctor.examine(settings) if check.name == "run directory"]
    assert (found.state, found.detail) == ("fail", "cannot be checked: RuntimeError: surprise")


# ---- software --------------------------------------------------------------------------------------------


def test_an_old_python_fails() -> None:
    """3.11 is the oldest."""
    assert doctor.check_python((3, 10, 9)).state == "fail"
    assert doctor.check_python((3, 11, 0)).state == "ok"


def test_a_missing_library_fails_and_names_the_command() -> None:
    """What we import must be there."""
    check = doctor.check_library("msgpack", None)
    assert (check.state, check.remedy) == ("fail", "pip install --upgrade runlane")
    assert doctor.installed_version("no-such-distribution-of-ours") is None


@pytest.mark.parametrize(
    ("version", "state"),
    [("3.40.1", "warn"), ("3.51.2", "warn"), ("3.51.3", "ok"), ("3.52.0", "warn"), ("3.52.1", "ok"), ("3.54.1", "ok")],
)
def test_the_wal_reset_bug_is_named(version: str, state: str) -> None:
    """Fixed in 3.51.3; 3.52.0 was withdrawn."""
    check = doctor.check_sqlite("1", version)
    assert check.state == state
    assert version in check.detail


def test_gymnasium_is_optional() -> None:
    """Without it only the demo and `wrap()` are missed."""
    check = doctor.check_gymnasium(None)
    assert (check.state, check.remedy) == ("warn", 'pip install "runlane[gymnasium]"')


@pytest.mark.parametrize(
    ("version", "python", "state"),
    [
        (None, (3, 11), "ok"),
        ("6.12.0", (3, 11), "warn"),
        ("6.12.0", (3, 10), "warn"),
        ("6.12.0", (3, 12), "ok"),
        ("6.12.1", (3, 11), "ok"),
        ("6.11.0", (3, 11), "ok"),
    ],
)
def test_the_bad_pair_of_pyside_and_python_is_known(version: str | None, python: tuple[int, int], state: str) -> None:
    """6.12.0 before 3.12 aborts; either alone is well."""
    assert doctor.check_pyside(version, python).state == state


@pytest.mark.parametrize(
    ("version", "pyside", "state"), [("0.14.0", "6.11.0", "ok"), (None, None, "ok"), (None, "6.11.0", "warn")]
)
def test_half_of_the_window_is_named(version: str | None, pyside: str | None, state: str) -> None:
    """PySide6 without pyqtgraph opens no window; neither is nobody's fault."""
    check = doctor.check_pyqtgraph(version, pyside)
    assert check.state == state
    assert bool(check.remedy) == (state == "warn")


def test_missing_libraries_of_qt_are_named_with_the_command_that_installs_them() -> None:
    """Each package once."""
    missing = ["libEGL.so.1", "libxcb-cursor.so.0"]
    check = doctor.check_window("6.11.0", missing, has_display=True, problem="")
    assert (check.state, check.remedy) == ("warn", "sudo apt-get install libegl1 libxcb-cursor0")
    assert "libEGL.so.1, libxcb-cursor.so.0" in check.detail


def _none(_soname: str) -> bool:
    return False


def test_without_a_display_nothing_of_x11_is_asked_for() -> None:
    """Offscreen needs six libraries."""
    assert len(missing_libraries(has_display=False, is_there=_none)) == 6
    assert set(missing_libraries(has_display=True, is_there=_none)) == set(WINDOW_LIBRARIES)


def test_what_qt_itself_says_is_passed_on() -> None:
    """It may want more than is known here."""
    check = doctor.check_window("6.11.0", [], has_display=False, problem="could not load libfoo")
    assert (check.state, "libfoo" in check.detail) == ("warn", True)
    assert doctor.check_window("6.11.0", [], has_display=False, problem="").state == "ok"
    assert doctor.check_window(None, [], has_display=True, problem="").state == "ok"


def test_the_system_loader_is_asked() -> None:
    """As Qt asks it."""
    assert doctor.is_loadable("libc.so.6")
    assert not doctor.is_loadable("libno-such-library.so.9")


@pytest.mark.usefixtures("starts_qt")
def test_looking_at_qt_loads_none_of_it_here(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    """A doctor must not die of what it looks for: Qt starts in a process of its own, and its last words are told."""

    def found(_name: str) -> str:
        return "6.11.0"

    before = {name for name in sys.modules if name.startswith("PySide6")}
    monkeypatch.setattr(doctor, "installed_version", found)
    monkeypatch.setattr(doctor, "is_loadable", bool)
    (check,) = [check for check in doctor.examine(settings) if check.name == "window"]
    assert check.state in ("ok", "warn")
    assert {name for name in sys.modules if name.startswith("PySide6")} == before


# ---- machine ---------------------------------------------------------------------------------------------


def test_one_processor_is_a_warning() -> None:
    """Telemetry then takes its time from the training."""
    assert [doctor.check_processors(count).state for count in (1, 2)] == ["warn", "ok"]


def test_little_disk_is_told_in_time() -> None:
    """Under 100 MB nothing can run; under 1 GB not for long."""
    assert [doctor.check_disk(free).state for free in (1 << 20, 500 << 20, 5 << 30)] == ["fail", "warn", "ok"]


def test_shared_memory_may_be_missing_or_small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Either is told; frames then lie elsewhere."""
    assert doctor.check_shared_memory(tmp_path / "none", tmp_path).state == "warn"
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _path: usage._replace(free=1 << 20))  # type: ignore[misc]
    assert "--shm-size" in doctor.check_shared_memory(tmp_path, tmp_path).remedy


def test_a_network_file_system_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A write-ahead log there is not safe."""
    mounts = tmp_path / "mounts"
    mounts.write_text(f"server:/export {tmp_path} nfs4 rw 0 0\n")
    monkeypatch.setattr("runlane.actors.store_file._PROC_MOUNTS", mounts)
    check = doctor.check_file_system(tmp_path / "runlane.db")
    assert check.state == "fail"
    assert "nfs4" in check.detail
    assert "local disk" in check.remedy


def test_a_memory_file_system_is_a_warning(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It works, and is gone after a reboot."""
    mounts = tmp_path / "mounts"
    mounts.write_text(f"tmpfs {tmp_path} tmpfs rw 0 0\n")
    monkeypatch.setattr(doctor, "_MOUNTS", mounts)
    assert doctor.check_file_system(tmp_path / "runlane.db").state == "warn"


def test_a_data_directory_that_cannot_be_written_fails() -> None:
    """Root may write anywhere but here."""
    check = doctor.check_data_dir(Path("/proc/runlane"))
    assert check.state == "fail"
    assert "data_dir" in check.remedy


# ---- run directory ---------------------------------------------------------------------------------------


def test_a_run_directory_open_to_others_fails(settings: Settings, run_dir: Path) -> None:
    """Whoever can write there can take our sockets."""
    make_run_dir(settings).chmod(0o755)
    check = doctor.check_run_dir(settings)
    assert check.state == "fail"
    assert f"chmod 700 {run_dir}" in check.remedy
    run_dir.chmod(0o700)


def test_leftovers_of_the_dead_are_removed_and_named(settings: Settings, run_dir: Path) -> None:
    """A lock nobody holds is what `kill -9` leaves."""
    make_run_dir(settings)
    (run_dir / "router.lock").write_text("1\n")
    check = doctor.check_run_dir(settings)
    assert check.state == "ok"
    assert "router.lock" in check.detail
    assert not run_dir.exists()


def test_locks_of_the_living_are_left_alone(settings: Settings, run_dir: Path) -> None:
    """A doctor disturbs no graph."""
    with RoleLock(make_run_dir(settings), "router"):
        assert "router.lock" not in doctor.check_run_dir(settings).detail
        assert (run_dir / "router.lock").exists()


def test_a_path_too_long_for_sockets_fails(settings: Settings, short_dir: Path) -> None:
    """A unix socket path ends at 107 bytes."""
    check = doctor.check_run_dir(_with_run_dir(settings, short_dir / ("x" * 100)))
    assert check.state == "fail"
    assert "run_dir" in check.remedy


# ---- database --------------------------------------------------------------------------------------------


def test_no_database_is_no_fault(tmp_path: Path) -> None:
    """The first run makes it."""
    assert doctor.check_database(tmp_path / "runlane.db").state == "ok"


def test_a_database_of_ours_is_checked(tmp_path: Path) -> None:
    """Version and pages."""
    Store(tmp_path / "runlane.db", DbWriterSettings()).close()
    check = doctor.check_database(tmp_path / "runlane.db")
    assert check.state == "ok"
    assert "schema version 4, quick check ok" in check.detail


def test_a_large_database_is_not_read_through(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A doctor answers within seconds."""
    Store(tmp_path / "runlane.db", DbWriterSettings()).close()
    monkeypatch.setattr(doctor, "LARGEST_CHECKED_BYTES", 1)
    assert "too large" in doctor.check_database(tmp_path / "runlane.db").detail


def test_a_damaged_database_fails(tmp_path: Path) -> None:
    """Bytes overwritten in the middle of the file are found."""
    path = tmp_path / "runlane.db"
    Store(path, DbWriterSettings()).close()
    content = bytearray(path.read_bytes())
    content[4096:8192] = b"\xff" * 4096
    path.write_bytes(content)
    assert doctor.check_database(path).state == "fail"


# ---- graph -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("restarts", "state"), [(0, "ok"), (2, "warn")])
def test_a_running_graph_is_described(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, restarts: int, state: str
) -> None:
    """Restarts are worth a look into the logs."""
    child = ChildStatus(
        name="router", kind="router", state="running", pid=2, restarts=restarts, heartbeat_age_s=0.1,
        exit_code=None, statistics={},
    )  # fmt: skip
    status = Status(pid=77, uptime_s=5.0, data_dir="/d", run_dir="/r", state="running", children=[child])

    def answer(_client: GraphClient) -> Status:
        return status

    monkeypatch.setattr(GraphClient, "status", answer)
    (found,) = [check for check in doctor.examine(settings) if check.name == "graph"]
    assert found.state == state
    assert "pid 77" in found.detail
