"""Endpoints: a private run directory, one holder per role, and a sweep that never touches the living."""

import os
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import pytest

from runlane.config.errors import EndpointError
from runlane.config.names import CONTROL_SOCKET, INGRESS_SOCKET, SUPERVISOR_SOCKET
from runlane.config.settings import Settings, TransportSettings
from runlane.transport.endpoint import (
    MAX_IPC_PATH,
    RoleLock,
    data_dir_of,
    database_of,
    endpoint_of,
    ipc_endpoint,
    make_run_dir,
    run_dir_of,
    sweep_run_dir,
    unlink_socket,
)

# Takes a lock, says so, and holds it until its standard input ends or it is killed.
HOLDER = """
import sys
from pathlib import Path
from runlane.transport.endpoint import RoleLock
lock = RoleLock(Path(sys.argv[1]), sys.argv[2])
print("held", flush=True)
sys.stdin.read()
lock.release()
"""

StartHolder = Callable[[Path, str], "subprocess.Popen[str]"]


@pytest.fixture
def start_holder() -> Iterator[StartHolder]:
    """Start a process that holds a role's lock; all of them are gone at the end."""
    started: list[subprocess.Popen[str]] = []

    def start(directory: Path, role: str) -> "subprocess.Popen[str]":
        process = subprocess.Popen(
            [sys.executable, "-c", HOLDER, str(directory), role],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        started.append(process)
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


def _make_socket(path: Path) -> None:
    """A socket file with nobody behind it, as a killed process leaves one."""
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))


def _with_run_dir(settings: Settings, path: Path) -> Settings:
    transport = TransportSettings(run_dir=str(path))
    return msgspec.structs.replace(settings, transport=transport)


# ---- the run directory -----------------------------------------------------------------------------------


def test_the_run_directory_is_private(settings: Settings) -> None:
    """Mode 700, whatever the umask: who can write there can write into the run."""
    before = os.umask(0)
    try:
        path = make_run_dir(settings)
    finally:
        os.umask(before)
    assert path.stat().st_mode & 0o777 == 0o700
    assert make_run_dir(settings) == path


def test_a_run_directory_others_can_read_is_refused(settings: Settings, run_dir: Path) -> None:
    """It is never mended in silence: whoever opened it may have put something there."""
    run_dir.mkdir(mode=0o755)
    run_dir.chmod(0o755)
    with pytest.raises(EndpointError, match="mode 755"):
        make_run_dir(settings)


@pytest.mark.skipif(os.getuid() != 0, reason="only root can give a directory away")
def test_a_run_directory_of_another_user_is_refused(settings: Settings, run_dir: Path) -> None:
    """Private to somebody else is not private."""
    run_dir.mkdir(mode=0o700)
    os.chown(run_dir, 12_345, 12_345)
    with pytest.raises(EndpointError, match="belongs to uid 12345"):
        make_run_dir(settings)


