"""The videos of a run that is deleted, taken away by whoever takes away its rows.

That is the DB writer, not the recorder: only who knows which runs are to go can go on after a kill, and a recorder may
not be there at all. The recorder, which counts its videos in memory, looks from time to time which directories are
gone (`VideoShelf.forget_gone`).
"""

import contextlib
from collections.abc import Iterable, Iterator
from pathlib import Path

from runlane.actors.video_file import VIDEO, is_ours
from runlane.config import log_ids
from runlane.transport.log import log_event


class RunVideos:
    """Videos by stream, in the directory that a recorder writes into."""

    def __init__(self, directory: Path) -> None:
        """It need not be there."""
        self._directory = directory

    def count(self, streams: Iterable[str]) -> int:
        """Videos of these streams."""
        return sum(path.suffix == VIDEO for stream in streams for path in self._files(stream))

    def remove(self, streams: Iterable[str], most: int) -> bool:
        """Remove about so many files of these streams; whether nothing is left that can be removed.

        What cannot be removed stays, and is told once: no rows wait for it.
        """
        failures: list[OSError] = []
        for stream in streams:
            for path in self._files(stream):
                if most <= 0:
                    return False
                try:
                    path.unlink(missing_ok=True)
                    most -= 1
                except OSError as error:
                    failures.append(error)
            with contextlib.suppress(OSError):  # there is none, or what is left in it is not ours
                (self._directory / stream).rmdir()
        if failures:
            log_event(log_ids.DURABLE_PRUNE_FAILED, error=str(failures[0]), others=len(failures) - 1)
        return True

    def _files(self, stream: str) -> Iterator[Path]:
        folder = self._directory / stream
        try:
            found = sorted(path for path in folder.iterdir() if is_ours(path.name))
        except OSError:  # it has none
            return
        yield from found
