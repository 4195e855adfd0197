"""What the oracle's worker calls, and what each call must leave in the database: random to look at, fixed by a seed.

Nothing here is taken from runlane: the episodes and seqs are counted anew, by the words of the documentation.
"""

import random
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
from chaos.oracle_lines import Kind

INFINITY = float("inf")
ODD_REWARDS = (float("nan"), INFINITY, -INFINITY, 0.0, 1.0, -1.0, 1e-308, 5e15)
ENV_COUNT = 3  # of the vector steps
LARGE_FLOATS = 16_384


class Call(NamedTuple):
    """One call of the session, and the records it makes: kind and the values that will be read back."""

    method: str
    arguments: tuple[Any, ...]
    options: dict[str, Any]
    expected: list[tuple[Kind, tuple[Any, ...]]]


@dataclass(slots=True)
class Episode:
    """The running episode of one environment."""

    number: int = 1
    steps: int = 0
    total: float = 0.0

    def end(self, env_index: int, outcome: str) -> tuple[Kind, tuple[Any, ...]]:
        """Its record; the next one begins."""
        record = Kind.EPISODE, (env_index, self.number, self.total, self.steps, outcome)
        self.number, self.steps, self.total = self.number + 1, 0, 0.0
        return record


@dataclass(slots=True)
class Trajectory:
    """An endless row of calls. A new stream needs a new one, because episodes begin anew."""

    dice: random.Random
    environments: dict[int, Episode] = field(default_factory=dict[int, Episode])
    vector: list[Episode] = field(default_factory=lambda: [Episode() for _ in range(ENV_COUNT)])

    def calls(self) -> Iterator[Call]:
        """Phases of rows alike, as a training script makes them, with other records in between."""
        phases = (self._plain_step, self._float_step, self._observed_step, self._array_step, self._vector_step)
        while True:
            make, most = self.dice.choice(phases), 600
            if self.dice.random() < 0.08:
                make, most = self._large_step, 6
            for _ in range(self.dice.randint(1, most)):
                yield make()
                if self.dice.random() < 0.04:
                    yield self._other()

    # ---- steps ----

    def _plain_step(self) -> Call:
        return self._step(self.dice.randrange(-9, 10))

    def _float_step(self) -> Call:
        return self._step(self.dice.choice((self.dice.uniform(-1, 1), self.dice.uniform(-1, 1), 2.0)))

    def _observed_step(self) -> Call:
        return self._step(self.dice.randrange(1 << 62), self._floats(4))

    def _array_step(self) -> Call:
        return self._step(self._floats(2))

    def _large_step(self) -> Call:
        return self._step(1, self._floats(LARGE_FLOATS))

    def _floats(self, count: int) -> Any:
        """Any bits at all: NaNs of every sort among them."""
        return np.frombuffer(self.dice.randbytes(4 * count), "<f4")

    def _reward(self) -> float:
        return self.dice.choice(ODD_REWARDS) if self.dice.random() < 0.02 else self.dice.uniform(-1, 1)

    def _step(self, action: Any, observation: Any = None) -> Call:
        env_index = self.dice.choice((0, 0, 0, 1, 7))
        running = self.environments.setdefault(env_index, Episode())
        chance = self.dice.random()
        terminated, truncated = chance < 0.015, 0.012 < chance < 0.02
        is_reset, is_human = 0.02 < chance < 0.03, 0.03 < chance < 0.05
        reward = self._reward()
        row = _row(env_index, running, (terminated, truncated, is_reset, is_human), reward, action, observation)
        expected: list[tuple[Kind, tuple[Any, ...]]] = [(Kind.STEP, (row,))]
        if (terminated or truncated) and not is_reset:
            expected.append(running.end(env_index, "terminated" if terminated else "truncated"))
        options: dict[str, Any] = {"env_index": env_index, "is_reset": is_reset, "is_human": is_human}
        if observation is not None:
            options["observation"] = observation
        if 0.05 < chance < 0.07:
            options["info"] = {"lives": self.dice.randrange(9), "note": "naïve ∞", "x": self.dice.random()}
            expected.append((Kind.INFO, (env_index, tuple(sorted(options["info"].items())))))
        return Call("step", (action, reward, terminated, truncated), options, expected)

    def _vector_step(self) -> Call:
        rewards = [self._reward() for _ in range(ENV_COUNT)]
        actions = [self.dice.randrange(4) for _ in range(ENV_COUNT)]
        ends = [self.dice.random() for _ in range(ENV_COUNT)]
        terminated, truncated = [end < 0.01 for end in ends], [0.01 < end < 0.015 for end in ends]
        rows = tuple(
            _row(index, self.vector[index], (terminated[index], truncated[index], False, False), reward, actions[index])
            for index, reward in enumerate(rewards)
        )
        expected: list[tuple[Kind, tuple[Any, ...]]] = [(Kind.STEP, rows)]
        expected += [
            self.vector[index].end(index, "terminated" if terminated[index] else "truncated")
            for index in range(ENV_COUNT)
            if terminated[index] or truncated[index]
        ]
        arguments = (np.array(actions), np.array(rewards), np.array(terminated), np.array(truncated))
        return Call("step_vector", arguments, {}, expected)

    # ---- everything else ----

    def _other(self) -> Call:
        return self.dice.choice((self._metric, self._metrics, self._log, self._abandon))()

    def _metric(self) -> Call:
        name, value, step = f"loss/{self.dice.randrange(3)}", self._reward(), self.dice.randrange(1 << 40)
        return Call("metric", (name, value, step), {}, [(Kind.METRIC, (name, step, value))])

    def _metrics(self) -> Call:
        values = {f"many/{number}": self._reward() for number in range(self.dice.randint(2, 4))}
        expected = [(Kind.METRIC, (name, 7, value)) for name, value in values.items()]
        return Call("metrics", (values, 7), {}, list(expected))

    def _log(self) -> Call:
        text = "".join(self.dice.choices("abc ñ漢🎲\n'\"%", k=self.dice.choice((0, 5, 50, 2_000))))
        level = self.dice.choice(("info", "warning"))
        return Call("log", (text, level), {}, [(Kind.LOG, (level, text))])

    def _abandon(self) -> Call:
        env_index = self.dice.choice((0, 1, 5))
        running = self.environments.get(env_index)
        expected = [running.end(env_index, "abandoned")] if running is not None and running.steps else []
        return Call("episode", (), {"outcome": "abandoned", "env_index": env_index}, expected)


def _row(
    env_index: int,
    running: Episode,
    flags: tuple[bool, bool, bool, bool],
    reward: float,
    action: Any,
    observation: Any = None,
) -> tuple[Any, ...]:
    """The row of one environment's step as the database shows it. A reset counts for nothing."""
    terminated, truncated, is_reset, is_human = flags
    if not is_reset:
        running.steps += 1
        running.total += reward
    number = 0 if is_reset else running.steps
    seen = (env_index, running.number, number, int(terminated), int(truncated), int(is_reset), int(is_human))
    return (*seen, reward, _stored(action), _stored(observation))


def _stored(value: Any) -> Any:
    return value.tobytes() if isinstance(value, np.ndarray) else value
