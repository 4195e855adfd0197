"""What `runlane run` says: the name it gives a run, and, at the end, what became of it."""

import re
import shutil
import sys
from pathlib import Path

from runlane.actors.store_reader import list_runs
from runlane.config.errors import StoreError
from runlane.config.settings import Settings
from runlane.transport.endpoint import database_of

_MODULE = re.compile(r"[^\W\d]\w*(\.\w+)*")


def name_of(command: list[str]) -> str:
    """A readable name for a command: its script, its module, or the file that an interpreter is given."""
    program, *rest = command
    is_installed = shutil.which(Path(program).name) is not None  # one of the user's own is what is run
    for part, behind in zip(command, [*rest, ""], strict=True):
        if part == "-m" and _MODULE.fullmatch(behind):
            return behind.removesuffix(".__main__").rpartition(".")[2]
        is_given = part is not program and is_installed and not part.startswith("-") and Path(part).is_file()
        if part.endswith(".py") or is_given:
            return Path(part).stem
    return Path(program).stem or program


def print_run(settings: Settings, run_id: str, code: int, *, is_drained: bool, is_hooking: bool, jsonl: str) -> None:
    """Say what is stored of a run, on standard error; and what to do where that is nothing."""
    try:
        found = [row for row in list_runs(database_of(settings)) if row.run == run_id and row.workers]
    except StoreError as error:  # as when the graph, reached by TCP, keeps its database elsewhere
        sys.stderr.write(f"runlane: run {run_id} ended; its rows cannot be read from here: {error}\n")
        return
    for row in found:
        sys.stderr.write(
            f"runlane: run {row.run} {row.state}: {row.steps} steps, {row.episodes} episodes stored in "
            f"{database_of(settings)}\n"
        )
    if not found:
        remedy = remedy_of_nothing(code, is_hooking=is_hooking, jsonl=jsonl)
        sys.stderr.write(f"runlane: run {run_id} recorded nothing: {remedy}\n")
    if not is_drained:
        sys.stderr.write("runlane: not everything was committed in time; see the logs in the data directory\n")


def remedy_of_nothing(code: int, *, is_hooking: bool, jsonl: str) -> str:
    """Why a run may have recorded nothing, and what to do: one that failed says itself why."""
    if code:
        return f"the command ended with code {code}"
    if jsonl:
        return f"the command wrote no JSON line to {jsonl}"
    by_hand = "let the script call runlane.workers.wrap(env) or attach()"
    if not is_hooking:
        return f"drop --no-hook, or {by_hand}"
    return f"`runlane run --dry -- COMMAND` says what would be hooked; or {by_hand}"
