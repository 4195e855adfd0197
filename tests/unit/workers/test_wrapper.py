"""wrap(): what is recorded is what the script itself counts, in every autoreset mode, and nothing else changes."""

import time
from dataclasses import dataclass, field
from typing import Any, cast

import gymnasium
import numpy as np
import pytest
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from unit.workers.session_rig import SessionRig

from runlane.transport.endpoint import run_dir_of
from runlane.transport.fast_lane_reader import FastLaneReader
from runlane.transport.records import IS_RESET, EpisodeRecord
from runlane.transport.ring_files import find_rings
from runlane.transport.ring_layout import Hud
from runlane.workers import DetachedSession, wrap
from runlane.workers.env_recorder import autoreset_text

ENVS = 3
STEPS = 150
Episodes = list[tuple[int, int, float, int]]
MODES = [AutoresetMode.NEXT_STEP, AutoresetMode.SAME_STEP, AutoresetMode.DISABLED]


def _make(**options: Any) -> Any:
    return gymnasium.make("CartPole-v1", **options)  # pyright: ignore[reportUnknownMemberType]


def _make_vector(mode: AutoresetMode) -> Any:
    return SyncVectorEnv([_make for _ in range(ENVS)], autoreset_mode=mode)


@dataclass
class Count:
    """A script's own book-keeping."""

    ended: Episodes = field(default_factory=list[tuple[int, int, float, int]])
    abandoned: Episodes = field(default_factory=list[tuple[int, int, float, int]])
    trace: list[Any] = field(default_factory=list[Any])
    steps: int = 0
    resets: int = 0

    def __post_init__(self) -> None:
        self._running: dict[int, tuple[int, float, int]] = dict.fromkeys(range(ENVS), (1, 0.0, 0))

    def step(self, index: int, reward: float, *, is_end: bool) -> None:
        """One step of one environment."""
        episode, total, length = self._running[index]
        self.steps += 1
        self._running[index] = (episode, total + reward, length + 1)
        if is_end:
            self.ended.append((index, *self._running[index]))
            self._running[index] = (episode + 1, 0.0, 0)

    def abandon(self, index: int) -> None:
        """A reset in the middle of an episode."""
        episode, _, length = self._running[index]
        if length:
            self.abandoned.append((index, *self._running[index]))
            self._running[index] = (episode + 1, 0.0, 0)


def _drive_scalar(env: Any, count: Count, *, abandon_after: int = 0) -> None:
    """Random actions, a reset after each end, perhaps one in the middle."""
    rng = np.random.default_rng(7)
    observation, _ = env.reset(seed=3)
    for number in range(STEPS):
        action = int(rng.integers(2))
        count.trace.append((observation, action))
        observation, reward, terminated, truncated, _ = env.step(action)
        count.step(0, float(reward), is_end=terminated or truncated)
        if terminated or truncated:
            observation, _ = env.reset()
        elif number + 1 == abandon_after:
            count.abandon(0)
            observation, _ = env.reset()
    count.abandon(0)


def _drive_vector(env: Any, mode: AutoresetMode, count: Count) -> None:
    """Random actions; resets as the mode wants them; a few environments given up where they can be."""
    rng = np.random.default_rng(7)
    observations, _ = env.reset(seed=3)
    has_ended = np.zeros(ENVS, bool)
    for number in range(STEPS):
        actions = rng.integers(2, size=ENVS)
        count.trace.append((observations.copy(), actions))
        observations, rewards, terminated, truncated, _ = env.step(actions)
        ends = terminated | truncated
        for index in range(ENVS):
            if mode is AutoresetMode.NEXT_STEP and has_ended[index]:
                count.resets += 1
            else:
                count.step(index, float(rewards[index]), is_end=bool(ends[index]))
        has_ended = ends
        if mode is AutoresetMode.DISABLED and (ends.any() or number == 70):
            mask = ends if ends.any() else np.array([True, False, True])
            for index in np.flatnonzero(mask):
                count.abandon(int(index))
            observations, _ = env.reset(options={"reset_mask": mask})
    for index in range(ENVS):
        count.abandon(index)


