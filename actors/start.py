"""Which name starts which actor: `runlane actor NAME`."""

import difflib
import os

from runlane.actors.runner import run_actor
from runlane.config.errors import SettingsError
from runlane.config.names import DB_WRITER, ENV_KEEPER, ENV_RUN, ENV_RUN_NAME, RECORDER, RECOVERY, ROUTER
from runlane.config.settings import Settings, check_name
from runlane.transport.clock import SystemClock
from runlane.transport.identity import new_run_id

NAMES = (ROUTER, DB_WRITER, "proxy", RECOVERY, RECORDER)
ROUTER_DRAIN_S = 2.0
WRITER_DRAIN_S = 3.0
RECORDER_DRAIN_S = 1.5


def start_actor(name: str, worker: str, settings: Settings) -> int:
    """Run the named actor until it is told to stop; returns the exit code. Raises `SettingsError` for no name."""
    if name == ROUTER:
        from runlane.actors.router import RouterActor

        return run_actor(RouterActor(settings), settings, drain_s=ROUTER_DRAIN_S)
    if name == DB_WRITER:
        from runlane.actors.db_writer import DbWriterActor

        return run_actor(DbWriterActor(settings), settings, drain_s=WRITER_DRAIN_S)
    if name == "proxy":
        from runlane.actors.proxy import ProxyActor

        check_name(worker, "worker")
        run = os.environ.get(ENV_RUN) or new_run_id(SystemClock().wall_ns())
        run_name = os.environ.get(ENV_RUN_NAME, "")
        proxy = ProxyActor(settings, worker, run, run_name, _pid(os.environ.get(ENV_KEEPER, "")))
        return run_actor(proxy, settings, drain_s=settings.proxy.drain_s)
    if name == RECOVERY:
        from runlane.actors.recovery import RecoveryActor

        return run_actor(RecoveryActor(settings), settings, drain_s=settings.proxy.drain_s)
    if name == RECORDER:
        from runlane.actors.recorder import RecorderActor

        return run_actor(RecorderActor(settings), settings, drain_s=RECORDER_DRAIN_S)
    close = difflib.get_close_matches(name, NAMES, n=1)
    raise SettingsError(
        "actor", name, "is no actor", f"did you mean {close[0]}" if close else f"choose from {', '.join(NAMES)}"
    )


def _pid(text: str) -> int:
    return int(text) if text.isascii() and text.isdigit() else 0
