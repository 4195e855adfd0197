"""Runs Intel's Coach and writes what it does as JSON lines. For Coach's own interpreter: Python 3.6, standard library.

    python3.6 coach_shim.py LANE_DESCRIPTOR COACH_ARGUMENTS...

Three hooks: `Environment.step` (and its reset) for steps and pictures, `BaseLogger.create_signal_value` for metrics,
and the question Coach asks as it ends, which nobody is there to answer. Coach's own results and output stay as they
are: what fails here is counted, said once, and left out.
"""

import atexit
import functools
import importlib.util
import json
import os
import runpy
import sys
import time
from typing import Any, Callable, Dict, List, Optional, Tuple

INTERRUPTED = 130  # 128 + SIGINT, as of the other worker kinds
FASTLANE_ON = os.environ.get("FASTLANE") == "1"


class Shim:
    """Writes lines, and pictures into a ring while somebody watches."""

    def __init__(self, write: Callable[[str], Any], lane: Any) -> None:
        """`write` takes one whole line; `lane` is a `PlainLane`."""
        self.faults = 0
        self._write = write
        self._lane = lane
        self._environments: Dict[int, int] = {}
        self._running: Dict[int, bool] = {}
        self._phase = ""

    def tell(self, **line: Any) -> None:
        """Write one line."""
        self._write(json.dumps(line, default=plain) + "\n")

    def guard(self, call: Callable[..., Any], *arguments: Any) -> None:
        """Do something of ours, which must not harm training."""
        try:
            call(*arguments)
        except Exception as error:
            self.faults += 1
            if self.faults == 1:
                sys.stderr.write("runlane: a record of Coach's is left out: %r\n" % (error,))

    # ---- what Coach calls ----

    def on_step(self, environment: Any, action: Any) -> None:
        """A step was made; `environment` is as after it."""
        index = self._index(environment)
        self._tell_phase(environment)
        reward, is_over = float(environment.reward), bool(environment.done)
        get = getattr(environment.info, "get", None)
        is_truncated = is_over and get is not None and bool(get("TimeLimit.truncated"))
        self._running[index] = not is_over
        line: Dict[str, Any] = {"kind": "step", "action": plain(action), "reward": reward}
        if is_over:
            line["truncated" if is_truncated else "terminated"] = True
        if index:
            line["env_index"] = index
        self.tell(**line)
        if index == 0:
            self._lane.step(reward, is_over)
            self._lane.offer(functools.partial(picture_of, environment))

    def on_reset(self, environment: Any) -> None:
        """An episode begins; the one before may have been given up."""
        index = self._index(environment)
        if self._running.get(index):
            self._running[index] = False
            self.tell(kind="episode", outcome="abandoned", env_index=index)
            if index == 0:
                self._lane.give_up()

    def on_signal(self, name: Any, value: Any) -> None:
        """A named scalar; Coach also has texts and nothings under such names."""
        number = plain(value)
        if isinstance(number, (int, float)) and not isinstance(number, bool):
            self.tell(kind="metric", name=str(name), value=float(number))

    # ---- inside ----

    def _index(self, environment: Any) -> int:
        key = id(environment)
        if key not in self._environments:
            if not self._environments:
                self.tell(kind="run", env={"id": str(environment.env_id)}, versions=versions())
            self._environments[key] = len(self._environments)
        return self._environments[key]

    def _tell_phase(self, environment: Any) -> None:
        phase = str(getattr(getattr(environment, "phase", None), "name", ""))
        if phase != self._phase:
            self._phase = phase
            self.tell(kind="log", text="phase " + phase)


def plain(value: Any) -> Any:
    """A NumPy scalar or array as what JSON has; anything else as its text."""
    found: Any = value
    if value is not None and not isinstance(value, (bool, int, float, str, list, dict)):
        to_list = getattr(found, "tolist", None)
        found = to_list() if to_list is not None else str(found)
    return found