def _recorded(rig: SessionRig, outcome: str) -> Episodes:
    found = [
        record for record in rig.records(EpisodeRecord) if (record.outcome == "abandoned") == (outcome == "abandoned")
    ]
    return sorted((record.env_index, record.episode, record.episode_return, record.length) for record in found)


def _check(rig: SessionRig, count: Count) -> None:
    """Episodes, steps and resets as the script counted them, with no fault."""
    session = rig.sessions[0]
    assert session.faults == 0
    assert _recorded(rig, "ended") == sorted(count.ended)
    assert _recorded(rig, "abandoned") == sorted(count.abandoned)
    assert session.env_steps == count.steps


# ---- scalar environments ---------------------------------------------------------------------------------


def test_a_scalar_environment_is_recorded_as_the_script_counts_it(rig: SessionRig) -> None:
    """Every step one row with its action; every episode its return and length; one given up is abandoned."""
    env = wrap(_make(), session=rig.session())
    count = Count()
    _drive_scalar(env, count, abandon_after=5)
    env.close()
    env.session.close()
    _check(rig, count)
    assert len(count.ended) > 3
    assert len(count.abandoned) == 2
    assert [row["action"] for row in rig.steps()] == [action for _, action in count.trace]


def test_a_time_limit_is_a_truncation(rig: SessionRig) -> None:
    """What the TimeLimit wrapper says is what is recorded."""
    env = wrap(_make(max_episode_steps=4), session=rig.session())
    env.reset(seed=1)
    for number in range(4):
        env.step(number % 2)
    env.session.close()
    assert [(record.outcome, record.length) for record in rig.records(EpisodeRecord)] == [("truncated", 4)]
    env.close()


def test_the_observation_stored_is_the_one_the_action_was_chosen_on(rig: SessionRig) -> None:
    """Not the one the step returned; after a reset it is the new episode's first."""
    env = wrap(_make(), session=rig.session(), with_observations=True)
    count = Count()
    _drive_scalar(env, count)
    env.session.close()
    _check(rig, count)
    stored = [row["observation"] for row in rig.steps() if not row["flags"] & IS_RESET]
    np.testing.assert_array_equal(stored, [observation for observation, _ in count.trace])
    env.close()


def test_a_wrapped_environment_returns_what_the_bare_one_does(rig: SessionRig) -> None:
    """Same seed, same actions: the same observations, rewards, ends and infos, step by step."""
    bare, wrapped = _make(), wrap(_make(), session=rig.session(), with_observations=True)
    rng = np.random.default_rng(1)
    for episode in range(5):
        seed = 11 if episode == 0 else None
        results: list[Any] = [env.reset(seed=seed) for env in (bare, wrapped)]
        is_over = False
        while not is_over:
            np.testing.assert_equal(*results)
            action = int(rng.integers(2))
            results = [env.step(action) for env in (bare, wrapped)]
            is_over = bool(results[0][2] or results[0][3])
        np.testing.assert_equal(*results)
    bare.close()
    wrapped.close()


# ---- vector environments ---------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", MODES, ids=lambda mode: mode.name)
@pytest.mark.parametrize("per_env_rows", [False, True], ids=["packed", "per_env"])
def test_a_vector_environment_is_recorded_as_the_script_counts_it(
    rig: SessionRig, mode: AutoresetMode, per_env_rows: bool
) -> None:
    """In every autoreset mode, packed or as n rows; steps that only reset are flagged and not counted."""
    env = wrap(_make_vector(mode), session=rig.session(), per_env_rows=per_env_rows)
    count = Count()
    _drive_vector(env, mode, count)
    env.close()
    env.session.close()
    _check(rig, count)
    assert len(count.ended) > 9
    flags = np.array([row["flags"] for row in rig.steps()]).reshape(-1)
    assert int((flags & IS_RESET != 0).sum()) == count.resets
    assert (count.resets > 0) == (mode is AutoresetMode.NEXT_STEP)
    assert len(rig.steps()) == STEPS * (ENVS if per_env_rows else 1)


