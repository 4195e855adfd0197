"""A worker that learns to balance CartPole-v1 while Runlane watches: PPO in one file, NumPy only.

Read it from top to bottom: settings, network, experience, advantages, losses, loop, command line.
Only `train` knows of telemetry; everything above it runs the same on a bare environment.

    python -m runlane.workers.cartpole --seed 1

Papers: Schulman et al., "Proximal Policy Optimization Algorithms", 2017 (arXiv:1707.06347);
Schulman et al., "High-Dimensional Continuous Control Using Generalized Advantage Estimation", 2016
(arXiv:1506.02438); Kingma and Ba, "Adam", 2015 (arXiv:1412.6980).
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import itertools
import os
import signal
import sys
import time
from collections import deque
from collections.abc import Iterator
from types import FrameType
from typing import Any, NamedTuple

# These matrices are too small to share: BLAS threads would only spin on the core telemetry needs.
# BLAS reads the variables when NumPy loads. Something may have loaded it earlier, so the file also
# multiplies no more than ONE_THREAD_ROWS rows at a time.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import gymnasium
import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

import runlane.workers
from runlane.workers.worker_report import write_report

Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]

OBSERVATION_SIZE = 4  # cart position (m) and velocity (m/s), pole angle (rad) and velocity (rad/s)
ONE_THREAD_ROWS = 64  # OpenBLAS keeps a product of up to 64 x 64 x 64 on the calling thread
RECENT_EPISODES = 100  # the window of every "mean return" here
INTERRUPTED = 130  # 128 + SIGINT, the exit status a shell reports for Ctrl-C


@dataclasses.dataclass(frozen=True)
class Settings:
    """Every number that shapes a run; Runlane stores it as the run's configuration."""

    steps: int = 300_000  # environment steps, at most
    target_return: float = 475.0  # stop when the mean return of the last 100 episodes is this high
    seed: int = 0
    learning_rate: float = 1e-3  # at the start; falls in a straight line to zero at `steps`
    rollout: int = 1024  # environment steps between two updates
    epochs: int = 10  # passes over a rollout, unless `divergence_limit` ends them
    minibatch: int = ONE_THREAD_ROWS
    hidden: int = 64  # units in each of the two hidden layers
    discount: float = 0.99
    trace_decay: float = 0.95  # lambda of GAE
    clip: float = 0.2
    entropy_bonus: float = 0.005
    divergence_limit: float = 0.02  # nats from the old policy to the new, after which an update ends


class Activations(NamedTuple):
    """One forward pass: input (..., 4), hidden layers (..., hidden) and output (..., 1), float64."""

    input: Floats
    hidden1: Floats
    hidden2: Floats
    output: Floats