def picture_of(environment: Any) -> Optional[Tuple[Any, int, int, int]]:
    """What the environment looks like now, as a ring takes it; None where it has no picture."""
    image = environment.get_rendered_image()
    if image is None or len(image.shape) not in (2, 3):
        return None
    channels = image.shape[2] if len(image.shape) == 3 else 1
    return image.astype("uint8").tobytes(), image.shape[1], image.shape[0], channels


def versions() -> Dict[str, str]:
    """What runs here."""
    found = {"python": sys.version.split()[0]}
    for name in ("rl_coach", "tensorflow", "gym", "numpy"):
        module = sys.modules.get(name)
        if module is not None:
            found[name] = str(getattr(module, "__version__", "?"))
    return found


def hook(shim: Shim, environment_type: Any, logger_type: Any, screen_type: Any) -> None:
    """Put the hooks around Coach's classes."""
    step, reset = environment_type.step, environment_type.reset_internal_state
    signal_value = logger_type.create_signal_value

    @functools.wraps(step)
    def hooked_step(self: Any, action: Any) -> Any:
        response = step(self, action)
        shim.guard(shim.on_step, self, action if action is not None else self.last_action)
        return response

    @functools.wraps(reset)
    def hooked_reset(self: Any, *arguments: Any, **options: Any) -> Any:
        shim.guard(shim.on_reset, self)
        return reset(self, *arguments, **options)

    @functools.wraps(signal_value)
    def hooked_signal_value(self: Any, signal_name: Any, value: Any, *arguments: Any, **options: Any) -> Any:
        shim.guard(shim.on_signal, signal_name, value)
        return signal_value(self, signal_name, value, *arguments, **options)

    def answer(_screen: Any, _title: Any, default: Any = None) -> bool:
        return bool(default)

    environment_type.step = hooked_step
    environment_type.reset_internal_state = hooked_reset
    logger_type.create_signal_value = hooked_signal_value
    screen_type.ask_yes_no = answer


def say(text: str) -> None:
    """A line of the fast lane's log, where it is asked for."""
    if FASTLANE_ON:
        at = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime())
        sys.stderr.write("%s.%03dZ INFO    worker %s\n" % (at, time.time() % 1 * 1000, text))


def plain_ring() -> Any:
    """The module beside this file, by its path: the folder it lies in is no place to import from."""
    path = os.path.join(os.path.dirname(os.path.abspath(__file__)), "plain_ring.py")
    found = importlib.util.spec_from_file_location("runlane_plain_ring", path)
    assert found is not None  # noqa: S101
    assert found.loader is not None  # noqa: S101
    module = importlib.util.module_from_spec(found)
    found.loader.exec_module(module)
    return module


def main(arguments: List[str]) -> None:
    """Hook Coach and run it as `python -m rl_coach.coach` would."""
    descriptor, coach_arguments = int(arguments[0]), arguments[1:]
    here = os.path.dirname(os.path.abspath(__file__))
    sys.path[:] = [path for path in sys.path if os.path.abspath(path or ".") != here]
    out = os.fdopen(descriptor, "w", buffering=1, encoding="utf-8")
    lane = plain_ring().PlainLane.from_environment(os.environ, say)
    shim = Shim(out.write, lane)
    shim.tell(kind="run", config={"coach": coach_arguments})
    atexit.register(lane.close)
    try:
        run_coach(shim, coach_arguments)
    except KeyboardInterrupt:  # Ctrl-C ends it as it ends any worker, without a traceback
        sys.exit(INTERRUPTED)


def run_coach(shim: Shim, arguments: List[str]) -> None:
    """Import Coach, put the hooks in, and run it."""
    from rl_coach.environments.environment import Environment  # type: ignore[import-not-found]  # Coach's interpreter
    from rl_coach.logger import BaseLogger, ScreenLogger  # type: ignore[import-not-found]

    hook(shim, Environment, BaseLogger, ScreenLogger)
    sys.stdin.close()  # it asks as it ends; nobody is there
    sys.argv[:] = ["coach", *arguments]
    runpy.run_module("rl_coach.coach", run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main(sys.argv[1:])
