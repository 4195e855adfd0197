"""Where the interpreters of the worker kinds are: one environment each, because their pins conflict.

`.ci/kind NAME` makes `.venvs/NAME`. A kind whose packages this interpreter has needs no environment of its own.
"""

import os
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
VENVS = Path(os.environ.get("KIND_VENVS", str(ROOT / ".venvs"))).absolute()


def interpreter_of(kind: str, *modules: str) -> Path:
    """The interpreter of a kind; ours, where it has `modules`. Without either the test is skipped, with the remedy.

    The path is that of the link in the environment: what it leads to would not know the environment's packages.
    """
    own = VENVS / kind
    if (own / ".installed").exists():
        return own / "bin/python"
    if modules and all(find_spec(module) is not None for module in modules):
        return Path(sys.executable)
    pytest.skip(f"NO ENVIRONMENT for {kind}: make it with `.ci/kind {kind}`")
