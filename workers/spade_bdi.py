"""A worker that is a BDI agent: it lives in SPADE, thinks in AgentSpeak, and acts in a Gymnasium environment.

Its program (an `.asl` file) is told what it stands on as beliefs, and makes each step by the internal action
`.act(Action)`; `.pick(N, Number)` draws a number from 0 to N - 1. Steps are recorded with the beliefs and intentions
they were made with; what comes and goes among the beliefs, and every message of the agent, is a log line.

    python -m runlane.workers.spade_bdi --episodes 200 --env FrozenLake-v1

What a program is told, before each of its turns:

    state(S), state(S1, S2...)   the observation, as numbers
    reward(R)                    of the step before; of the first step of an episode none
    episode(E), turn(T)          numbers from 1; turn(T) comes last and is new each time
    choices(N)                   actions are 0 to N - 1
    option(slippery)             only with --slippery

Needs SPADE, spade-bdi, pyjabber, greenlet and Gymnasium: see INSTALL. They are imported when the agent starts.
"""

import argparse
import asyncio
import contextlib
import logging
import os
import signal
import sys
import time
from dataclasses import asdict, dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

from runlane.config import names
from runlane.workers import hooked_session
from runlane.workers.attachment import Session, attach
from runlane.workers.loopback_xmpp import HOST, LoopbackXmpp, import_server
from runlane.workers.number_option import positive, seed
from runlane.workers.worker_report import write_report

INSTALL = (
    'pip install "spade==4.1.4" "spade-bdi==0.3.3" "pyjabber==0.4.5" "greenlet>=3,<4" "gymnasium[toy-text]>=1.0,<2"'
)
WORKER = "spade"
PROGRAMS = {"FrozenLake-v1": "spade_frozen_lake.asl"}  # any other environment is wandered in
WANDER = "spade_wander.asl"
PATIENCE_S = 10.0  # without a step: the program has no plan for what it is told
LOOK_S = 0.25
USAGE, FAILED, INTERRUPTED = 2, 1, 130


class AgentError(Exception):
    """What ends the worker with one line, and its exit status."""

    def __init__(self, text: str, status: int = USAGE) -> None:
        """Of what was asked for; one of the running agent gives its own status."""
        super().__init__(text)
        self.status = status


class Refusal(logging.Handler):
    """Keeps the first error that the interpreter of AgentSpeak tells, in one line: with its place in the program."""

    first = ""

    def emit(self, record: logging.LogRecord) -> None:
        """The rest are its consequences."""
        if self.first or record.levelno < logging.ERROR:
            return
        place: Any = record.__dict__.get("loc")
        error = record.exc_info[1] if record.exc_info else None
        text = f"{type(error).__name__}: {error}" if error is not None else record.getMessage()
        self.first = f"{place.filename}:{place.lineno}: {text}" if place else text

    def listen(self) -> None:
        """Take the place of what prints them with their tracebacks."""
        logging.getLogger("spade.behaviour").setLevel(logging.CRITICAL)  # it would print them again
        known: dict[str, Any] = logging.Logger.manager.loggerDict
        for logger in [each for name, each in known.items() if name.startswith("agentspeak")]:
            if isinstance(logger, logging.Logger):
                logger.handlers[:] = [self]
                logger.propagate = False


@dataclass(frozen=True)
class Options:
    """What was asked for; recorded as the run's configuration."""

    episodes: int = 200
    env: str = "FrozenLake-v1"
    program: str = ""
    seed: int = 0
    slippery: bool = False


@dataclass
class Tally:
    """What the worker itself counts, to be compared with what is recorded."""

    steps: int = 0
    episodes: int = 0
    return_sum: float = 0.0
    rewarded: int = 0  # episodes with a return above 0: in FrozenLake, those that reached the goal

    def end(self, episode_return: float) -> None:
        """Count an episode that has ended."""
        self.episodes += 1
        self.return_sum += episode_return
        self.rewarded += episode_return > 0


