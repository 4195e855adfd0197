"""Which videos stay, by the keep rule of a stream and by the budget of all."""

import math
from typing import Any

import pytest

from runlane.actors.video_rules import EpisodeKey, Video, is_wanted, over_budget, surplus
from runlane.config.settings import RecorderSettings


def _video(episode: int, episode_return: float | None = 0.0, part: int = 1, size: int = 10) -> Video:
    return Video(EpisodeKey("s", 0, episode), part, size, episode, episode_return)


def _rule(keep: Any, keep_count: int = 2) -> RecorderSettings:
    return RecorderSettings(keep=keep, keep_count=keep_count)


def _gone(rule: RecorderSettings, *videos: Video) -> list[tuple[int, int]]:
    return sorted((video.key.episode, video.part) for video in surplus(rule, videos))


RETURNS = (_video(1, 5.0), _video(2, 9.0), _video(3, 1.0), _video(4, 7.0))


@pytest.mark.parametrize(
    ("keep", "gone"), [("all", []), ("every", []), ("last", [1, 2]), ("best", [1, 3]), ("worst", [2, 4])]
)
def test_a_rule_keeps_what_its_name_says(keep: str, gone: list[int]) -> None:
    """Of four episodes with two to keep."""
    assert _gone(_rule(keep), *RETURNS) == [(episode, 1) for episode in gone]


@pytest.mark.parametrize("keep", ["last", "best", "worst"])
def test_nothing_goes_before_there_are_too_many(keep: str) -> None:
    """As many as are kept are not too many."""
    assert _gone(_rule(keep, 4), *RETURNS) == []


def test_last_goes_by_the_number_of_the_episode() -> None:
    """In whatever order videos were finished."""
    assert _gone(_rule("last"), _video(3), _video(1), _video(2)) == [(1, 1)]


@pytest.mark.parametrize("keep", ["best", "worst"])
def test_an_episode_whose_return_is_not_known_stays(keep: str) -> None:
    """Beside as many as are kept of those with a return."""
    unknown = _video(5, None)
    assert _gone(_rule(keep, 4), *RETURNS, unknown) == []
    assert (5, 1) not in _gone(_rule(keep, 1), *RETURNS, unknown)


@pytest.mark.parametrize("keep", ["best", "worst"])
def test_nan_is_the_last_choice(keep: str) -> None:
    """It is neither good nor bad, and would make any order meaningless."""
    assert _gone(_rule(keep), _video(1, math.nan), _video(2, -math.inf), _video(3, math.inf)) == [(1, 1)]


@pytest.mark.parametrize("keep", ["best", "worst"])
def test_of_equal_returns_the_earlier_stays(keep: str) -> None:
    """So an agent that always reaches the most does not write the same videos for ever."""
    assert _gone(_rule(keep), _video(1), _video(2), _video(3)) == [(3, 1)]


@pytest.mark.parametrize("keep", ["last", "best"])
def test_parts_of_an_episode_go_together(keep: str) -> None:
    """And count as one; the last part's return is the episode's."""
    videos = (_video(1, 9.0), _video(1, 3.0, part=2), _video(2, 5.0), _video(3, 6.0))
    assert _gone(_rule(keep), *videos) == [(1, 1), (1, 2)]


def test_every_is_known_at_the_first_frame() -> None:
    """So what is not wanted is not encoded; by the other rules every episode is."""
    assert [episode for episode in range(1, 10) if is_wanted(_rule("every", 3), episode)] == [3, 6, 9]
    assert all(is_wanted(_rule(keep, 3), episode) for keep in ("all", "best", "worst", "last") for episode in (1, 2))


@pytest.mark.parametrize(("max_bytes", "gone"), [(30, []), (29, [1]), (20, [1]), (19, [1, 2]), (1, [1, 2, 3])])
def test_the_budget_takes_the_oldest_first(max_bytes: int, gone: list[int]) -> None:
    """As many as it needs, and no more."""
    found = over_budget([_video(1), _video(2), _video(3)], 30, max_bytes)
    assert [video.key.episode for video in found] == gone


def test_a_name_sorts_and_tells_the_part() -> None:
    """The first part of an episode has no number: most have no other."""
    assert _video(7).name == "s/0-00000007"
    assert _video(7, part=2).name == "s/0-00000007-2"
