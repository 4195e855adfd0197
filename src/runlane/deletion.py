"""`runlane delete`: take a run out of the database, by the graph that is running, or else in its DB writer's place."""

import math
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack, closing

from runlane.actors.deletion_desk import DeletionDesk
from runlane.actors.orphans import journals_dir
from runlane.actors.retention import Retention
from runlane.actors.run_videos import RunVideos
from runlane.actors.store import Store
from runlane.actors.store_file import open_readonly
from runlane.actors.video_file import VIDEO_DIR
from runlane.config.errors import StoreError
from runlane.config.names import DB_WRITER
from runlane.config.settings import RetentionSettings, Settings
from runlane.transport.clock import SystemClock
from runlane.transport.endpoint import RoleLock, data_dir_of, database_of, make_run_dir, sweep_run_dir
from runlane.transport.graph_client import GraphClient
from runlane.transport.log import configure_log
from runlane.transport.messages import RunDelete, RunDeletion

LOOK_S = 0.1  # between two looks at how far it is
TELL_S = 2.0
PATIENCE_S = 15.0  # with a graph whose DB writer is being restarted


def delete(settings: Settings, run: str, confirm: Callable[[str], bool]) -> int:
    """Delete the run that `run` means, if `confirm` says yes to what it is; returns the exit code.

    Raises a `RunlaneError` that says why not. Interrupted, it goes on with the graph, or with the next one.
    """
    configure_log("delete", "CRITICAL")  # what is wrong is told below, once
    with GraphClient(settings) as client:

        def ask(text: str, *, only_ask: bool) -> RunDeletion:
            found = client.delete_run(text, only_ask=only_ask, timeout_s=PATIENCE_S)
            return found or delete_offline(settings, text, only_ask=only_ask)

        found = ask(run, only_ask=True)
        if found.state == "removed":
            _say(f"run {_title(found)} was removed before; the view `retention` says what of it")
            return 0
        if found.state == "found" and not confirm(_question(found)):
            _say("nothing is deleted")
            return 1
        done = _follow(found.run, ask)
    _say(f"run {_title(done)} is deleted: {_counts(done)}")
    if done.videos:
        sys.stderr.write(f"runlane: {_videos(done)} of it cannot be removed from {_videos_of(settings)}\n")
    elif found.videos:
        _say(f"and {_videos(found)} of it")
    return 1 if done.videos else 0


def delete_offline(settings: Settings, run: str, *, only_ask: bool) -> RunDeletion:
    """The same in the place of a DB writer, to the end; raises `EndpointError` or `StoreError` beside a living one."""
    database = database_of(settings)
    open_readonly(database).close()  # there must be one: a writer would make it
    clock = SystemClock()
    videos = RunVideos(data_dir_of(settings) / VIDEO_DIR)
    run_dir = make_run_dir(settings)
    with ExitStack() as stack:
        stack.callback(sweep_run_dir, run_dir)
        stack.enter_context(RoleLock(run_dir, DB_WRITER))
        store = stack.enter_context(closing(Store(database, settings.db_writer, clock)))
        retention = Retention(store, RetentionSettings(), clock, videos)
        desk = DeletionDesk(store, retention, videos, journals_dir(settings), clock)
        question = RunDelete(run=run, only_ask=only_ask)
        answer = desk.answer(question, math.inf)
        if answer.state == "removing" and not only_ask:
            retention.do_work(is_idle=True)  # also of one that a writer killed half way has left
            while retention.has_work:
                retention.do_work(is_idle=True)
            answer = desk.answer(RunDelete(run=answer.run), math.inf)
            if answer.state == "removing":
                raise StoreError(
                    f"{database}: rows of run {answer.run} could not be removed; free some space, try again"
                )
    if answer.refused:
        raise StoreError(answer.refused)
    return answer


def _follow(run: str, ask: Callable[..., RunDeletion]) -> RunDeletion:
    """Ask until nothing is left of it; says how far it is from time to time."""
    next_word_s = time.monotonic() + TELL_S
    while True:
        found = ask(run, only_ask=False)
        if found.state == "removed":
            return found
        if time.monotonic() >= next_word_s:
            next_word_s += TELL_S
            sys.stderr.write(f"runlane: {sum(found.rows.values())} rows of run {run} are gone so far\n")
        time.sleep(LOOK_S)


def _question(found: RunDeletion) -> str:
    videos = f" and {_videos(found)}" if found.videos else ""
    return f"Delete run {_title(found)}: {found.steps} steps, {found.episodes} episodes{videos}?"


def _title(found: RunDeletion) -> str:
    return f"{found.run} ({found.name})" if found.name else found.run


def _counts(done: RunDeletion) -> str:
    return ", ".join(f"{rows} {name} rows" for name, rows in done.rows.items() if rows) or "it had no rows"


def _videos(found: RunDeletion) -> str:
    return f"{found.videos} video{'s' if found.videos != 1 else ''}"


def _videos_of(settings: Settings) -> str:
    return str(data_dir_of(settings) / VIDEO_DIR)


def _say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