class Network:
    """A perceptron 4 -> hidden -> hidden -> 1 with tanh between, and the Adam state that trains it.

    Parameters and gradient are one flat float64 vector each; a layer's weights and biases are views
    into it. So Adam costs a few NumPy calls in all, not a few per layer.
    """

    def __init__(self, hidden: int, output_gain: float, rng: Generator) -> None:
        sizes = (OBSERVATION_SIZE, hidden, hidden, 1)
        self.shapes = [(inputs + 1, outputs) for inputs, outputs in itertools.pairwise(sizes)]
        count = sum(rows * columns for rows, columns in self.shapes)
        self.parameters: Floats = np.zeros(count)
        self.gradient: Floats = np.zeros(count)
        self.moment1: Floats = np.zeros(count)
        self.moment2: Floats = np.zeros(count)
        self.adam_steps = 0
        self.layers = self.views(self.parameters)
        self.layer_gradients = self.views(self.gradient)
        for (weights, _), gain in zip(self.layers, (1.0, 1.0, output_gain), strict=True):
            weights[:] = rng.normal(0.0, gain / np.sqrt(len(weights)), weights.shape)

    def views(self, flat: Floats) -> list[tuple[Floats, Floats]]:
        """Return each layer's (weights (inputs, outputs), biases (outputs,)) as views of a flat vector."""
        ends = itertools.accumulate(rows * columns for rows, columns in self.shapes)
        parts = np.split(flat, list(ends)[:-1])
        blocks = [part.reshape(shape) for part, shape in zip(parts, self.shapes, strict=True)]
        return [(block[:-1], block[-1]) for block in blocks]

    def forward(self, observations: Floats) -> Activations:
        """Evaluate one observation (4,) or a batch (batch, 4)."""
        (weights1, biases1), (weights2, biases2), (weights3, biases3) = self.layers
        hidden1 = np.tanh(observations @ weights1 + biases1)
        hidden2 = np.tanh(hidden1 @ weights2 + biases2)
        return Activations(observations, hidden1, hidden2, hidden2 @ weights3 + biases3)

    def evaluate(self, observations: Floats) -> Floats:
        """Map observations (batch, 4) to outputs (batch,)."""
        parts = range(0, len(observations), ONE_THREAD_ROWS)
        outputs = [self.forward(observations[i : i + ONE_THREAD_ROWS]).output[:, 0] for i in parts]
        return np.concatenate(outputs)

    def descend(self, seen: Activations, slope: Floats, rate: float) -> None:
        """Take one Adam step down a loss whose derivative by the output is `slope` (batch,)."""
        (_, (weights2, _), (weights3, _)) = self.layers
        slope3 = slope[:, None]
        slope2 = slope3 * weights3[:, 0] * (1.0 - seen.hidden2 * seen.hidden2)
        slope1 = slope2 @ weights2.T * (1.0 - seen.hidden1 * seen.hidden1)
        pairs = ((seen.input, slope1), (seen.hidden1, slope2), (seen.hidden2, slope3))
        for (weights, biases), (source, effect) in zip(self.layer_gradients, pairs, strict=True):
            np.matmul(source.T, effect, out=weights)
            np.sum(effect, axis=0, out=biases)
        self.adam(rate)

    def adam(self, rate: float, decay1: float = 0.9, decay2: float = 0.999) -> None:
        """Apply the gradient to the parameters by Adam (Kingma and Ba 2015, algorithm 1)."""
        self.adam_steps += 1
        self.moment1 += (1.0 - decay1) * (self.gradient - self.moment1)
        self.moment2 += (1.0 - decay2) * (self.gradient * self.gradient - self.moment2)
        # Both moments start at zero; the divisors undo the bias that leaves.
        mean = self.moment1 / (1.0 - decay1**self.adam_steps)
        spread = np.sqrt(self.moment2 / (1.0 - decay2**self.adam_steps))
        self.parameters -= rate * mean / (spread + 1e-8)


@dataclasses.dataclass
class Tally:
    """What the environment returned, counted here and not by telemetry, so the two can be compared."""

    steps: int = 0
    episodes: int = 0  # ended ones
    return_sum: float = 0.0  # over ended episodes
    running: float = 0.0  # return so far of the episode under way
    recent: deque[float] = dataclasses.field(default_factory=lambda: deque[float](maxlen=RECENT_EPISODES))

    def add(self, reward: float, ended: bool) -> None:
        """Count one step."""
        self.steps += 1
        self.running += reward
        if ended:
            self.episodes += 1
            self.return_sum += self.running
            self.recent.append(self.running)
            self.running = 0.0

    def mean_return(self) -> float:
        """Return the mean of the last 100 returns, of fewer if fewer ended, 0 before the first."""
        return sum(self.recent) / max(len(self.recent), 1)

    def report(self) -> dict[str, float]:
        """Return the counts by name."""
        counted = {"steps": self.steps, "episodes": self.episodes, "return_sum": self.return_sum}
        return {**counted, "mean_return": self.mean_return()}

    def reached(self, target: float) -> bool:
        """Say whether 100 episodes have ended and the last 100 are good enough."""
        return len(self.recent) == RECENT_EPISODES and self.mean_return() >= target


class Rollout:
    """Consecutive steps of one environment: observations (size, 4) float64, the rest (size,)."""

    def __init__(self, size: int) -> None:
        self.observations: Floats = np.zeros((size, OBSERVATION_SIZE))
        self.successors: Floats = np.zeros((size, OBSERVATION_SIZE))  # even where an episode ended
        self.actions: Floats = np.zeros(size)  # 0.0 pushes left, 1.0 right
        self.rewards: Floats = np.zeros(size)
        self.terminated: Flags = np.zeros(size, dtype=np.bool_)
        self.ended: Flags = np.zeros(size, dtype=np.bool_)  # terminated or truncated


