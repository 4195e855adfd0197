"""A program that writes JSON lines of every kind, and what they amount to. Standard library only.

`python jsonl_program.py LINES [SEED [WAIT]]` writes to standard output; `Tally(lines, seed)` says what is to be stored.
With WAIT it then waits to be killed, or for the end of its standard input.
"""

import json
import random
import sys
from collections.abc import Iterator
from typing import Any

ENVS = 3


def objects(lines: int, seed: int) -> Iterator[Any]:
    """So many lines, as objects or as plain text; each carries its own number."""
    dice = random.Random(seed)  # noqa: S311  no cryptography
    for number in range(lines):
        roll = dice.random()
        env_index = dice.randrange(ENVS)
        if roll < 0.70:
            line: dict[str, Any] = {"kind": "step", "action": number, "reward": dice.randrange(5) / 2}
            line["env_index"] = env_index
            if dice.random() < 0.1:
                line["terminated"] = True
            if dice.random() < 0.2:
                line["info"] = {"number": number}
            yield line
        elif roll < 0.80:
            yield {"kind": "metrics", "values": {"a": number, "b": number, "c": number}, "step": number}
        elif roll < 0.85:
            yield {"kind": "episode", "outcome": "truncated", "env_index": env_index}
        elif roll < 0.95:
            yield f"text {number}"
        else:
            yield {"kind": "metric", "name": "single", "value": number}


def text_of(line: Any) -> str:
    """A line as it is written."""
    return (line if isinstance(line, str) else json.dumps(line)) + "\n"


class Tally:
    """What the lines amount to: actions of steps, episodes, infos, metrics, texts."""

    def __init__(self, lines: int, seed: int) -> None:
        self.actions: list[int] = []
        self.episodes: list[tuple[int, int, float, int, str]] = []
        self.infos: list[int] = []
        self.metrics: list[tuple[str, int]] = []
        self.texts: list[str] = []
        self._running: dict[int, tuple[int, float, int]] = dict.fromkeys(range(ENVS), (1, 0.0, 0))
        for line in objects(lines, seed):
            if isinstance(line, str):
                self.texts.append(line)
            else:
                self._add(line)
        for env_index in range(ENVS):
            self._end(env_index, "abandoned")

    def _add(self, line: dict[str, Any]) -> None:
        kind = line["kind"]
        if kind == "step":
            self._step(line)
        elif kind == "episode":
            self._end(line["env_index"], "truncated")
        elif kind == "metrics":
            self.metrics += [(name, value) for name, value in line["values"].items()]
        else:
            self.metrics.append((line["name"], line["value"]))

    def _step(self, line: dict[str, Any]) -> None:
        env_index = line["env_index"]
        self.actions.append(line["action"])
        episode, total, length = self._running[env_index]
        self._running[env_index] = (episode, total + line["reward"], length + 1)
        if "info" in line:
            self.infos.append(line["info"]["number"])
        if line.get("terminated"):
            self._end(env_index, "terminated")

    def _end(self, env_index: int, outcome: str) -> None:
        episode, total, length = self._running[env_index]
        if length:
            self.episodes.append((env_index, episode, total, length, outcome))
            self._running[env_index] = (episode + 1, 0.0, 0)


def main() -> None:
    """Write the lines."""
    lines, seed, wait = (int(text) for text in (*sys.argv[1:], "0", "0")[:3])
    for line in objects(lines, seed):
        sys.stdout.write(text_of(line))
    sys.stdout.flush()
    if wait:
        sys.stdin.read()


if __name__ == "__main__":
    main()
