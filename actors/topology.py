"""The program as a graph: settings → child specs in start order, and how each command is run.

Start order: router, DB writer, other subscribers, then each worker behind its proxy. Stop order: `STOP_ORDER`.
"""

import os
import shlex
import sys
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Literal

from runlane.actors import guard
from runlane.config import names
from runlane.config.errors import SettingsError
from runlane.config.settings import Restart, Settings, WorkerSettings
from runlane.transport.endpoint import data_dir_of, ipc_endpoint
from runlane.transport.identity import new_run_id

Kind = Literal["router", "subscriber", "worker", "proxy", "gui"]
STOP_ORDER: tuple[Kind, ...] = ("worker", "proxy", "router", "subscriber", "gui")
MAX_NAME = 32

_PYTHON = "{python}"
_RUNLANE = "{runlane}"


@dataclass(frozen=True, slots=True, kw_only=True)
class ChildSpec:
    """What to start and how to treat it. `environment` is added to the supervisor's own.

    A child that `reports_heartbeat` is one of our actors, run by `run_actor`; any other is behind the guard.
    `worker` and `run` are set for a worker and for its proxy, and tell which belong together.
    """

    name: str
    kind: Kind
    command: list[str]
    restart: Restart
    reports_heartbeat: bool
    environment: dict[str, str] = field(default_factory=dict[str, str])
    worker: str = ""
    run: str = ""

    @property
    def stop_stage(self) -> int:
        """Its place in the ordered stop."""
        return STOP_ORDER.index(self.kind)


def proxy_name(worker: str) -> str:
    """Name of a worker's proxy: of the child, its lock and its socket."""
    return f"{names.PROXY_PREFIX}{worker}"


def unique_name(wanted: str, taken: Collection[str]) -> str:
    """`wanted`, or with the smallest free suffix `-2`, `-3`; never longer than a name may be."""
    name, number = wanted, 1
    while name in taken:
        number += 1
        suffix = f"-{number}"
        name = wanted[: MAX_NAME - len(suffix)] + suffix
    return name


class Topology:
    """The specs of one supervisor's life. Workers of the same `run_name` (or of none) share one new run id."""

    def __init__(
        self, settings: Settings, wall_ns: int, child_arguments: Sequence[str] = (), *, with_gui: bool = False
    ) -> None:
        """`child_arguments` are the `--config` and `--set` options every child gets as the supervisor did.

        `with_gui` adds the window. It is never started again: who closes it wants it closed.
        """
        self._settings = settings
        self._with_gui = with_gui
        self._child_arguments = list(child_arguments)
        run_names = {worker.run_name for worker in settings.workers.values()}
        self._runs = {run_name: new_run_id(wall_ns) for run_name in run_names}

    def specs(self) -> list[ChildSpec]:
        """Every configured child in start order; raises `SettingsError` when two get the same name."""
        specs = [self._actor(names.ROUTER, "router", self._settings.router.restart), *self._subscribers()]
        for name, worker in self._settings.workers.items():
            run, run_name = self._runs[worker.run_name], worker.run_name or ""
            specs += [self.proxy(name, run, run_name), self._worker(name, worker, run, run_name)]
        if self._with_gui and not any(spec.kind == "gui" for spec in specs):
            specs.append(self._spec(names.GUI, "gui", [_RUNLANE, "gui"], "temporary"))
        seen: set[str] = set()
        for spec in specs:
            if spec.name in seen:
                raise SettingsError(spec.name, None, "names two processes of the graph", "rename one")
            seen.add(spec.name)
        return specs

    def proxy(self, worker: str, run: str, run_name: str, keeper_pid: int = 0) -> ChildSpec:
        """The proxy of a worker, whoever starts that worker: `keeper_pid`, or else the supervisor."""
        return ChildSpec(
            name=proxy_name(worker),
            kind="proxy",
            command=self._expanded([_RUNLANE, "actor", "proxy", "--worker", worker]),
            restart="transient",
            reports_heartbeat=True,
            environment={
                **_run_environment(worker, run, run_name),
                names.ENV_KEEPER: str(keeper_pid or os.getpid()),
            },
            worker=worker,
            run=run,
        )

    def recovery(self) -> ChildSpec:
        """What drains the journals that have no proxy; started when there are some."""
        return self._actor(names.RECOVERY, "proxy", "transient")

    def _actor(self, name: str, kind: Kind, restart: Restart) -> ChildSpec:
        command = self._expanded([_RUNLANE, "actor", name])
        return ChildSpec(name=name, kind=kind, command=command, restart=restart, reports_heartbeat=True)

    def _subscribers(self) -> list[ChildSpec]:
        """DB writer first, so that the durable path is there before anything is produced; GUI last."""
        found = [
            self._spec(name, "gui" if name == names.GUI else "subscriber", declared.command, declared.restart)
            for name, declared in self._settings.subscribers.items()
            if declared.command is not None
        ]
        if self._settings.recorder.enabled:
            found.append(self._actor(names.RECORDER, "subscriber", _recorder_restart()))
        return sorted(found, key=lambda spec: (spec.kind == "gui", spec.name != names.DB_WRITER))

    def _worker(self, name: str, worker: WorkerSettings, run: str, run_name: str) -> ChildSpec:
        environment = {
            **_run_environment(name, run, run_name),
            names.ENV_PROXY: ipc_endpoint(self._settings, proxy_name(name)),
            names.ENV_COMMAND: shlex.join(self._expanded(worker.command)),
        }
        return self._spec(name, "worker", worker.command, worker.restart, environment, run)

    def _spec(
        self,
        name: str,
        kind: Kind,
        command: list[str],
        restart: Restart,
        environment: dict[str, str] | None = None,
        run: str = "",
    ) -> ChildSpec:
        is_ours = _is_actor(command)
        expanded = self._expanded(command)
        added = dict(environment or {})
        return ChildSpec(
            name=name,
            kind=kind,
            command=expanded if is_ours else self._guarded(expanded),
            restart=restart,
            reports_heartbeat=is_ours,
            environment=added if is_ours else {**settings_environment(self._settings, self._child_arguments), **added},
            worker=name if kind == "worker" else "",
            run=run,
        )

    def _expanded(self, command: Sequence[str]) -> list[str]:
        """Placeholders replaced, and the settings options appended for an actor of ours."""
        replaced: list[str] = []
        for argument in command:
            if argument == _RUNLANE:
                replaced += [sys.executable, "-m", "runlane"]
            else:
                replaced.append(sys.executable if argument == _PYTHON else argument)
        return replaced + self._child_arguments if _is_actor(command) else replaced

    def _guarded(self, command: list[str]) -> list[str]:
        grace_s = f"{self._settings.supervisor.worker_grace_s:g}"
        return [sys.executable, "-I", "-S", str(Path(guard.__file__).absolute()), grace_s, *command]


