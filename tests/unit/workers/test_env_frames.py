"""Frames of Gymnasium environments: which are rendered, by what, and what is said where none can be."""

from typing import Any

import gymnasium
import msgspec
import numpy as np
import pytest
from gymnasium.vector import SyncVectorEnv

from runlane.config.errors import FastLaneError
from runlane.config.settings import FastLaneSettings
from runlane.workers.env_frames import VectorFrames, frames_of


class Drawn(gymnasium.Env[Any, Any]):
    """Draws its own number, and counts how often."""

    observation_space = gymnasium.spaces.Discrete(2)
    action_space = gymnasium.spaces.Discrete(2)

    def __init__(self, number: int = 0, mode: str | None = "rgb_array") -> None:
        self.number, self.render_mode, self.renders = number, mode, 0

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed, options=options)
        return 0, {}

    def render(self) -> Any:
        self.renders += 1
        return np.full((2, 3, 3), self.number, np.uint8)


def sync(count: int = 3) -> tuple[list[Drawn], Any]:
    envs = [Drawn(number) for number in range(count)]
    return envs, SyncVectorEnv([lambda each=each: each for each in envs])  # type: ignore[misc]


def frames(env: Any, **changes: Any) -> VectorFrames:
    return VectorFrames(env, msgspec.structs.replace(FastLaneSettings(), **changes))


def test_collected_frames_are_left_to_the_script() -> None:
    """`rgb_array_list` hands out what it has collected and begins anew: a viewer draws beside it."""
    drawn = Drawn(7)
    env = gymnasium.wrappers.RenderCollection(drawn)  # pyright: ignore[reportUnknownVariableType, reportUnknownMemberType]
    env.reset()  # pyright: ignore[reportUnknownMemberType]
    assert env.render_mode == "rgb_array_list"
    assert frames_of(env)()[0, 0, 0] == 7
    assert len(env.render()) == 1


@pytest.mark.parametrize("mode", [None, "human", "ansi"])
def test_an_environment_without_pixels_is_not_asked_for_any(mode: str | None) -> None:
    """The error says how to make one with; a window of its own is left alone."""
    env = Drawn(mode=mode)
    with pytest.raises(FastLaneError, match=r'render_mode="rgb_array"'):
        frames_of(env)()
    assert env.renders == 0


@pytest.mark.parametrize(("slot", "expected"), [(0, 0), (2, 2), (9, 2)])
def test_single_shows_the_chosen_environment_and_renders_no_other(slot: int, expected: int) -> None:
    """A slot beyond the last is the last."""
    envs, vector = sync()
    shown = frames(vector, slot=slot).choose(0)
    assert (shown.render()[0, 0, 0], shown.env_index, shown.tiles) == (expected, expected, 0)
    assert [env.renders for env in envs] == [int(index == expected) for index in range(3)]


def test_a_grid_renders_the_first_of_them_only() -> None:
    """`grid_limit` of them, in one frame."""
    envs, vector = sync()
    shown = frames(vector, video_mode="grid", grid_limit=2).choose(0)
    assert shown.render().shape == (2, 8, 3)
    assert (shown.env_index, shown.tiles) == (0, 2)
    assert [env.renders for env in envs] == [1, 1, 0]


@pytest.mark.parametrize("video_mode", ["single", "grid"])
def test_a_viewers_tile_comes_alone(video_mode: str) -> None:
    """Whatever the mode; one that is not there is passed over."""
    envs, vector = sync()
    shown = frames(vector, video_mode=video_mode).choose(2)
    assert (shown.render()[0, 0, 0], shown.env_index, shown.tiles) == (1, 1, 0)
    assert envs[0].renders == 0
    assert frames(vector, video_mode="single").choose(4).env_index == 0


class Together:
    """A vector environment that draws all or nothing."""

    num_envs = 3
    render_mode: str | None = "rgb_array"

    def __init__(self, frames: Any) -> None:
        self.unwrapped = self
        self._frames = frames

    def render(self) -> Any:
        return self._frames


def test_environments_that_are_drawn_together_are_picked_from() -> None:
    """As those of an AsyncVectorEnv, or of one written for all at once."""
    drawn = tuple(np.full((2, 2, 3), number, np.uint8) for number in range(3))
    assert frames(Together(drawn), slot=1).choose(0).render()[0, 0, 0] == 1
    assert frames(Together(drawn), video_mode="grid").choose(0).render().shape == (6, 6, 3)
    assert frames(Together(drawn[2])).choose(0).render()[0, 0, 0] == 2


def test_a_vector_environment_without_pixels_says_how_to_make_one() -> None:
    """Also where it is asked all at once."""
    env = Together(None)
    env.render_mode = None
    with pytest.raises(FastLaneError, match="make_vec"):
        frames(env).choose(0).render()