@pytest.mark.parametrize("mode", MODES, ids=lambda mode: mode.name)
def test_a_wrapped_vector_environment_returns_what_the_bare_one_does(rig: SessionRig, mode: AutoresetMode) -> None:
    """Same seed, same actions, same everything, resets included."""
    counts = Count(), Count()
    bare, wrapped = _make_vector(mode), wrap(_make_vector(mode), session=rig.session(), with_observations=True)
    _drive_vector(bare, mode, counts[0])
    _drive_vector(wrapped, mode, counts[1])
    np.testing.assert_equal(counts[0].trace, counts[1].trace)
    assert counts[0].ended == counts[1].ended
    bare.close()
    wrapped.close()


@pytest.mark.parametrize("per_env_rows", [False, True], ids=["packed", "per_env"])
def test_observations_of_a_vector_environment_are_kept_before_it_overwrites_them(
    rig: SessionRig, per_env_rows: bool
) -> None:
    """Its next step may write into the same array."""
    mode = AutoresetMode.SAME_STEP
    vector = SyncVectorEnv([_make for _ in range(ENVS)], autoreset_mode=mode, copy=False)
    env = wrap(vector, session=rig.session(), with_observations=True, per_env_rows=per_env_rows)
    count = Count()
    _drive_vector(env, mode, count)
    env.session.close()
    _check(rig, count)
    made = [row for row in rig.steps() if not np.any(np.array(row["flags"]) & IS_RESET)]
    stored = np.array([row["observation"] for row in made]).reshape(STEPS, ENVS, 4)
    np.testing.assert_array_equal(stored, [observations for observations, _ in count.trace])
    env.close()


def test_a_reset_right_after_an_end_is_no_reset_step(rig: SessionRig) -> None:
    """NEXT_STEP, but the script resets by hand: the next step is a real one."""
    env = wrap(_make_vector(AutoresetMode.NEXT_STEP), session=rig.session())
    env.reset(seed=3)
    while not (ends := np.logical_or(*env.step(np.zeros(ENVS, int))[2:4])).any():
        pass
    env.reset()
    env.step(np.zeros(ENVS, int))
    env.session.close()
    assert rig.steps()[-1]["flags"] == [0] * ENVS
    assert rig.steps()[-1]["step"] == [1] * ENVS
    assert len(_recorded(rig, "ended")) == int(ends.sum())
    env.close()


@pytest.mark.parametrize("mode", MODES, ids=lambda mode: mode.name)
def test_the_autoreset_mode_is_read_from_the_environment(mode: AutoresetMode) -> None:
    """From its metadata, as an enum or as its value; without any it is Gymnasium's default."""
    env = _make_vector(mode)
    assert autoreset_text(env) == mode.value
    env.metadata = {"autoreset_mode": mode.value}
    assert autoreset_text(env) == mode.value
    env.metadata = {}
    assert autoreset_text(env) == AutoresetMode.NEXT_STEP.value
    env.close()


# ---- whose session ---------------------------------------------------------------------------------------


def test_a_session_that_was_given_is_left_open(rig: SessionRig) -> None:
    """Whoever opened it closes it; several environments may share it."""
    session = rig.session()
    env = wrap(_make(), session=session)
    env.close()
    session.log("still open")
    assert session.faults == 0
    assert session.close() is True


