"""Whether a run may be deleted, and how far its deletion is. Asked by the DB writer, or by a command in its place."""

from pathlib import Path

from runlane.actors.deletion_rows import RunFacts
from runlane.actors.orphans import living_workers
from runlane.actors.retention import Retention
from runlane.actors.run_lookup import find_run
from runlane.actors.run_videos import RunVideos
from runlane.actors.store import Store
from runlane.actors.store_file import store_errors
from runlane.actors.store_reader import LOST_NS
from runlane.config.errors import StoreError
from runlane.transport.clock import Clock
from runlane.transport.messages import RunDelete, RunDeletion

# A router tells every second who is alive; after so long it has told of all that are.
LISTEN_S = LOST_NS / 1e9 + 1.0


class DeletionDesk:
    """Answers at once: what takes time `retention` does. To ask again about the same run is how to see it go on."""

    def __init__(self, store: Store, retention: Retention, videos: RunVideos, journals: Path, clock: Clock) -> None:
        """`journals` is where workers of this host keep theirs: one that is alive writes there without any graph."""
        self._store = store
        self._retention = retention
        self._videos = videos
        self._journals = journals
        self._clock = clock

    def answer(self, question: RunDelete, listened_s: float) -> RunDeletion:
        """What is asked for, or why not. `listened_s`: how long we have heard who is alive."""
        try:
            with store_errors(self._store.path):
                return self._answer(question, listened_s)
        except StoreError as error:
            return RunDeletion(asker=question.asker, refused=str(error))

    def _answer(self, question: RunDelete, listened_s: float) -> RunDeletion:
        run = find_run(self._store.deletions.connection, self._store.path, question.run)
        facts = self._facts(run)
        if not (facts.is_removed and not facts.is_begun):
            self._check(run, facts, listened_s)
            if not question.only_ask and not facts.is_begun:
                self._retention.delete(run)
                facts = self._facts(run)
        return RunDeletion(
            asker=question.asker,
            run=run,
            name=facts.name,
            state="removing" if facts.is_begun else "removed" if facts.is_removed else "found",
            steps=facts.steps,
            episodes=facts.episodes,
            videos=self._videos.count(facts.streams),
            rows=facts.rows,
        )

    def _facts(self, run: str) -> RunFacts:
        return self._store.deletions.facts(run, self._clock.wall_ns() - LOST_NS)

    def _check(self, run: str, facts: RunFacts, listened_s: float) -> None:
        """Raise `StoreError` unless the run has ended, or is certainly lost.

        The journals are asked of an ended run, too: the store may not have seen the stream of a worker that lives.
        """
        remedy = "stop it first, with Ctrl-C in its terminal or `runlane stop`, then delete it"
        if facts.is_heard and not facts.is_ended:
            word = facts.state if facts.state in ("running", "stalled") else "not over: a worker of it goes on"
            raise StoreError(f"run {run} is {word}; {remedy}")
        living = living_workers(self._journals, run)
        if living:
            raise StoreError(f"run {run} has a living worker, {living[0]}, which writes its journal; {remedy}")
        if not facts.is_ended and listened_s < LISTEN_S:
            wait_s = LISTEN_S - listened_s
            raise StoreError(f"run {run} has not ended, and may be alive or lost; ask again in {wait_s:.0f} s")
