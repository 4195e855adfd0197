"""Frames of Gymnasium environments: one, or several of a vector environment in a grid.

Nothing here renders before it is called, and it is called only while somebody watches.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, cast

from runlane.config.errors import FastLaneError
from runlane.config.settings import FastLaneSettings
from runlane.workers.tiling import tile

RENDERED = ("rgb_array", "rgb_array_list", "depth_array", "depth_array_list")


class ShownEnvs(NamedTuple):
    """What to render: a function that does it, the environment the HUD is of, and how many are shown (0: one)."""

    render: Callable[[], Any]
    env_index: int
    tiles: int


def frames_of(env: Any, remedy: str = 'make it with gymnasium.make(..., render_mode="rgb_array")') -> Callable[[], Any]:
    """What renders an environment. It raises `FastLaneError` where the environment was made to render nothing."""

    def render() -> Any:
        mode = getattr(env, "render_mode", None)
        if mode not in RENDERED:
            raise FastLaneError(f"the environment renders no pixels (render_mode={mode!r}); {remedy}")
        # "rgb_array_list" hands out what it has collected, and begins anew: that is the script's to ask for.
        target = env.unwrapped if mode.endswith("_list") else env
        if getattr(target, "render_mode", None) not in RENDERED:
            raise FastLaneError(f"render_mode={mode!r} of this environment cannot be watched; make it with rgb_array")
        return target.render()

    return render


class VectorFrames:
    """Which environments of a vector environment are shown, and how each is rendered."""

    def __init__(self, env: Any, settings: FastLaneSettings) -> None:
        """`env` is a Gymnasium vector environment."""
        self._env = env
        self._count = int(env.num_envs)
        self._settings = settings
        # Those of a SyncVectorEnv can be asked one by one; any other renders all of them or none.
        envs: Sequence[Any] = getattr(env.unwrapped, "envs", ())
        self._each = [frames_of(each) for each in envs] if len(envs) == self._count else []

    def choose(self, wanted: int) -> ShownEnvs:
        """What to show now; `wanted` is the environment, from 1, that a viewer asks for alone, or 0."""
        if 0 < wanted <= self._count:
            return self._single(wanted - 1)
        if self._settings.video_mode == "single" or self._count == 1:
            return self._single(min(self._settings.slot, self._count - 1))
        count = min(self._settings.grid_limit, self._count)
        return ShownEnvs(lambda: tile(self._first(count), self._settings.grid_pixels), 0, count)

    def _single(self, index: int) -> ShownEnvs:
        if self._each:
            return ShownEnvs(self._each[index], index, 0)
        return ShownEnvs(lambda: self._all()[index], index, 0)

    def _first(self, count: int) -> list[Any]:
        frames = [render() for render in self._each[:count]] if self._each else list(self._all()[:count])
        return [frame for frame in frames if frame is not None]

    def _all(self) -> Sequence[Any]:
        mode = getattr(self._env, "render_mode", None)
        if mode not in RENDERED:
            raise FastLaneError(
                f"the vector environment renders no pixels (render_mode={mode!r}); "
                'make it with gymnasium.make_vec(..., render_mode="rgb_array")'
            )
        frames: Any = self._env.render()
        if getattr(frames, "ndim", 4) < 4:  # one picture of all of them
            return [frames] * self._count
        return cast("Sequence[Any]", frames)
