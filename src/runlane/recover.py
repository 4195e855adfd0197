"""`runlane recover`: store what journals of dead processes still hold, now and with a word on each."""

import sys
import tempfile
import time
from pathlib import Path

from runlane.actors.orphans import (
    is_journal,
    is_worker_alive,
    journals_dir,
    mend_head,
    orphan_directories,
    sweep_half_made,
)
from runlane.actors.recovery import RecoveryActor, journal_of_segment
from runlane.actors.relay import Relay
from runlane.config.errors import JournalError
from runlane.config.names import JOURNAL_DIR
from runlane.config.settings import Settings
from runlane.foreign import store_spools
from runlane.launch import GraphProcess
from runlane.transport.endpoint import database_of, is_role_alive
from runlane.transport.graph_client import GraphClient
from runlane.transport.journal_layout import READER_ROLE, SEGMENT_SUFFIX
from runlane.transport.log import configure_log

WORK_S = 0.1
# Without any progress for so long something is wrong with the graph; what is left stays in the journals.
STUCK_S = 30.0


def recover(settings: Settings, settings_arguments: list[str], path: Path | None) -> int:
    """Drain the journals at `path`, or all under the data directory; returns the exit code: 0 when all is stored.

    Uses the graph that is running, or starts one meanwhile. Raises `JournalError` when `path` is no journal.
    """
    configure_log("recover", "CRITICAL")  # what is wrong is told below, once
    is_well = path is not None or store_spools(settings, settings_arguments, _say)
    with tempfile.TemporaryDirectory(prefix="runlane-recover-") as scratch:
        sweep_half_made(journals_dir(settings), time.time())
        sources = find_journals(path or journals_dir(settings), Path(scratch))
        ready = [source for source in sources if _is_ready(source)]
        if not ready:
            if not sources:
                _say(f"nothing to recover under {path or journals_dir(settings)}")
            return 0 if is_well else 1
        with GraphClient(settings) as client:
            is_ours = client.status() is None
        # A graph of ours leaves the journals to us: we have something to say of each.
        options = [*settings_arguments, "--set", "supervisor.recovers=false"]
        graph = GraphProcess(options, settings) if is_ours else None
        if graph is not None:
            graph.start(no_workers=True)
        try:
            return _drain(settings, ready, is_well=is_well)
        finally:
            if graph is not None:
                graph.stop()


def find_journals(path: Path, scratch: Path) -> list[Path]:
    """Journals at a path: a data directory, its `journals`, one of these, or a single segment file."""
    if path.is_file():
        if path.suffix != SEGMENT_SUFFIX:
            raise JournalError(f"{path}: a journal's segments are named *{SEGMENT_SUFFIX}; give one, or a directory")
        return [journal_of_segment(path, scratch)]
    if not path.is_dir():
        if path.name == JOURNAL_DIR:  # a data directory without one: nothing was ever left
            return []
        raise JournalError(f"{path}: there is no such file or directory")
    if is_journal(path):
        return [path]
    return orphan_directories(path) or orphan_directories(path / JOURNAL_DIR)


def _say(text: str) -> None:
    sys.stdout.write(f"{text}\n")


def _is_ready(directory: Path) -> bool:
    """Whether a journal is for us to drain; says why not."""
    if is_role_alive(directory, READER_ROLE):
        _say(f"{directory.name}: another process drains it already")
        return False
    mend_head(directory)
    is_alive = is_worker_alive(directory)  # of one that cannot be read at all the attempt will say what is wrong
    if is_alive:
        _say(f"{directory.name}: its worker is alive; a running graph drains it, start one with `runlane up`")
    return not is_alive


def _drain(settings: Settings, sources: list[Path], *, is_well: bool) -> int:
    """Drain the journals; returns the exit code. `is_well`: no spool was left."""
    actor = RecoveryActor(settings, sources, _report)
    try:
        actor.on_start()
        progress, since_s = -1, time.monotonic()
        while not actor.is_finished:
            actor.do_work(WORK_S)
            acked = int(actor.statistics()["records_acked"])
            if acked != progress:
                progress, since_s = acked, time.monotonic()
            elif time.monotonic() - since_s > STUCK_S:
                sys.stderr.write("runlane: the graph takes nothing; what is left stays in the journals, see its logs\n")
                return 1
    finally:
        actor.on_close()
    for message in actor.damaged:
        sys.stderr.write(f"runlane: {message}\n")
    if actor.damaged or not is_well:
        return 1
    _say(f"all is stored in {database_of(settings)}")
    return 0


def _report(relay: Relay) -> None:
    info = relay.info
    what = f"records up to seq {relay.window.last_seq} are stored" if relay.window.last_seq else "held no records"
    _say(f"{info.stream}: worker {info.worker} of run {info.run}: {what}")
