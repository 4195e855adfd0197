"""Which videos stay. No file and no clock: sizes, order and returns come in, what has to go comes out."""

import math
from collections.abc import Iterable
from typing import NamedTuple

from runlane.config.settings import RecorderSettings


class EpisodeKey(NamedTuple):
    """Which episode; `folder` is the directory of its stream below `videos/`."""

    folder: str
    env_index: int
    episode: int


class Video(NamedTuple):
    """A finished video. An episode has several parts where its frames changed their size, or the recorder restarted.

    `size` counts its sidecar, too. `episode_return` None means: not known yet. NaN is a return, and the last choice.
    """

    key: EpisodeKey
    part: int
    size: int
    ended_ns: int
    episode_return: float | None

    @property
    def name(self) -> str:
        """Its place below `videos/`, without a suffix."""
        return name_of(self.key, self.part)


def name_of(key: EpisodeKey, part: int) -> str:
    """Place below `videos/` of a part of an episode, from 1, without a suffix."""
    tail = f"-{part}" if part > 1 else ""
    return f"{key.folder}/{key.env_index}-{key.episode:08d}{tail}"


def is_wanted(rule: RecorderSettings, episode: int) -> bool:
    """Whether an episode is encoded at all: of "every" that is known at its first frame."""
    return rule.keep != "every" or episode % rule.keep_count == 0


def surplus(rule: RecorderSettings, videos: Iterable[Video]) -> list[Video]:
    """What goes of one environment of one stream. Parts of an episode stay, or go, together.

    By "best" and "worst" an episode whose return is not known yet stays beside the `keep_count`; of equal ones the
    earlier stays.
    """
    if rule.keep in ("all", "every"):
        return []
    episodes: dict[int, list[Video]] = {}
    for video in videos:
        episodes.setdefault(video.key.episode, []).append(video)
    if rule.keep == "last":
        ranked = sorted(episodes, reverse=True)
    else:
        sign = -1.0 if rule.keep == "best" else 1.0
        ranks = {episode: _rank(parts, sign) for episode, parts in episodes.items()}
        ranked = sorted(
            (episode for episode, rank in ranks.items() if rank is not None),
            key=lambda episode: (ranks[episode], episode),
        )
    return [video for episode in ranked[rule.keep_count :] for video in episodes[episode]]


def _rank(parts: list[Video], sign: float) -> tuple[bool, float] | None:
    """The less the better; None where a return is still waited for. The last part saw the episode's end."""
    last = max(parts, key=lambda video: video.part).episode_return
    if last is None:
        return None
    return (True, 0.0) if math.isnan(last) else (False, sign * last)


def over_budget(oldest_first: Iterable[Video], size: int, max_bytes: int) -> list[Video]:
    """What goes so that all videos, `size` bytes together, take at most `max_bytes`: the oldest first."""
    found: list[Video] = []
    for video in oldest_first:
        if size <= max_bytes:
            break
        found.append(video)
        size -= video.size
    return found
