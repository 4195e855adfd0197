"""A worker that runs a training script of one file, as CleanRL writes them, unedited and with everything hooked.

    python -m runlane.workers.cleanrl ppo.py --env-id CartPole-v1

The script runs in this process as `__main__`, as `python ppo.py` would run it: its arguments, its path, its tracebacks
and its exit code are its own. Its environments become streams, its scalars metrics, its arguments the run's config.
`--compat` lets a script written for Gymnasium 0.29 run on 1.x; it comes before the script's path.
"""

from __future__ import annotations

import argparse
import atexit
import io
import os
import signal
import sys
from importlib.machinery import SourceFileLoader
from pathlib import Path
from types import ModuleType
from typing import Any

from runlane.config import names

BAD_OPTIONS = 2
_kept: list[ModuleType] = []  # a module that nothing refers to is emptied while its code still runs


def parse_options(argv: list[str]) -> argparse.Namespace:
    """Read our own part of the command line; all from the script's path on is the script's."""
    parser = argparse.ArgumentParser(
        prog="python -m runlane.workers.cleanrl", description="Run a training script, unedited, with telemetry."
    )
    parser.add_argument("--compat", action="store_true", help="let a script for Gymnasium 0.29 run on Gymnasium 1.x")
    parser.add_argument("script", help="path of the script")
    more = parser.add_argument("arguments", nargs=argparse.REMAINDER, help="the script's own arguments")
    more.required = False  # as it is; argparse would name it as missing beside the script
    return parser.parse_args(argv)


def arm(options: argparse.Namespace) -> None:
    """Hook what the script will import, in this process and in those it starts."""
    os.environ.setdefault(names.ENV_WORKER_NAME, "cleanrl")
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # read when torch loads: more threads only spin on such networks
    if options.compat:
        os.environ[names.ENV_COMPAT] = "1"
    from runlane.workers import zero_edit

    zero_edit.arm()


def become(script: str, arguments: list[str]) -> ModuleType:
    """A module `__main__` in our place, and the interpreter's state as if it had been started with the script."""
    path = os.path.abspath(script)  # noqa: PTH100  Path.absolute() leaves `..` in it, and Python does not
    main = ModuleType("__main__")
    facts: dict[str, Any] = {
        "__file__": path,
        "__builtins__": __builtins__,
        "__loader__": SourceFileLoader("__main__", path),
        "__cached__": None,
    }
    if "__annotations__" in vars(sys.modules["__main__"]):  # up to Python 3.13
        facts["__annotations__"] = {}
    vars(main).update(facts)
    _kept.append(sys.modules["__main__"])
    sys.modules["__main__"] = main
    sys.argv[:] = [script, *arguments]
    sys.orig_argv[:] = [sys.executable, script, *arguments]
    if not sys.flags.safe_path:
        sys.path[0] = str(Path(script).resolve().parent)
    return main


def run(main: ModuleType, source: bytes) -> int:
    """Execute it. What it raises is told as the interpreter would, without a frame of ours."""
    try:
        code = compile(source, str(main.__file__), "exec", dont_inherit=True)
        exec(code, vars(main))  # noqa: S102  the script is what we were asked to run
    except SystemExit:
        raise
    except BaseException as error:
        trace = error.__traceback__
        shown = trace.tb_next if trace is not None else None
        sys.last_type, sys.last_value, sys.last_traceback = type(error), error, shown
        setattr(sys, "last_exc", error)  # noqa: B010  known to Python from 3.12 on
        sys.excepthook(type(error), error.with_traceback(shown), shown)
        if isinstance(error, KeyboardInterrupt):
            _interrupted.append(error)
        return 1
    return 0


_interrupted: list[BaseException] = []


def _end_as_interrupted() -> None:
    """Last of all: a process that Ctrl-C ended says so to its parent by dying of the signal, as Python does."""
    if _interrupted:
        for stream in (sys.stdout, sys.stderr):
            if isinstance(stream, io.TextIOBase) and not stream.closed:
                stream.flush()
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGINT)


def main(argv: list[str] | None = None) -> int:
    """Run the script, and return its exit status."""
    options = parse_options(sys.argv[1:] if argv is None else argv)
    try:
        source = Path(options.script).read_bytes()
    except OSError as error:
        sys.stderr.write(f"cannot read {options.script}: {error.strerror}; give a script's path\n")
        return BAD_OPTIONS
    atexit.register(_end_as_interrupted)  # before anybody's, so after everybody's
    arm(options)
    return run(become(options.script, options.arguments), source)


if __name__ == "__main__":
    raise SystemExit(main())
