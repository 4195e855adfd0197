"""VirtualDisplay: an X server without a screen, for engines that draw only where there is a display.

Its own process with a display number of its own, reached by a socket of this host and a key of ours alone. It ends with
us, whatever ends us, and removes its lock and socket as it does.
"""

import contextlib
import os
import secrets
import select
import shutil
import signal
import struct
import subprocess
from collections.abc import Generator
from pathlib import Path

from runlane.config.errors import GraphError
from runlane.workers.engine_program import bound

START_S = 20.0
END_S = 5.0
_KEY_NAME = b"MIT-MAGIC-COOKIE-1"
_ANY_HOST = 0xFFFF


@contextlib.contextmanager
def virtual_display(directory: Path, screen: str = "640x480x24") -> Generator[dict[str, str]]:
    """Run one; gives the variables by which a program reaches it. Raises `GraphError` where there is none to start."""
    program = shutil.which("Xvfb")
    if program is None:
        raise GraphError("no DISPLAY is set, and no Xvfb is here to make one: apt-get install xvfb")
    key_file = directory / "display-key"
    key_file.write_bytes(_key(secrets.token_bytes(16)))
    key_file.chmod(0o600)
    told, tells = os.pipe()
    command = [program, "-displayfd", str(tells), "-screen", "0", screen, "-nolisten", "tcp", "-auth", str(key_file)]
    with (directory / "display.log").open("wb") as log:
        process = subprocess.Popen(
            bound(command, signal.SIGTERM),  # on SIGTERM it tidies up
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            pass_fds=(tells,),
            start_new_session=True,  # Ctrl-C is for the engine
        )
    os.close(tells)
    try:
        number = _number(told)
        if not number:
            problem = (directory / "display.log").read_text("utf-8", "replace").strip()[-200:]
            raise GraphError(
                f"Xvfb does not start ({problem or 'it says nothing'}); set DISPLAY to a display that works"
            )
        yield {"DISPLAY": f":{number}", "XAUTHORITY": str(key_file)}
    finally:
        os.close(told)
        process.terminate()
        try:
            process.wait(END_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _number(told: int) -> str:
    """The display number, once the server can be reached; empty where it ends before."""
    if not select.select([told], [], [], START_S)[0]:
        return ""
    return os.read(told, 16).decode("ascii", "replace").strip()


def _key(secret: bytes) -> bytes:
    """An Xauthority file of one entry, for any host: family; then address, number, name, key, each with its length."""
    parts = (b"", b"", _KEY_NAME, secret)
    return struct.pack(">H", _ANY_HOST) + b"".join(struct.pack(">H", len(part)) + part for part in parts)