def settings_environment(settings: Settings, arguments: Sequence[str]) -> dict[str, str]:
    """Options as variables: a foreign command may change directory and takes no options of ours."""
    found: dict[str, str] = {}
    if os.environ.get(names.ENV_CONFIG):
        found[names.ENV_CONFIG] = str(Path(os.environ[names.ENV_CONFIG]).absolute())
    for option, value in _options(arguments):
        key, _, text = value.partition("=")
        if option == "--config":
            found[names.ENV_CONFIG] = str(Path(value).absolute())
        elif option == "--set" and _is_variable(key.strip()):
            found[_variable(key.strip())] = text.strip()
    for key in ("run_dir", "keys_dir"):
        path = getattr(settings.transport, key)
        if path is not None:
            found[_variable(f"transport.{key}")] = str(Path(path).absolute())
    return {**found, _variable("data_dir"): str(data_dir_of(settings))}


def _recorder_restart() -> Restart:
    """Without PyAV the recorder says so and ends. Started again it would end again, until the whole graph gives up."""
    return "transient" if find_spec("av") is not None else "temporary"


def _is_actor(command: Sequence[str]) -> bool:
    return list(command[:2]) == [_RUNLANE, "actor"]


def _run_environment(worker: str, run: str, run_name: str) -> dict[str, str]:
    return {names.ENV_RUN: run, names.ENV_RUN_NAME: run_name, names.ENV_WORKER_NAME: worker}


def _options(arguments: Sequence[str]) -> list[tuple[str, str]]:
    """`--set K=V` and `--set=K=V` alike, as (option, value)."""
    found: list[tuple[str, str]] = []
    waiting = ""
    for argument in arguments:
        if waiting:
            found.append((waiting, argument))
            waiting = ""
        elif argument in ("--config", "--set"):
            waiting = argument
        else:
            option, _, value = argument.partition("=")
            found.append((option, value))
    return found


def _is_variable(key: str) -> bool:
    """Whether the key survives as a variable name: `config/load.py` reads those in lower case."""
    return key == key.lower() and key.replace(".", "_").isidentifier()


def _variable(key: str) -> str:
    return names.ENV_PREFIX + key.upper().replace(".", "__")
