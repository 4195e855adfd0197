"""Spools that nobody reads any more: what programs of other languages had written when all around them was killed."""

import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

from runlane.actors.topology import settings_environment
from runlane.config import names
from runlane.config.settings import Settings
from runlane.transport.endpoint import data_dir_of
from runlane.transport.spool import UNREADABLE_CODE, is_program_alive, orphan_spools, set_aside, sweep_half_made
from runlane.workers.foreign_program import progress_of, start_bridge

LOOK_S = 0.05
LOG = "spools.log"


def adopt_spools(settings: Settings, settings_arguments: list[str], wait_s: float = 0.0) -> None:
    """Have what spools of dead launchers hold made into journals, which a graph stores by itself.

    Programs may be alive, then their bridges stay as long as they. Of dead ones this waits at most `wait_s` for. What
    the bridges have to say goes to `LOG`.
    """
    until_s = time.monotonic() + wait_s
    sweep_half_made(settings, time.time())
    for directory, info in list(orphan_spools(settings)):
        logs = data_dir_of(settings) / names.LOG_DIR
        logs.mkdir(parents=True, exist_ok=True)
        before = progress_of(directory)
        with (logs / LOG).open("ab") as log:
            bridge = start_bridge(directory, orphan_environment(settings, settings_arguments), log=log)
        watch = threading.Thread(target=_see_to, args=(bridge, directory, before), daemon=True)
        watch.start()
        while not is_program_alive(directory, info) and watch.is_alive() and time.monotonic() < until_s:
            time.sleep(LOOK_S)


def _see_to(bridge: "subprocess.Popen[bytes]", directory: Path, before: int) -> None:
    """Leave no zombie; and a spool that cannot be read on is not tried again by each command that comes."""
    if bridge.wait() == UNREADABLE_CODE and progress_of(directory) == before:
        sys.stderr.write(f"runlane: {directory}: cannot be read on, see {LOG}; kept in {set_aside(directory)}\n")


def store_spools(settings: Settings, settings_arguments: list[str], say: Callable[[str], object]) -> bool:
    """As `adopt_spools`, of dead programs, one by one to its end, with a word on each; False when one fails."""
    is_well = True
    sweep_half_made(settings, time.time())
    for directory, info in list(orphan_spools(settings)):
        whose = f"spool {directory.name}: worker {info.worker} of run {info.run}"
        if is_program_alive(directory, info):
            say(f"{whose}: its program is alive; `runlane up` reads what it writes")
            continue
        say(f"{whose}: its lines are recorded now")
        code, before = UNREADABLE_CODE, -2
        while code == UNREADABLE_CODE and before != (before := progress_of(directory)):
            code = start_bridge(directory, orphan_environment(settings, settings_arguments)).wait()
        is_well = is_well and not code
        if code == UNREADABLE_CODE:
            say(f"{whose}: it cannot be read on; what is left is kept in {set_aside(directory)}")
        elif code:
            say(f"{whose}: the bridge failed with code {code}; what is left stays in {directory}")
    return is_well


def orphan_environment(settings: Settings, settings_arguments: list[str]) -> dict[str, str]:
    """For a bridge without a proxy: nobody empties its journal while it works, so that has no quota."""
    own = {name: value for name, value in os.environ.items() if name not in names.CONTEXT_VARIABLES}
    unbounded = {"RUNLANE_JOURNAL__QUOTA_BYTES": str(1 << 50), "RUNLANE_SESSION__CLOSE_S": "0.2"}
    return {**own, **settings_environment(settings, settings_arguments), **unbounded}
