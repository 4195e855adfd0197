"""What a stream says of its run as it begins: command, config, versions, host, and the state of the repository.

Read from memory and from a few small files: nothing is imported or started for it, in a process that is not ours.
"""

import json
import os
import shlex
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import runlane
from runlane.config import names
from runlane.transport.git_head import git_head
from runlane.transport.identity import host_name
from runlane.workers.plain_values import MAX_FACTS_BYTES, MAX_MAP_BYTES, plain_map, short_text
from runlane.workers.secret import masked, masked_arguments

MAX_ARGUMENTS = 1_000
_VERSIONS_OF = (
    *("numpy", "gymnasium", "gym", "ale_py", "minigrid", "mujoco", "pettingzoo", "vizdoom", "pygame"),
    *("torch", "jax", "tensorflow", "stable_baselines3", "sb3_contrib", "tianshou", "ray", "spade", "spade_bdi"),
)


def facts_at_start(config: Any) -> dict[str, Any]:
    """The facts of a stream's first record."""
    system = os.uname()
    arguments = masked_arguments(_arguments())
    return {
        "command": short_text(shlex.join(arguments)),
        "arguments": [short_text(argument) for argument in arguments[:MAX_ARGUMENTS]],
        "config": masked(plain_map(mapping_of(config), MAX_FACTS_BYTES)),
        "host": host_name(),
        "pid": os.getpid(),
        "directory": _directory(),
        "python": sys.version.split()[0],
        "platform": f"{system.sysname} {system.release} {system.machine}",
        "versions": versions(),
        **launch_facts(),
    }


def versions() -> dict[str, str]:
    """Versions of those libraries that are imported by now, as they say them."""
    found = {"python": sys.version.split()[0], "runlane": runlane.__version__}
    for name in _VERSIONS_OF:
        version = getattr(sys.modules.get(name), "__dict__", {}).get("__version__")
        if version is not None:
            found[name] = short_text(version, 64)
    return found


def mapping_of(config: Any) -> Mapping[str, Any]:
    """A config as a mapping: also `argparse.Namespace`, a dataclass or any object with attributes."""
    attributes: Mapping[str, Any] | None = getattr(config, "__dict__", None)
    if isinstance(config, Mapping):
        attributes = cast("Mapping[str, Any]", config)
    elif attributes is None:
        attributes = {} if config is None else {"config": str(config)}
    return attributes


def _arguments() -> list[str]:
    try:
        return shlex.split(os.environ[names.ENV_COMMAND])
    except (KeyError, ValueError):
        return list(sys.orig_argv)


def _directory() -> str:
    try:
        return str(Path.cwd())
    except OSError:  # removed under our feet
        return ""


def launch_facts() -> dict[str, Any]:
    """What the launcher found out, who may ask git; without one, what git's files say."""
    try:
        told = json.loads(os.environ[names.ENV_FACTS])
        return plain_map(told, MAX_MAP_BYTES) if isinstance(told, dict) else {}  # pyright: ignore[reportUnknownArgumentType]
    except (KeyError, ValueError):
        directory = _directory()
        state = git_head(Path(directory)) if directory else {}
        return {"git": state} if state else {}
