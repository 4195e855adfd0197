"""Spools that nobody reads any more: what programs of other languages had written when all around them was killed."""

import os
import threading
import time
from collections.abc import Callable

from runlane.actors.topology import settings_environment
from runlane.config import names
from runlane.config.settings import Settings
from runlane.transport.spool import is_program_alive, orphan_spools, sweep_half_made
from runlane.workers.foreign_program import start_bridge

LOOK_S = 0.05


def adopt_spools(settings: Settings, settings_arguments: list[str], wait_s: float = 0.0) -> None:
    """Have what spools of dead launchers hold made into journals, which a graph stores by itself.

    Programs may be alive, then their bridges stay as long as they. Of dead ones this waits at most `wait_s` for.
    """
    until_s = time.monotonic() + wait_s
    sweep_half_made(settings, time.time())
    for directory, info in list(orphan_spools(settings)):
        bridge = start_bridge(directory, orphan_environment(settings, settings_arguments))
        threading.Thread(target=bridge.wait, daemon=True).start()  # so that it leaves no zombie
        while not is_program_alive(directory, info) and bridge.poll() is None and time.monotonic() < until_s:
            time.sleep(LOOK_S)


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
        code = start_bridge(directory, orphan_environment(settings, settings_arguments)).wait()
        if code:
            is_well = False
            say(f"{whose}: the bridge failed with code {code}; what is left stays in {directory}")
    return is_well


def orphan_environment(settings: Settings, settings_arguments: list[str]) -> dict[str, str]:
    """For a bridge without a proxy: nobody empties its journal while it works, so that has no quota."""
    own = {name: value for name, value in os.environ.items() if name not in names.CONTEXT_VARIABLES}
    unbounded = {"RUNLANE_JOURNAL__QUOTA_BYTES": str(1 << 50), "RUNLANE_SESSION__CLOSE_S": "0.2"}
    return {**own, **settings_environment(settings, settings_arguments), **unbounded}
