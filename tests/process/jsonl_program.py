"""A program that writes JSON lines of every kind, and what they amount to. Standard library only, any Python 3.

`python jsonl_program.py LINES [SEED]` writes to standard output; `Tally(lines, seed)` says what has to be stored.
"""

import json
import random
import sys
from typing import Any, Dict, Iterator, List, Tuple  # noqa: UP035  any Python 3

ENVS = 3


def objects(lines: int, seed: int) -> Iterator[Any]:
    """So many lines, as objects or as plain text; each carries its own number."""
    dice = random.Random(seed)  # noqa: S311
    for number in range(lines):
        roll = dice.random()
        env_index = dice.randrange(ENVS)
        if roll < 0.70:
            line: Dict[str, Any] = {"kind": "step", "action": number, "reward": dice.randrange(5) / 2}
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
            yield "text %d" % number
        else:
            yield {"kind": "metric", "name": "single", "value": number}


class Tally:
    """What the lines amount to: actions of steps, episodes, infos, metrics, texts."""

    def __init__(self, lines: int, seed: int) -> None:
        self.actions: List[int] = []
        self.episodes: List[Tuple[int, int, float, int, str]] = []
        self.infos: List[int] = []
        self.metrics: List[Tuple[str, int]] = []
        self.texts: List[str] = []
        running: Dict[int, List[Any]] = {index: [1, 0.0, 0] for index in range(ENVS)}

        def end(env_index: int, outcome: str) -> None:
            episode, total, length = running[env_index]
            if length:
                self.episodes.append((env_index, episode, total, length, outcome))
                running[env_index] = [episode + 1, 0.0, 0]

        for line in objects(lines, seed):
            if isinstance(line, str):
                self.texts.append(line)
            elif line["kind"] == "step":
                self.actions.append(line["action"])
                running[line["env_index"]][1] += line["reward"]
                running[line["env_index"]][2] += 1
                if "info" in line:
                    self.infos.append(line["info"]["number"])
                if line.get("terminated"):
                    end(line["env_index"], "terminated")
            elif line["kind"] == "episode":
                end(line["env_index"], "truncated")
            elif line["kind"] == "metrics":
                self.metrics += [(name, value) for name, value in line["values"].items()]
            else:
                self.metrics.append((line["name"], line["value"]))
        for env_index in range(ENVS):
            end(env_index, "abandoned")


def main() -> None:
    """Write the lines."""
    lines, seed = int(sys.argv[1]), int((sys.argv[2:] or ["0"])[0])
    for line in objects(lines, seed):
        sys.stdout.write((line if isinstance(line, str) else json.dumps(line)) + "\n")


if __name__ == "__main__":
    main()
