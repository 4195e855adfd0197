"""RunEntry: all that the window knows of one run at this moment. No Qt; the run model owns it and changes it."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, cast

from runlane.config.telemetry_mode import TelemetryMode
from runlane.transport.records import ALIVE

DONE = frozenset({"finished", "stopped"})
FAILED = frozenset({"failed", "killed", "lost"})

# Under these names people keep such things in their hyper-parameters; the first one found counts.
TOTAL_KEYS = ("total_timesteps", "total_steps", "total_env_steps", "timesteps", "max_steps", "num_steps", "steps")
ENV_KEYS = ("env_id", "env_name", "env", "environment", "task", "game")
ALGO_KEYS = ("algo", "algorithm", "agent", "method", "trainer", "exp_name")
MAX_TEXT = 64
MAX_TAGS = 8


@dataclass(slots=True, eq=False)
class RunEntry:
    """One run. For reading: it is changed in place by its model, in the Qt thread.

    `state` is one of running, stalled, finished, failed, killed, stopped, lost. `steps` are environment steps, `drops`
    records. `progress` is 0 to 1, None where no total is known. `sparkline` are returns, oldest first.
    `worker_names` are those that the graph knows alive. `telemetry_mode` is empty where no proxy has told it, and
    `mixed` where the workers are in different ones. `warning` says that nothing is recorded, while that is so.
    """

    run: str
    name: str = ""
    state: str = "running"
    env_id: str = ""
    algo: str = ""
    script: str = ""
    host: str = ""
    workers: int = 0
    worker_names: tuple[str, ...] = ()
    envs: int = 0
    started_ns: int = 0
    ended_ns: int | None = None
    seen_ns: int | None = None
    steps: int = 0
    episodes: int = 0
    mean_return: float | None = None
    best_return: float | None = None
    last_reward: float | None = None
    step_rate_hz: float = 0.0
    drops: int = 0
    telemetry_mode: str = ""
    total_steps: int | None = None
    eta_s: float | None = None
    sparkline: tuple[float, ...] = ()
    color_index: int = 0
    tags: tuple[str, ...] = ()
    warning: str = ""
    has_facts: bool = False
    _found: str = field(default="", repr=False)

    @property
    def title(self) -> str:
        """Its name, or the beginning of its id."""
        return self.name or self.run[:12]

    @property
    def subtitle(self) -> str:
        """Algorithm and environment, as far as they are known; else what was started."""
        return " · ".join(part for part in (self.algo, self.env_id) if part) or self.script or self.run[:12]

    @property
    def is_alive(self) -> bool:
        """Whether it has not ended, and somebody is heard of."""
        return self.state in ALIVE

    @property
    def is_kept(self) -> bool:
        """Whether records come: in Fast Lane Only there are none to count, so a rate of 0 would be a wrong figure."""
        return self.telemetry_mode != TelemetryMode.FAST_LANE_ONLY or not self.is_alive

    @property
    def progress(self) -> float | None:
        """Steps of the total, 0 to 1."""
        return None if not self.total_steps else min(1.0, self.steps / self.total_steps)

    @property
    def search_text(self) -> str:
        """Everything a search looks at, in small letters."""
        if not self._found:
            words = (self.name, self.run, self.env_id, self.algo, self.script, *self.tags)
            self._found = "\n".join(words).lower()
        return self._found

    def estimate(self) -> None:
        """Work out `eta_s` from steps, total and rate."""
        if self.total_steps and self.is_alive and self.is_kept and self.step_rate_hz > 0:
            self.eta_s = max(0, self.total_steps - self.steps) / self.step_rate_hz
        else:
            self.eta_s = None

    def set_name(self, name: str) -> None:
        """Name it, unless that is no name."""
        if name and name != self.name:
            self.name, self._found = name, ""

    def set_facts(self, facts: Mapping[str, Any]) -> None:
        """Take what its worker told of itself: config, host, versions. Unknown shapes are passed over."""
        config = _mapping(facts.get("config"))
        both = (config, facts)
        spec = _mapping(facts.get("env"))
        self.env_id = _text(both, ENV_KEYS) or _text([spec], ("id",)) or self.env_id
        self.algo = _text(both, ALGO_KEYS) or self.algo
        self.script = script_of(facts.get("command")) or self.script
        host = facts.get("host")
        self.host = host if isinstance(host, str) else self.host
        self.total_steps = _total(config) or self.total_steps
        self.tags = _tags(facts.get("tags")) or _tags(config.get("tags")) or self.tags
        self.has_facts = True
        self._found = ""


def facts_of(config: object, facts: object) -> dict[str, Any]:
    """Facts from the columns `config` and `facts` of the table `runs`: JSON texts, or NULL."""
    found = dict(_mapping(_parsed(facts)))
    return found | {"config": dict(_mapping(_parsed(config))) or found.get("config")}


def script_of(command: object) -> str:
    """What a command line starts, for people: `train.py`, or the module behind `-m`."""
    words = command.split() if isinstance(command, str) else []
    if "-m" in words[:-1]:
        return words[words.index("-m") + 1][:MAX_TEXT]
    found = next((word for word in words if word.endswith(".py")), words[0] if words else "")
    return found.rpartition("/")[2][:MAX_TEXT]


def _parsed(text: object) -> object:
    if not isinstance(text, str):
        return text
    try:
        return json.loads(text)
    except ValueError:
        return None


def _mapping(value: object) -> Mapping[str, Any]:
    return cast("Mapping[str, Any]", value) if isinstance(value, Mapping) else {}


def _text(maps: Iterable[Mapping[str, Any]], keys: Iterable[str]) -> str:
    wanted = list(keys)
    for found in maps:
        for key in wanted:
            value = found.get(key)
            if isinstance(value, str) and value.strip():
                return value.strip()[:MAX_TEXT]
    return ""


def _total(config: Mapping[str, Any]) -> int | None:
    for key in TOTAL_KEYS:
        value = config.get(key)
        if isinstance(value, int | float) and not isinstance(value, bool) and 0 < value < 1 << 62:
            return int(value) or None
    return None


def _tags(value: object) -> tuple[str, ...]:
    if isinstance(value, str):
        value = value.split(",")
    if not isinstance(value, list | tuple):
        return ()
    words = cast("list[object]", value)
    return tuple(word.strip()[:MAX_TEXT] for word in words if isinstance(word, str) and word.strip())[:MAX_TAGS]