@pytest.mark.parametrize("make", [_make, lambda: _make_vector(AutoresetMode.SAME_STEP)], ids=["scalar", "vector"])
def test_a_session_that_wrap_opened_is_closed_with_the_environment(make: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its name is the environment's id where the script gives none."""
    closed: list[bool] = []
    names: list[object] = []

    class Own(DetachedSession):
        """A session that tells when it is closed."""

        def close(self, state: str = "finished") -> bool:
            closed.append(state == "finished")
            return True

    def attach(name: object, **_: object) -> Own:
        names.append(name)
        return Own()

    monkeypatch.setattr("runlane.workers.wrapper.attach", attach)
    env = wrap(make())
    env.reset(seed=1)
    env.step(env.action_space.sample())
    env.close()
    assert closed == [True]
    assert names == ["CartPole-v1" if make is _make else None]


def test_a_wrapped_environment_is_still_one(rig: SessionRig) -> None:
    """Spaces, spec and the bare environment are reached through it."""
    bare = _make()
    env = cast("gymnasium.Env[Any, Any]", wrap(bare, session=rig.session()))
    assert isinstance(env, gymnasium.Env)
    assert env.action_space == bare.action_space
    assert env.unwrapped is bare.unwrapped
    assert env.spec is not None
    assert env.spec.id == "CartPole-v1"
    env.close()


@pytest.mark.parametrize("thing", [None, "CartPole-v1", object()])
def test_only_an_environment_can_be_wrapped(thing: object) -> None:
    """TypeError at once, with the type that was given: a script's mistake, not a telemetry fault."""
    with pytest.raises(TypeError, match=type(thing).__name__):
        wrap(thing)


# ---- pictures ---------------------------------------------------------------------------------------------


class _Drawn(gymnasium.Env[Any, Any]):
    """Episodes of three steps. A picture's bytes are the step it shows, 0 after a reset."""

    observation_space = action_space = gymnasium.spaces.Discrete(2)
    render_mode = "rgb_array"

    def __init__(self) -> None:
        self.in_episode = 0

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed, options=options)
        self.in_episode = 0
        return 0, {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:  # noqa: ARG002
        self.in_episode += 1
        return 0, 1.0, self.in_episode == 3, False, {}

    def render(self) -> Any:
        return np.full((1, 2), self.in_episode, np.uint8)


@pytest.mark.parametrize("mode", [None, *MODES], ids=str)
@pytest.mark.parametrize("per_env_rows", [False, True])
def test_a_picture_shows_the_step_its_hud_names(
    rig: SessionRig, mode: AutoresetMode | None, per_env_rows: bool
) -> None:
    """Scalar and vector, in every autoreset mode: each is of a stored row with this place and this reward."""
    session = rig.session()
    if mode is None:
        env = wrap(_Drawn(), session=session)
    else:
        vector = SyncVectorEnv([_Drawn, _Drawn], autoreset_mode=mode)
        env = wrap(vector, session=session, per_env_rows=per_env_rows)
    env.reset()
    reader: FastLaneReader | None = None
    seen: list[tuple[Hud, int]] = []
    for _ in range(40):
        session.lane.next_ns = 0
        *_, terminated, truncated, _ = env.step(0 if mode is None else np.zeros(2, int))
        if reader is None:
            reader = FastLaneReader(find_rings(run_dir_of(rig.settings))[0].path)
        reader.lease.ask_anew()
        reader.watch(time.monotonic_ns(), 1_000.0)
        found = reader.read()
        if found is not None:
            seen.append((found[0], found[1][0]))
        if mode in (None, AutoresetMode.DISABLED) and np.any(terminated | truncated):
            env.reset(options=None if mode is None else {"reset_mask": terminated | truncated})
    assert reader is not None
    reader.close()
    session.close()
    assert len(seen) > 20
    assert any(hud.step == 3 for hud, _ in seen) or mode is AutoresetMode.SAME_STEP
    rows = {row["seq"]: row for row in rig.steps()}
    for hud, drawn in seen:
        assert drawn == hud.step
        assert hud.episode_return == hud.step
        row = rows[hud.step_seq]
        places = [(np.ravel(row[name])[hud.env_index if np.ndim(row[name]) else 0]) for name in ("episode", "step")]
        assert places == [hud.episode, hud.step]