def test_a_default_run_directory_below_one_that_others_can_write_is_refused(
    short_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who owns the directory above could put another in our place."""
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(short_dir))
    settings = Settings(data_dir=str(short_dir / "data"))
    parent = run_dir_of(settings).parent
    assert make_run_dir(settings).parent == parent
    assert parent.stat().st_mode & 0o777 == 0o700
    parent.chmod(0o777)
    with pytest.raises(EndpointError, match="mode 777"):
        make_run_dir(settings)


def test_a_link_in_place_of_the_run_directory_is_refused(settings: Settings, run_dir: Path, short_dir: Path) -> None:
    """Whoever made it may turn it elsewhere later."""
    (short_dir / "elsewhere").mkdir(mode=0o700)
    run_dir.symlink_to(short_dir / "elsewhere")
    with pytest.raises(EndpointError, match="run directory"):
        make_run_dir(settings)


def test_a_file_in_place_of_the_run_directory_is_an_error_of_ours(settings: Settings, run_dir: Path) -> None:
    """The remedy stands in the text."""
    run_dir.write_text("")
    with pytest.raises(EndpointError, match=r"set transport\.run_dir"):
        make_run_dir(settings)


def test_each_data_directory_has_its_own_run_directory(monkeypatch: pytest.MonkeyPatch) -> None:
    """By default two graphs of one user meet only when they share their data directory."""
    monkeypatch.setenv("XDG_RUNTIME_DIR", "/run/user/1")
    paths = [run_dir_of(Settings(data_dir=name)) for name in ("/a", "/b", "/a")]
    assert paths[0] == paths[2] != paths[1]
    assert paths[0].is_relative_to("/run/user/1")


def test_directories_are_absolute_before_anybody_changes_directory(
    short_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A relative data directory means: below where the command is run."""
    monkeypatch.chdir(short_dir)
    settings = Settings(data_dir="d", transport=TransportSettings(run_dir="r"))
    assert data_dir_of(settings) == short_dir / "d"
    assert run_dir_of(settings) == short_dir / "r"
    assert database_of(settings) == short_dir / "d" / "runlane.db"


# ---- endpoints -------------------------------------------------------------------------------------------


def test_a_path_too_long_for_a_unix_socket_is_refused(settings: Settings) -> None:
    """107 bytes are taken, 108 are refused with what to do; bytes count, not letters."""
    directory = "/tmp/"
    room = MAX_IPC_PATH - len(directory) - len("/x.ipc")
    fits = _with_run_dir(settings, Path(directory + "d" * room))
    assert len(ipc_endpoint(fits, "x").removeprefix("ipc://")) == MAX_IPC_PATH
    with pytest.raises(EndpointError, match="has 108 bytes"):
        ipc_endpoint(fits, "xx")
    with pytest.raises(EndpointError, match=r"set transport\.run_dir"):
        ipc_endpoint(_with_run_dir(settings, Path(directory + "d" * (room - 1) + "ä")), "x")


def test_a_role_has_the_same_endpoint_in_every_process(settings: Settings, run_dir: Path) -> None:
    """It follows from the settings alone: a file per role, or a port counted from the first."""
    roles = (SUPERVISOR_SOCKET, INGRESS_SOCKET, CONTROL_SOCKET)
    assert [endpoint_of(settings, role) for role in roles] == [f"ipc://{run_dir}/{role}.ipc" for role in roles]
    tcp = msgspec.structs.replace(settings, transport=TransportSettings(kind="tcp", port=7_000))
    assert [endpoint_of(tcp, role) for role in roles] == [f"tcp://127.0.0.1:{7_000 + offset}" for offset in range(3)]


def test_only_a_socket_is_unlinked(short_dir: Path) -> None:
    """A file that happens to have the name stays; nothing there, and tcp, are no errors."""
    dead, precious = short_dir / "dead.ipc", short_dir / "precious.ipc"
    _make_socket(dead)
    precious.write_text("precious")
    for endpoint in (f"ipc://{dead}", f"ipc://{dead}", f"ipc://{precious}", "tcp://127.0.0.1:1"):
        unlink_socket(endpoint)
    assert not dead.exists()
    assert precious.read_text() == "precious"


# ---- one holder per role ---------------------------------------------------------------------------------


def test_a_lock_is_taken_once(short_dir: Path) -> None:
    """The second taker is refused with the pid of the first, even inside one process."""
    with (
        RoleLock(short_dir, "router") as lock,
        pytest.raises(EndpointError, match=rf"router is running already \(pid {os.getpid()},"),
    ):
        RoleLock(short_dir, "router")
    assert not lock.path.exists()


def test_a_living_process_keeps_its_lock(short_dir: Path, start_holder: StartHolder) -> None:
    """Another process is refused with the holder's pid; other roles are free."""
    holder = start_holder(short_dir, "router")
    with pytest.raises(EndpointError, match=rf"pid {holder.pid},"):
        RoleLock(short_dir, "router")
    RoleLock(short_dir, "proxy").release()


def test_a_dead_processes_lock_is_taken_over(short_dir: Path, start_holder: StartHolder) -> None:
    """`kill -9` frees the role at once, though the file is still there."""
    holder = start_holder(short_dir, "router")
    holder.kill()
    holder.wait()
    path = short_dir / "router.lock"
    assert path.read_text() == f"{holder.pid}\n"
    with RoleLock(short_dir, "router"):
        assert path.read_text() == f"{os.getpid()}\n"


def test_releasing_twice_is_harmless(short_dir: Path) -> None:
    """The second release does not remove the lock of whoever came after."""
    lock = RoleLock(short_dir, "router")
    lock.release()
    with RoleLock(short_dir, "router") as successor:
        lock.release()
        assert successor.path.exists()


def test_a_lock_is_not_inherited(short_dir: Path) -> None:
    """A child that outlives its parent must not keep the parent's role."""
    lock = RoleLock(short_dir, "router")
    with subprocess.Popen([sys.executable, "-c", "import sys; sys.stdin.read()"], stdin=subprocess.PIPE):
        lock.release()
        RoleLock(short_dir, "router").release()


# ---- the sweep -------------------------------------------------------------------------------------------


def test_the_sweep_removes_dead_roles_only(short_dir: Path, start_holder: StartHolder) -> None:
    """Sockets go with their role: `router+in` is the dead router's, `proxy-a` is alive and keeps all."""
    dead = start_holder(short_dir, "router")
    start_holder(short_dir, "proxy-a")
    dead.kill()
    dead.wait()
    for name in ("router+in.ipc", "router+gui-2.ipc", "proxy-a.ipc", "db_writer.ipc"):
        _make_socket(short_dir / name)
    assert sorted(sweep_run_dir(short_dir)) == ["db_writer.ipc", "router+gui-2.ipc", "router+in.ipc", "router.lock"]
    assert sorted(path.name for path in short_dir.iterdir()) == ["proxy-a.ipc", "proxy-a.lock"]


def test_the_last_one_out_removes_the_directory(run_dir: Path) -> None:
    """An empty run directory is removed, one that is gone already is no error."""
    run_dir.mkdir()
    _make_socket(run_dir / "router+in.ipc")
    assert sweep_run_dir(run_dir) == ["router+in.ipc"]
    assert not run_dir.exists()
    assert sweep_run_dir(run_dir) == []


def test_the_sweep_leaves_what_is_not_ours(short_dir: Path) -> None:
    """Other files stay, and the directory with them."""
    (short_dir / "notes.txt").write_text("mine")
    assert sweep_run_dir(short_dir) == []
    assert (short_dir / "notes.txt").read_text() == "mine"


def test_the_sweep_leaves_a_role_of_this_very_process(short_dir: Path) -> None:
    """The supervisor sweeps while it holds its own lock."""
    with RoleLock(short_dir, "supervisor"):
        _make_socket(short_dir / "supervisor.ipc")
        assert sweep_run_dir(short_dir) == []
        assert (short_dir / "supervisor.ipc").exists()


def test_a_sweep_leaves_what_is_not_ours(run_dir: Path) -> None:
    """The run directory may be one that the user named: only our roles' locks and sockets are ever removed."""
    run_dir.mkdir(mode=0o700)
    foreign = [run_dir / name for name in ("precious.txt", "other.sock", "notes.ipc", "router.toml")]
    for path in foreign:
        path.write_text("mine")
    strange = run_dir / "router.lock"
    strange.write_text("a lock of another program")
    assert sweep_run_dir(run_dir) == []
    assert all(path.read_text() == "mine" for path in foreign)
    assert strange.exists()
    strange.unlink()
    (run_dir / "notes.ipc").unlink()
