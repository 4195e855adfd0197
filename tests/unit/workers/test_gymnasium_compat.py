"""Gymnasium 1.x as scripts for 0.29 know it: only where that is asked for, and only then."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from kinds import ROOT, interpreter_of

ARM = "from runlane.workers import zero_edit\nzero_edit.arm()\nimport gymnasium as gym, numpy as np\n"
END_OF_EPISODE = """
def make():
    return gym.wrappers.RecordEpisodeStatistics(gym.make("CartPole-v1"))
envs = gym.vector.{kind}([make, make])
envs.reset(seed=1)
for step in range(1, 500):
    observations, _, terminated, _, infos = envs.step(np.zeros(2, np.int64))
    if terminated.any():
        break
assert "_final_info" in infos and len(infos["final_info"]) == 2
for index, info in enumerate(infos["final_info"]):
    assert (info is not None) == terminated[index] == infos["_final_info"][index]
    if info:
        assert str(info["episode"]["r"]) == f"[{{step}}.]" and str(info["episode"]["l"]) == f"[{{step}}]", info
        assert abs(infos["final_observation"][index][2]) > 0.2 > abs(observations[index][2])
envs.close()
"""
WRAPPERS = """
env = gym.wrappers.RecordEpisodeStatistics(gym.make("Pendulum-v1"), deque_size=3)
env = gym.wrappers.ClipAction(env)
assert env.action_space.high == 2
env = gym.wrappers.NormalizeObservation(env)
env = gym.wrappers.TransformObservation(env, lambda obs: np.clip(obs, -10, 10))
env = gym.wrappers.TransformReward(gym.wrappers.NormalizeReward(env, gamma=0.9), f=lambda reward: reward)
env = gym.wrappers.FrameStack(env, 4)
observation, _ = env.reset(seed=1)
assert np.asarray(observation).shape == (4, 3)
is_over = False
while not is_over:
    observation, reward, _, is_over, info = env.step(np.array([5.0]))
assert len(env.return_queue) == 1 and env.return_queue[0] == info["episode"]["r"]
assert env.obs_rms.var.dtype == np.float64 and env.reward_range[0] < 0
vector = gym.wrappers.RecordEpisodeStatistics(gym.make_vec("CartPole-v1", 2))
assert isinstance(vector, gym.vector.VectorEnv) and vector.is_vector_env
assert gym.vector.make("CartPole-v1", 2, asynchronous=False).num_envs == 2
"""
UNCHANGED = """
assert gym.vector.SyncVectorEnv.__module__.startswith("gymnasium."), gym.vector.SyncVectorEnv
assert gym.wrappers.RecordEpisodeStatistics.__module__.startswith("gymnasium.")
"""


def _run(directory: Path, text: str, compat: str | None, python: str = sys.executable) -> None:
    script = directory / "script.py"
    script.write_text(f'if __name__ == "__main__":\n    {ARM.replace(chr(10), chr(10) + "    ")}\n' + _indented(text))
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src"), "FASTLANE_VIDEO_MODE": "off"}
    environment["RUNLANE_DATA_DIR"] = str(directory / "data")
    if compat is not None:
        environment["RUNLANE_COMPAT"] = compat
    command = [python, "-W", "ignore", str(script)]
    done = subprocess.run(
        command, cwd=directory, env=environment, capture_output=True, text=True, timeout=55, check=False
    )
    assert done.returncode == 0, done.stderr


def _indented(text: str) -> str:
    return "".join(f"    {line}\n" for line in text.splitlines())


@pytest.mark.parametrize("kind", ["SyncVectorEnv", "AsyncVectorEnv"])
def test_an_episode_ends_as_it_did(tmp_path: Path, kind: str) -> None:
    """Reset in the same step, `final_info` as a list of maps, the last observation under its old name."""
    _run(tmp_path, END_OF_EPISODE.format(kind=kind), "1")


def test_wrappers_take_their_old_arguments(tmp_path: Path) -> None:
    """The chain of CleanRL's continuous scripts, and the old names around it."""
    _run(tmp_path, WRAPPERS, "1")


@pytest.mark.parametrize("compat", [None, "0", ""])
def test_nothing_is_changed_unasked(tmp_path: Path, compat: str | None) -> None:
    """Hooks alone leave Gymnasium's names alone."""
    _run(tmp_path, UNCHANGED, compat)


def test_029_itself_is_left_alone(tmp_path: Path) -> None:
    """There is nothing to put back."""
    python = str(interpreter_of("cleanrl"))
    _run(tmp_path, "assert gym.__version__.startswith('0.29')\n" + UNCHANGED, "1", python)
    _run(tmp_path, END_OF_EPISODE.format(kind="SyncVectorEnv"), "1", python)