class Player:
    """Plays one environment, across the ends of its episodes, and keeps the tally."""

    def __init__(self, env: gymnasium.Env[Any, Any], seed: int) -> None:
        self.env = env
        self.tally = Tally()
        self.rng = np.random.default_rng(seed)
        self.stopping = False
        self.observation = env.reset(seed=seed)[0]

    def stop(self, _signal: int, _frame: FrameType | None) -> None:
        """Handle SIGINT: stop before the next step; a second one raises KeyboardInterrupt as usual.

        Raised inside env.step, it could fall between telemetry's count of that step and the tally.
        """
        self.stopping = True
        signal.signal(signal.SIGINT, signal.default_int_handler)

    def play(self, policy: Network, size: int) -> Rollout | None:
        """Take `size` steps, or return None if stopped before the last."""
        rollout = Rollout(size)
        for t in range(size):
            if self.stopping:
                return None
            rollout.observations[t] = self.observation
            logit = policy.forward(rollout.observations[t]).output[0]
            # A logit plus logistic noise is positive with probability sigmoid(logit).
            action = int(logit + self.rng.logistic() > 0.0)
            self.observation, reward, terminated, truncated, _ = self.env.step(action)
            self.tally.add(float(reward), terminated or truncated)
            rollout.successors[t] = self.observation
            rollout.actions[t], rollout.rewards[t] = action, reward
            rollout.terminated[t], rollout.ended[t] = terminated, terminated or truncated
            if terminated or truncated:
                self.observation = self.env.reset()[0]
        return rollout


def estimate_advantages(rollout: Rollout, critic: Network, settings: Settings) -> tuple[Floats, Floats]:
    """Return (advantages (size,), value targets (size,)) by GAE (Schulman et al. 2016, equation 16).

    Rewards are scaled by 1 - discount, so a value is a weighted mean of rewards, within [0, 1] here,
    whatever the horizon. A truncated episode did not fail: its last state keeps its value.
    """
    values = critic.evaluate(rollout.observations)
    future = np.where(rollout.terminated, 0.0, critic.evaluate(rollout.successors))
    rewards = (1.0 - settings.discount) * rollout.rewards
    errors = rewards + settings.discount * future - values
    decays = np.where(rollout.ended, 0.0, settings.discount * settings.trace_decay)
    advantages = np.zeros_like(errors)
    trace = 0.0
    for t in reversed(range(len(errors))):
        trace = errors[t] + decays[t] * trace
        advantages[t] = trace
    return advantages, advantages + values


def log_probability(logits: Floats, actions: Floats) -> Floats:
    """Return the log-probability (batch,), in nats, of each action; sigmoid(logit) is that of 1."""
    return -np.logaddexp(0.0, (1.0 - 2.0 * actions) * logits)


def policy_slope(logits: Floats, actions: Floats, old: Floats, gains: Floats, settings: Settings) -> Floats:
    """Return d loss / d logit (batch,) of the clipped loss less the entropy bonus (PPO, equations 7, 9).

    `old` are the log-probabilities when the actions were taken, `gains` the normalised advantages.
    """
    right = 1.0 / (1.0 + np.exp(-logits))
    ratio = np.exp(log_probability(logits, actions) - old)
    # Where the minimum in equation 7 picks the clipped term, nothing is left to gain: slope zero.
    settled = np.where(gains > 0.0, ratio > 1.0 + settings.clip, ratio < 1.0 - settings.clip)
    surrogate = np.where(settled, 0.0, gains * ratio) * (actions - right)
    entropy = -logits * right * (1.0 - right)
    return -(surrogate + settings.entropy_bonus * entropy) / len(logits)


def describe(logits: Floats, actions: Floats, old: Floats, gains: Floats, clip: float) -> dict[str, float]:
    """Measure what an update did to the policy, over a whole rollout; arguments as for `policy_slope`."""
    right = 1.0 / (1.0 + np.exp(-logits))
    change = log_probability(logits, actions) - old
    ratio = np.exp(change)
    surrogate = np.minimum(gains * ratio, gains * np.clip(ratio, 1.0 - clip, 1.0 + clip))
    return {
        "loss/policy": float(-surrogate.mean()),
        "policy/entropy": float((np.logaddexp(0.0, logits) - right * logits).mean()),  # nats
        "policy/divergence": float((ratio - 1.0 - change).mean()),  # nats; estimates KL(old, new)
        "policy/clipped": float((np.abs(ratio - 1.0) > clip).mean()),  # a fraction
    }