class Walk:
    """The environment as the agent knows it: what it is told, and what it does."""

    def __init__(self, env: Any, options: Options, lane: Session) -> None:
        """`env` renders pixels; it is made, and not reset."""
        self.tally = Tally()
        self.is_done = asyncio.Event()
        self.acted_s = time.monotonic()
        self._env, self._options, self._lane = env, options, lane
        self._agent: Any = None
        self._program_beliefs: set[str] = set()
        self._known: set[str] = set()
        self._turn = 0
        self._return = 0.0
        self._is_open = False  # it is the agent's turn
        self._messages = 0
        self._rng = np.random.default_rng(options.seed)

    def begin(self, agent: Any) -> None:
        """The agent has its program; tell it where it stands."""
        self._agent = agent
        self._program_beliefs = set(self._beliefs())
        self._lane.log(f"program: {len(self._program_beliefs)} beliefs, {_plans_of(agent)} plans")
        if self._options.slippery:
            agent.bdi.set_belief("option", "slippery")
        agent.bdi.set_belief("choices", int(self._env.action_space.n))
        self._reset(self._options.seed)

    def act(self, action: Any, intentions: list[str]) -> None:
        """One step, asked for by the program."""
        if not self._is_open:
            return  # the last episode is over, or two plans have acted in one turn
        count = int(self._env.action_space.n)
        if not (isinstance(action, int | float) and 0 <= action < count):
            raise ValueError(f".act({action}) is no action here: give a number from 0 to {count - 1}")
        beliefs = self._tell_beliefs()
        observation, reward, terminated, truncated, _ = self._env.step(int(action))
        reward = float(reward)
        self.acted_s = time.monotonic()
        self._lane.step(int(action), reward, terminated, truncated, info={"beliefs": beliefs, "intentions": intentions})
        self._lane.frame(self._env.render, reward=reward)
        self.tally.steps += 1
        self._return += reward
        self._is_open = False
        if not (terminated or truncated):
            self._agent.bdi.set_belief("reward", reward)
            self._tell(observation)
            return
        self.tally.end(self._return)
        self._tell_messages()
        self._lane.log(f"episode {self.tally.episodes} {'ended' if terminated else 'cut off'}: return {self._return:g}")
        if self.tally.episodes < self._options.episodes:
            self._reset(None)
        else:
            self.is_done.set()

    def pick(self, count: int) -> int:
        """A number below `count`, for a program that leaves it to chance."""
        return int(self._rng.integers(count))

    def _reset(self, seed: int | None) -> None:
        observation, _ = self._env.reset(seed=seed)
        self._return = 0.0
        self._agent.bdi.set_belief("episode", self.tally.episodes + 1)
        self._tell(observation)

    def _tell(self, observation: Any) -> None:
        self._agent.bdi.set_belief("state", *_numbers(observation))
        self._turn += 1
        self._agent.bdi.set_belief("turn", self._turn)
        self._is_open = True

    def _beliefs(self) -> list[str]:
        held = self._agent.bdi_agent.beliefs.values()
        return sorted(_plain(belief) for beliefs in held for belief in beliefs)

    def _tell_beliefs(self) -> list[str]:
        """The beliefs that are not the program's own; what has come and gone among them since is logged."""
        beliefs = [belief for belief in self._beliefs() if belief not in self._program_beliefs]
        now = set(beliefs)
        changes = [f"-{belief}" for belief in sorted(self._known - now)]
        changes += [f"+{belief}" for belief in sorted(now - self._known)]
        self._known = now
        self._lane.log("beliefs " + " ".join(changes))
        return beliefs

    def _tell_messages(self) -> None:
        """Messages that the agent has sent and received since the last episode."""
        traces = self._agent.traces
        told = traces.all(limit=max(0, traces.len() - self._messages))
        self._messages = traces.len()
        for _, message, category in told:
            self._lane.log(f"message {message.sender} to {message.to}: {message.body} ({category})")


def _plain(term: Any) -> str:
    """A term without its annotations, as `[source(percept)]`."""
    return str(term).partition("[")[0]


