"""One case of bench_caller, in a process of its own, so that no package's threads disturb another's figures.

Started by bench_caller.py as `caller_cases.py CASE BURSTS CLOCK`; prints its series as one JSON line.
"""

import contextlib
import importlib
import importlib.util
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Generator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import msgpack  # pyright: ignore[reportMissingTypeStubs]
import numpy as np
import zmq
from graph_rig import running_graph, settle
from measuring import Series, interleave, single_calls, timed, tuple_and_clock

NOT_INSTALLED = "not installed"
EPISODE_STEPS = 200
READER = """
import sys, zmq
socket = zmq.Context().socket(zmq.PULL)
socket.set_hwm(1_000_000)
socket.bind(sys.argv[1])
print("bound", flush=True)
count = 0
while socket.recv():
    count += 1
print(count)
"""

Call = Callable[[int], object]
Loop = Callable[[int], object]


def loop_of(call: Call) -> Loop:
    """A loop that calls a function of the step's number."""

    def loop(steps: int) -> None:
        for number in range(steps):
            call(number)

    return loop


@dataclass(frozen=True, slots=True)
class Measurement:
    """How often, and by which clock of `measuring.CLOCKS`."""

    bursts: int
    clock: str

    def of(
        self, calls: dict[str, Call], steps: int, waits: Callable[[], object], loops: dict[str, Loop] | None = None
    ) -> dict[str, Series]:
        """Bursts, then single calls, those by the wall. `loops` are written out where a function around the call
        would show in the figure.
        """
        chosen = {name: loop_of(call) for name, call in calls.items()} | (loops or {})
        cases = {name: timed(loop, self.clock) for name, loop in chosen.items()}
        found = interleave(cases, self.bursts, steps, waits, timed(tuple_and_clock, self.clock))
        for name, call in calls.items():
            for _ in range(self.bursts):
                waits()
                found[name].singles += single_calls(call, steps)
        return found


def runlane_case(chosen: Measurement) -> dict[str, Series]:
    """`session.step()`, without and with an observation, while the whole graph runs."""
    observation = np.zeros(4, np.float32)
    with running_graph() as graph:
        scalars, observed = graph.open_session(), graph.open_session()

        def loop(steps: int) -> None:
            for number in range(steps):
                scalars.step(number & 1, 1.0, number % EPISODE_STEPS == 199, False)

        def observed_loop(steps: int) -> None:
            for number in range(steps):
                observed.step(number & 1, 1.0, number % EPISODE_STEPS == 199, False, observation=observation)

        def call(number: int) -> None:
            scalars.step(number & 1, 1.0, number % EPISODE_STEPS == 199, False)

        def observed_call(number: int) -> None:
            observed.step(number & 1, 1.0, number % EPISODE_STEPS == 199, False, observation=observation)

        def wait() -> None:
            settle(scalars)
            settle(observed)

        calls: dict[str, Call] = {"step": call, "observation": observed_call}
        found = chosen.of(calls, 20_000, wait, {"step": loop, "observation": observed_loop})
        wait()
        expected = scalars.env_steps + observed.env_steps
        if graph.stored_steps() != expected:
            sys.exit(f"not exact: {graph.stored_steps()} stored of {expected}")
        scalars.close()
        observed.close()
    return found


def gymnasium_case(chosen: Measurement) -> dict[str, Series]:
    """CartPole's own `step()`, the same behind a wrapper that only passes on, and behind `wrap(env)`."""
    gymnasium = importlib.import_module("gymnasium")
    from runlane.workers import wrap

    def stepping(env: Any) -> Call:
        env.reset(seed=1)

        def call(number: int) -> None:
            _, _, terminated, truncated, _ = env.step(number & 1)
            if terminated or truncated:
                env.reset()

        return call

    with running_graph() as graph:
        session = graph.open_session()
        calls = {
            "env": stepping(gymnasium.make("CartPole-v1")),
            "empty_wrapper": stepping(gymnasium.Wrapper(gymnasium.make("CartPole-v1"))),
            "wrap": stepping(wrap(gymnasium.make("CartPole-v1"), session=session)),
        }
        # Short bursts, three times as many: what a wrapper adds is small beside an `env.step` that itself varies.
        found = replace(chosen, bursts=3 * chosen.bursts).of(calls, 2_000, lambda: settle(session))
        session.close()
    return found


def json_case(chosen: Measurement) -> dict[str, Series]:
    """One JSON object as a line, flushed to the file at each step."""
    with tempfile.TemporaryDirectory() as folder, (Path(folder) / "steps.jsonl").open("w") as file:

        def call(number: int) -> None:
            file.write(json.dumps(record(number)) + "\n")
            file.flush()

        return chosen.of({"json_line": call}, 5_000, lambda: None)