def update(
    rollout: Rollout, actor: Network, critic: Network, rate: float, settings: Settings, rng: Generator
) -> dict[str, float]:
    """Improve actor and critic on one rollout (PPO, algorithm 1) and return what to plot."""
    advantages, targets = estimate_advantages(rollout, critic, settings)
    gains = (advantages - advantages.mean()) / (advantages.std() + 1e-8)
    old = log_probability(actor.evaluate(rollout.observations), rollout.actions)
    report: dict[str, float] = {}
    for _ in range(settings.epochs):
        order = rng.permutation(len(gains))
        for start in range(0, len(order), settings.minibatch):
            rows = order[start : start + settings.minibatch]
            seen = actor.forward(rollout.observations[rows])
            slope = policy_slope(seen.output[:, 0], rollout.actions[rows], old[rows], gains[rows], settings)
            actor.descend(seen, slope, rate)
            seen = critic.forward(rollout.observations[rows])
            slope = (seen.output[:, 0] - targets[rows]) / len(rows)  # of half the mean squared error
            critic.descend(seen, slope, rate)
        logits = actor.evaluate(rollout.observations)
        report = describe(logits, rollout.actions, old, gains, settings.clip)
        if report["policy/divergence"] > settings.divergence_limit:
            break
    report["loss/value"] = 0.5 * float(np.square(critic.evaluate(rollout.observations) - targets).mean())
    report["learning_rate"] = rate
    return report


def learn(player: Player, settings: Settings) -> Iterator[dict[str, float]]:
    """Play and update in turn until the target, the step budget or a stop; yield each report."""
    actor = Network(settings.hidden, 0.01, player.rng)  # near zero: the first policy is a fair coin
    critic = Network(settings.hidden, 1.0, player.rng)
    tally = player.tally
    while tally.steps < settings.steps and not tally.reached(settings.target_return):
        rate = settings.learning_rate * (1.0 - tally.steps / settings.steps)
        rollout = player.play(actor, min(settings.rollout, settings.steps - tally.steps))
        if rollout is None:
            return
        report = update(rollout, actor, critic, rate, settings, player.rng)
        yield report | {"return/mean": tally.mean_return()}


def parse_settings(argv: list[str] | None) -> Settings:
    """Read the command line; each option is named after a field of Settings and defaults to it."""
    parser = argparse.ArgumentParser(prog="python -m runlane.workers.cartpole", description="Learn CartPole.")
    add = parser.add_argument
    add("--steps", type=int, default=Settings.steps, help="environment steps, at most")
    add("--target-return", type=float, default=Settings.target_return, help="mean of 100 episodes to stop at")
    add("--seed", type=int, default=Settings.seed)
    add("--learning-rate", type=float, default=Settings.learning_rate)
    return Settings(**vars(parser.parse_args(argv)))


def train(settings: Settings) -> Player:
    """Run one telemetered training and return its player."""
    config = dataclasses.asdict(settings)
    env = runlane.workers.wrap(gymnasium.make("CartPole-v1", render_mode="rgb_array"), config=config, name="cartpole")
    with contextlib.closing(env):
        player = Player(env, settings.seed)
        previous = signal.signal(signal.SIGINT, player.stop)
        try:
            for report in learn(player, settings):
                env.session.metrics(report)
        finally:
            signal.signal(signal.SIGINT, previous)
            write_report(player.tally.report())
        env.session.log(f"stopped at mean return {player.tally.mean_return():.1f}", level="info")
    return player


def main(argv: list[str] | None = None) -> int:
    """Train, print one line, and return the exit status."""
    settings = parse_settings(argv)
    started = time.perf_counter()
    try:
        player = train(settings)
    except KeyboardInterrupt:
        return INTERRUPTED
    tally = player.tally
    sys.stdout.write(
        f"{tally.steps} steps, {tally.episodes} episodes, mean return {tally.mean_return():.1f} "
        f"over the last {len(tally.recent)}, {time.perf_counter() - started:.1f} s\n"
    )
    return INTERRUPTED if player.stopping else 0


if __name__ == "__main__":
    raise SystemExit(main())