def _numbers(observation: Any) -> list[int | float]:
    """An observation's numbers: one, those of a tuple, or those of an array row by row."""
    values: list[Any] = np.asarray(observation, np.float64).reshape(-1).tolist()
    return [int(value) if value.is_integer() else value for value in values]


def _plans_of(agent: Any) -> int:
    return sum(len(plans) for plans in agent.bdi_agent.plans.values())


# ---- the agent -------------------------------------------------------------------------------------------


def make_agent(walk: Walk, program: Path, port: int, refusal: Refusal) -> Any:
    """A SPADE agent with this program, whose `.act` walks."""
    agentspeak: Any = import_module("agentspeak")
    actions = agentspeak.Actions(import_module("agentspeak.stdlib").actions)

    @actions.add(".act", 1)  # type: ignore[untyped-decorator]
    def act(agent: Any, term: Any, intention: Any) -> Any:  # pyright: ignore[reportUnusedFunction]
        action = agentspeak.grounded(term.args[0], intention.scope)
        walk.act(action, [_plain(goal.head_term) for stack in agent.intentions for goal in stack])
        yield

    @actions.add(".pick", 2)  # type: ignore[untyped-decorator]
    def pick(_: Any, term: Any, intention: Any) -> Any:  # pyright: ignore[reportUnusedFunction]
        picked = walk.pick(int(agentspeak.grounded(term.args[0], intention.scope)))
        if agentspeak.unify(term.args[1], picked, intention.scope, intention.stack):
            yield

    try:
        return import_module("spade_bdi.bdi").BDIAgent(
            f"walker@{HOST}", "unseen", str(program), actions=actions, port=port
        )
    except agentspeak.AggregatedError as error:
        raise AgentError(f"the program cannot be read: {refusal.first or error}") from None


async def live(walk: Walk, program: Path, is_stopping: asyncio.Event) -> None:
    """From the server's start to its end: connect, walk until the last episode, leave."""
    refusal = Refusal()
    refusal.listen()
    async with LoopbackXmpp() as server:
        agent = make_agent(walk, program, server.port, refusal)
        await agent.start()
        try:
            walk.begin(agent)
            walk.acted_s = time.monotonic()
            await _watch(walk, agent, is_stopping, refusal)
        finally:
            await agent.stop()
            with contextlib.suppress(TimeoutError, asyncio.TimeoutError):
                await asyncio.wait_for(agent.bdi.join(), 2.0)


async def _watch(walk: Walk, agent: Any, is_stopping: asyncio.Event, refusal: Refusal) -> None:
    """Wait for the end; an agent that has died, or has no plan, would let us wait for ever."""
    ends = [asyncio.ensure_future(walk.is_done.wait()), asyncio.ensure_future(is_stopping.wait())]
    try:
        while not (walk.is_done.is_set() or is_stopping.is_set()):
            await asyncio.wait(ends, timeout=LOOK_S, return_when=asyncio.FIRST_COMPLETED)
            if agent.bdi.is_killed() and not walk.is_done.is_set():
                raise AgentError(f"the program has failed: {refusal.first or agent.bdi.exit_code}", FAILED)
            if time.monotonic() - walk.acted_s > PATIENCE_S:
                text = f"no step for {PATIENCE_S:.0f} s: the program has no plan for what it is told"
                raise AgentError(text, FAILED)
    finally:
        for end in ends:
            end.cancel()


def run(walk: Walk, program: Path) -> bool:
    """Live in SPADE's own event loop, and close it. True when it was not interrupted."""
    container: Any = import_module("spade.container").Container()
    loop: asyncio.AbstractEventLoop = container.loop
    is_stopping = asyncio.Event()

    def stop() -> None:
        is_stopping.set()
        loop.remove_signal_handler(signal.SIGINT)  # a second one interrupts whatever hangs

    loop.add_signal_handler(signal.SIGINT, stop)
    try:
        loop.run_until_complete(live(walk, program, is_stopping))
    finally:
        loop.remove_signal_handler(signal.SIGINT)
        left = asyncio.all_tasks(loop)
        for task in left:
            task.cancel()
        if left:
            loop.run_until_complete(asyncio.wait(left, timeout=2.0))
        loop.run_until_complete(loop.shutdown_asyncgens())
        loop.run_until_complete(loop.shutdown_default_executor())
        loop.close()
    return not is_stopping.is_set()


