"""A worker that trains with Stable-Baselines3: one algorithm of it on one Gymnasium environment, on the CPU.

Read it from top to bottom: options, environments, training, report. All that Runlane needs is the callback.

    python -m runlane.workers.sb3 --algo ppo --env CartPole-v1 --steps 50000
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import signal
import sys
import time
from importlib import import_module
from types import FrameType
from typing import Any, NamedTuple

# These networks are too small to share: threads would only spin on the core telemetry needs. Read when torch loads.
os.environ.setdefault("OMP_NUM_THREADS", "1")

from runlane.workers import hooked_session
from runlane.workers.number_option import positive, seed
from runlane.workers.worker_report import write_report

ALGORITHMS = {"ppo": "PPO", "a2c": "A2C", "dqn": "DQN", "sac": "SAC", "td3": "TD3", "ddpg": "DDPG"}
VEC_ENVS = {"dummy": "DummyVecEnv", "subproc": "SubprocVecEnv"}
INTERRUPTED = 130  # 128 + SIGINT, the exit status a shell reports for Ctrl-C
BAD_OPTIONS = 2


class Counted(NamedTuple):
    """What the environments' own monitors counted, so that the two can be compared."""

    steps: int
    episodes: int
    return_sum: float


def parse_options(argv: list[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m runlane.workers.sb3", description="Train with Stable-Baselines3, with telemetry."
    )
    add = parser.add_argument
    add("--algo", choices=sorted(ALGORITHMS), default="ppo")
    add("--env", default="CartPole-v1", help="id of a Gymnasium environment")
    add("--steps", type=positive, default=50_000, help="of all environments; the last rollout is finished")
    add("--seed", type=seed, default=0)
    add("--envs", type=positive, default=4, help="how many environments")
    add("--vec", choices=sorted(VEC_ENVS), default="dummy", help="environments in this process, or one process each")
    return parser.parse_args(argv)


class Stop:
    """SIGINT ends the training after the step that is under way; a second one raises KeyboardInterrupt as usual.

    Raised amid a step, it would leave a `SubprocVecEnv` waiting for answers that it has taken already.
    """

    is_asked = False

    @classmethod
    def ask(cls, _signal: int, _frame: FrameType | None) -> None:
        """Handle SIGINT."""
        cls.is_asked = True
        signal.signal(signal.SIGINT, signal.default_int_handler)


def is_going_on(_locals: dict[str, Any], _globals: dict[str, Any]) -> bool:
    """Asked by SB3 after each step."""
    return not Stop.is_asked


def recorded_by_hand(env: Any) -> Any:
    """Take an environment, in its own process, out of what `runlane run` hooks: the callback records it."""
    hooked_session.leave(env)
    if multiprocessing.parent_process() is not None:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C goes to all; when to end is the training's to say
    return env


def make_environments(options: argparse.Namespace) -> Any:
    """The environments, each with SB3's `Monitor`, which counts its episodes."""
    vec_env_class = getattr(import_module("stable_baselines3.common.vec_env"), VEC_ENVS[options.vec])
    make_vec_env = import_module("stable_baselines3.common.env_util").make_vec_env
    return make_vec_env(
        options.env, options.envs, seed=options.seed, wrapper_class=recorded_by_hand, vec_env_cls=vec_env_class
    )


def make_model(options: argparse.Namespace, vec_env: Any) -> Any:
    """The algorithm, with the policy that suits the observations."""
    algorithm: Any = getattr(import_module("stable_baselines3"), ALGORITHMS[options.algo])
    space = vec_env.observation_space
    is_image = import_module("stable_baselines3.common.preprocessing").is_image_space
    policy = "MultiInputPolicy" if hasattr(space, "spaces") else "CnnPolicy" if is_image(space) else "MlpPolicy"
    return algorithm(policy, vec_env, seed=options.seed, device="cpu", verbose=0)


def train(options: argparse.Namespace, model: Any) -> bool:
    """Train to the end; False when Ctrl-C ended it."""
    from runlane.workers.sb3_callback import RunlaneCallback

    going_on: Any = import_module("stable_baselines3.common.callbacks").ConvertCallback(is_going_on)
    callback = RunlaneCallback(name=options.env, worker=None, config=vars(options), records_anyway=True)
    before = signal.signal(signal.SIGINT, Stop.ask)
    try:
        model.learn(options.steps, callback=[callback, going_on])
    finally:
        signal.signal(signal.SIGINT, before)
    callback.close("stopped" if Stop.is_asked else "finished")
    return not Stop.is_asked


def count(vec_env: Any) -> Counted:
    """What the monitors counted."""
    returns = vec_env.env_method("get_episode_rewards")
    steps = vec_env.env_method("get_total_steps")
    return Counted(sum(steps), sum(len(each) for each in returns), float(sum(sum(each) for each in returns)))


def main(argv: list[str] | None = None) -> int:
    """Train, print one line, and return the exit status."""
    options = parse_options(argv)
    try:
        import_module("stable_baselines3")
    except ImportError as error:
        sys.stderr.write(f"runlane.workers.sb3 needs Stable-Baselines3 ({error}); pip install 'runlane[sb3]'\n")
        return BAD_OPTIONS
    started_s = time.perf_counter()
    try:
        vec_env = make_environments(options)
    except Exception as error:  # gymnasium has a dozen of its own for an id it does not know
        sys.stderr.write(f"--env {options.env} cannot be made: {error}\n")
        return BAD_OPTIONS
    try:
        try:
            model = make_model(options, vec_env)
        except AssertionError as error:  # an algorithm for other actions
            sys.stderr.write(f"--algo {options.algo} does not suit --env {options.env}: {error}\n")
            return BAD_OPTIONS
        is_whole = train(options, model)
        counted = count(vec_env) if is_whole else None
    finally:
        vec_env.close()
    if counted is None:
        return INTERRUPTED
    write_report(counted._asdict())
    sys.stdout.write(
        f"{counted.steps} steps, {counted.episodes} episodes, mean return "
        f"{counted.return_sum / max(counted.episodes, 1):.1f}, {time.perf_counter() - started_s:.1f} s\n"
    )
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
