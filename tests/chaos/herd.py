"""The processes of one arena: found by a mark in their environment, told apart by their command lines.

Whoever their parent is now, and whether a supervisor that could be asked still lives, the mark is inherited.
"""

import contextlib
import os
import random
import signal
import time
from collections.abc import Iterable

import psutil

MARK = "CHAOS_MARK"  # not `RUNLANE_…`: that would be a setting
KILL_S = 5.0

Process = psutil.Process


class Herd:
    """Finds, stops, continues and kills by mark. Kills nothing that does not carry it."""

    def __init__(self) -> None:
        """A new mark, which nothing carries yet."""
        self.mark = os.urandom(8).hex()

    def by_role(self) -> dict[str, list[Process]]:
        """Living processes by role; what is none of the roles is under its own command."""
        found: dict[str, list[Process]] = {}
        for process in self.alive():
            with contextlib.suppress(psutil.Error):
                found.setdefault(role_of(process.cmdline()), []).append(process)
        return found

    def alive(self) -> list[Process]:
        """Every process that carries the mark; a zombie has no environment any more."""
        found: list[Process] = []
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error, OSError):
                if process.pid != os.getpid() and process.environ().get(MARK) == self.mark:
                    found.append(process)
        return found

    def pick(self, roles: Iterable[str], dice: random.Random) -> list[Process]:
        """One living process of each role, in no order; fewer where one is not there. No roles: all of them."""
        by_role = self.by_role()
        if not roles:
            chosen = [process for processes in by_role.values() for process in processes]
        else:
            chosen = [dice.choice(by_role[role]) for role in roles if role in by_role]
        dice.shuffle(chosen)
        return chosen

    def sweep(self) -> list[str]:
        """Kill whatever is left, and say what it was."""
        left = [" ".join(_command(process)) for process in self.alive()]
        end_s = time.monotonic() + KILL_S
        while (alive := self.alive()) and time.monotonic() < end_s:
            strike(alive, signal.SIGKILL)
            time.sleep(0.02)  # between two looks; a process that is being killed may have forked just before
        return left


def strike(processes: Iterable[Process], signum: signal.Signals) -> None:
    """Send a signal to all of them, as close together as a loop can. psutil refuses a pid that is another's now."""
    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.send_signal(signum)


def role_of(command: list[str]) -> str:
    """Role of a process of the graph; a worker's guard is not its worker."""
    if any(part.endswith("guard.py") for part in command):
        return "guard"
    if "chaos.oracle_worker" in command or "chaos.sudden_worker" in command:
        return "worker"
    if "runlane" not in command:
        return " ".join(command[:4])
    words = command[command.index("runlane") + 1 :]
    if words[:1] == ["up"]:
        return "supervisor"
    return words[1] if words[:1] == ["actor"] and len(words) > 1 else words[0] if words else "runlane"


def _command(process: Process) -> list[str]:
    try:
        return [str(process.pid), *process.cmdline()]
    except psutil.Error:
        return [str(process.pid), "(gone)"]
