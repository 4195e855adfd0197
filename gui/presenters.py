"""Presenters: what a worker of a type is called in the window, and which lanes it has. One for each type, registered.

A lane's tab is called `{worker type}-Live-{agent}`. A type nobody has registered is shown as the default one is.

A worker is `TYPE` or `TYPE-AGENT`: `sb3`, `sb3-1`, `sb3-2` are the environments of one script, `worker-player_0` is one
agent of several. The one with the plain name is agent 0.
"""

import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Protocol

from runlane.transport.ring_layout import RingInfo

SHORT_ID = 8
FIRST_AGENT = "0"


@dataclass(frozen=True, slots=True, kw_only=True)
class LaneChoice:
    """One lane to show: `run` is an id, the beginning of one or a name, `worker` a name, as in its ring's head.

    `env_count` is that of a vector environment, 1 for a single one. `agent` tells it from the others of its run; empty
    where it is alone.
    """

    run: str
    worker: str
    title: str
    subtitle: str = ""
    env_count: int = 1
    name: str = ""  # of its tab
    agent: str = ""

    @property
    def key(self) -> tuple[str, str]:
        """What tells it from others."""
        return self.run, self.worker


class WorkerPresenter(Protocol):
    """Shows the workers of one type."""

    @property
    def worker_type(self) -> str:
        """What a worker says it is; the beginning of its name up to the first `-`."""
        ...

    @property
    def label(self) -> str:
        """What people call it."""
        ...

    def tab_name(self, agent: str) -> str:
        """Name of the tab of one agent."""
        ...

    def lanes(self, infos: Iterable[RingInfo]) -> list[LaneChoice]:
        """The lanes of some rings, in their order."""
        ...


@dataclass(frozen=True, slots=True)
class PlainPresenter:
    """A presenter that a type and a label make."""

    worker_type: str
    label: str
    subtitle: str = ""

    def tab_name(self, agent: str) -> str:
        """`{label}-Live-{agent}`."""
        return f"{self.label}-Live-{agent}"

    def lanes(self, infos: Iterable[RingInfo]) -> list[LaneChoice]:
        """One lane for each ring, named after the run where it has a name."""
        return [self._lane(info) for info in infos]

    def _lane(self, info: RingInfo) -> LaneChoice:
        title = info.run_name or info.worker
        envs = f"{info.env_count} envs" if info.env_count > 1 else ""
        parts = [self.subtitle, info.worker if info.worker not in (title, self.worker_type) else "", envs]
        return LaneChoice(
            run=info.run,
            worker=info.worker,
            title=title,
            subtitle=" · ".join(part for part in parts if part) or info.run[:SHORT_ID],
            env_count=info.env_count,
            name=self.tab_name(agent_of(info.worker)),
        )


DEFAULT = PlainPresenter("python", "Python")
_registered: dict[str, WorkerPresenter] = {}


def register(presenter: WorkerPresenter) -> None:
    """Show workers of this type so from now on. Raises `ValueError` where the type has another presenter."""
    known = _registered.setdefault(presenter.worker_type, presenter)
    if known != presenter:
        raise ValueError(f"worker type {presenter.worker_type!r} is shown by {known.label}: register it once")


def presenter_for(worker_type: str) -> WorkerPresenter:
    """Who shows this type; the default one for a type that nobody has registered."""
    return _registered.get(worker_type, DEFAULT)


def worker_type_of(info: RingInfo) -> str:
    """The type of a worker by its name: `cartpole-3` is a cartpole, any other is the default."""
    head = info.worker.partition("-")[0].lower()
    return head if head in _registered else DEFAULT.worker_type


def agent_of(worker: str) -> str:
    """Which agent a worker is, by its name: `sb3-2` is 2, `sb3` is 0; a name of nobody's type is an agent's own."""
    head, dash, agent = worker.partition("-")
    if head.lower() not in _registered:
        return worker
    return agent if dash and agent else FIRST_AGENT


def lanes_of(infos: Iterable[RingInfo]) -> list[LaneChoice]:
    """The lanes of rings of any types, in their order."""
    known = list(infos)
    lanes = [lane for info in known for lane in presenter_for(worker_type_of(info)).lanes([info])]
    count = Counter(lane.run for lane in {lane.key: lane for lane in lanes}.values())
    return [replace(lane, agent=agent_of(lane.worker)) if count[lane.run] > 1 else lane for lane in lanes]


def beside_their_run(shown: Iterable[LaneChoice], new: Iterable[LaneChoice]) -> list[LaneChoice]:
    """Lanes with new ones among them: each in its place among the agents of its run, those of new runs at the end."""
    lanes = list(shown)
    for lane in new:
        same = [place for place, known in enumerate(lanes) if known.run == lane.run]
        later = [place for place in same if natural(lanes[place].worker) > natural(lane.worker)]
        lanes.insert(later[0] if later else same[-1] + 1 if same else len(lanes), lane)
    return lanes


def natural(name: str) -> list[tuple[int, str]]:
    """A key that sorts `w-2` before `w-10`."""
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in re.split(r"(\d+)", name) if part]


register(DEFAULT)
register(PlainPresenter("worker", "Python"))  # what `runlane run` calls it where nobody says
register(PlainPresenter("cartpole", "CartPole", "CartPole-v1"))
register(PlainPresenter("cleanrl", "CleanRL"))
register(PlainPresenter("sb3", "SB3"))
register(PlainPresenter("spade", "SPADE-BDI"))
register(PlainPresenter("coach", "Coach"))
register(PlainPresenter("godot", "Godot"))
register(PlainPresenter("vizdoom", "ViZDoom"))