def record(number: int) -> dict[str, Any]:
    """A step as the other ways write it."""
    return {
        "seq": number + 1,
        "t_ns": time.time_ns(),
        "episode": number // EPISODE_STEPS,
        "step": number % EPISODE_STEPS + 1,
        "action": number & 1,
        "reward": 1.0,
        "terminated": number % EPISODE_STEPS == 199,
        "truncated": False,
    }


def zmq_case(chosen: Measurement) -> dict[str, Series]:
    """One MessagePack message over PUSH at each step, never waiting, to a process that reads and counts."""
    pack = cast("Callable[[object], bytes]", msgpack.packb)  # pyright: ignore[reportUnknownMemberType]
    with tempfile.TemporaryDirectory() as folder, zmq.Context() as context:
        endpoint = f"ipc://{folder}/steps"
        reader = subprocess.Popen([sys.executable, "-c", READER, endpoint], stdout=subprocess.PIPE, text=True)
        assert reader.stdout is not None
        reader.stdout.readline()
        with context.socket(zmq.PUSH) as socket:
            socket.set_hwm(1_000_000)
            socket.connect(endpoint)
            no_wait = int(zmq.NOBLOCK)
            sent = 0

            def call(number: int) -> None:
                nonlocal sent
                socket.send(pack(record(number)), no_wait)
                sent += 1

            found = chosen.of({"zmq_message": call}, 5_000, lambda: time.sleep(0.05))  # the reader catches up
            socket.send(b"")
            received = int(reader.stdout.readline())
            reader.wait()
    if received != sent:
        sys.exit(f"not exact: {received} received of {sent}")
    return found


def tensorboard_case(chosen: Measurement) -> dict[str, Series]:
    """tensorboardX's SummaryWriter: the one with `add_scalar` that needs neither torch nor TensorFlow."""
    package = importlib.import_module("tensorboardX")
    with tempfile.TemporaryDirectory() as folder:
        writer = package.SummaryWriter(folder)
        total = 0

        def call(_number: int) -> None:
            nonlocal total
            total += 1
            writer.add_scalar("reward", 1.0, total)

        found = chosen.of({"tensorboard": call}, 2_000, lambda: None)
        writer.close()
    return found


def wandb_case(chosen: Measurement) -> dict[str, Series]:
    """wandb in offline mode, with its system statistics, console capture and error reports off."""
    os.environ |= {"WANDB_MODE": "offline", "WANDB_SILENT": "true", "WANDB_ERROR_REPORTING": "false"}
    os.environ |= {"OTEL_SDK_DISABLED": "true"}
    with tempfile.TemporaryDirectory() as folder:
        os.environ |= {f"WANDB_{name}_DIR": folder for name in ("CACHE", "CONFIG", "DATA", "ARTIFACT")}
        os.environ["WANDB_DIR"] = folder
        package = importlib.import_module("wandb")
        settings = package.Settings(silent=True, console="off", x_disable_stats=True, x_disable_meta=True)
        run = package.init(project="bench", mode="offline", dir=folder, settings=settings)
        found = chosen.of({"wandb": lambda _: run.log({"reward": 1.0})}, 500, lambda: time.sleep(0.1))
        run.finish()
    return found


CASES: dict[str, tuple[str, Callable[[Measurement], dict[str, Series]]]] = {  # needed package, case
    "runlane": ("", runlane_case),
    "gymnasium": ("gymnasium", gymnasium_case),
    "json_line": ("", json_case),
    "zmq_message": ("", zmq_case),
    "tensorboard": ("tensorboardX", tensorboard_case),
    "wandb": ("wandb", wandb_case),
}


@contextlib.contextmanager
def _quiet_stdout() -> Generator[None]:
    """Standard output belongs to the result: whatever a package prints goes to standard error."""
    kept = os.dup(1)
    os.dup2(2, 1)
    try:
        yield
    finally:
        sys.stdout.flush()
        os.dup2(kept, 1)
        os.close(kept)


def main(name: str, bursts: int, clock: str) -> None:
    """Run one case and print its series, or that its package is not installed."""
    package, case = CASES[name]
    if package and importlib.util.find_spec(package) is None:
        print(json.dumps({"missing": package}))
        return
    with _quiet_stdout():
        found = case(Measurement(bursts, clock))
    series = {key: [one.measured, one.ratios, one.singles] for key, one in found.items()}
    print(json.dumps({"series": series}))


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), sys.argv[3])