# ---- the command -----------------------------------------------------------------------------------------


def parse_options(argv: list[str] | None) -> Options:
    """Read the command line; each option is named after a field of Options and defaults to it."""
    parser = argparse.ArgumentParser(prog="python -m runlane.workers.spade_bdi", description="A BDI agent that acts.")
    add = parser.add_argument
    add("--episodes", type=positive, default=Options.episodes)
    add("--env", default=Options.env, help="a Gymnasium environment with numbered actions")
    add("--program", default=Options.program, help="AgentSpeak program; default: one that is shipped")
    add("--seed", type=seed, default=Options.seed)
    add("--slippery", action="store_true", help="FrozenLake with ice that slips")
    return Options(**vars(parser.parse_args(argv)))


def program_of(options: Options) -> Path:
    """The program's file. Raises `AgentError` where there is none."""
    if options.episodes < 1:
        raise AgentError(f"--episodes {options.episodes}: give at least 1")
    shipped = Path(__file__).with_name(PROGRAMS.get(options.env, WANDER))
    path = Path(options.program) if options.program else shipped
    if not path.is_file():
        raise AgentError(f"--program {options.program}: there is no such file; leave it out for {shipped.name}")
    return path


def make_env(options: Options) -> Any:
    """The environment. Raises `AgentError` for one that cannot be made or has no numbered actions."""
    gymnasium: Any = import_module("gymnasium")
    extra: dict[str, Any] = {"is_slippery": options.slippery} if options.env.startswith("FrozenLake") else {}
    try:
        env = gymnasium.make(options.env, render_mode="rgb_array", **extra)
    except (gymnasium.error.Error, TypeError) as error:
        raise AgentError(f"--env {options.env}: {error}") from None
    if not hasattr(env.action_space, "n"):
        env.close()
        raise AgentError(f"--env {options.env}: its actions are no numbers from 0 on; choose one with Discrete actions")
    hooked_session.leave(env)  # it is recorded here, with its beliefs
    return env


def need_packages() -> None:
    """Raise `AgentError` with the remedy where a package is missing."""
    for module in ("gymnasium", "greenlet", "pyjabber", "spade", "spade_bdi.bdi"):
        try:
            if module == "pyjabber":
                import_server()
            import_module(module)
        except ImportError as error:
            raise AgentError(
                f"{error.name or module} is not installed here; install what is needed with: {INSTALL}"
            ) from None


def train(options: Options) -> tuple[Tally, bool]:
    """Walk all episodes, telemetered; what was counted, and whether it was not interrupted."""
    program = program_of(options)
    need_packages()
    env = make_env(options)
    config = {**asdict(options), "program": program.name}
    lane = attach(f"{WORKER} {options.env}", worker=os.environ.get(names.ENV_WORKER_NAME) or WORKER, config=config)
    walk = Walk(env, options, lane)
    state = "failed"
    try:
        is_whole = run(walk, program)
        state = "finished" if is_whole else "stopped"
    finally:
        env.close()
        lane.close(state)  # type: ignore[arg-type]
        write_report(asdict(walk.tally))
    return walk.tally, is_whole


def main(argv: list[str] | None = None) -> int:
    """Walk, print one line, and return the exit status."""
    options = parse_options(argv)
    started_s = time.perf_counter()
    try:
        tally, is_whole = train(options)
    except AgentError as error:
        sys.stderr.write(f"runlane: {error}\n")
        return error.status
    except KeyboardInterrupt:
        return INTERRUPTED
    sys.stdout.write(
        f"{tally.steps} steps, {tally.episodes} episodes, {tally.rewarded} with a reward, "
        f"return sum {tally.return_sum:g}, {time.perf_counter() - started_s:.1f} s\n"
    )
    return 0 if is_whole else INTERRUPTED


if __name__ == "__main__":
    raise SystemExit(main())
