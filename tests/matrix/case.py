"""The cases of the matrix: one unedited script each, how it is started, and what is to be recorded of it.

The interpreter is that of a kind (`tests/kinds.py`); kind "" is the one that runs the tests. What a script is given
follows the path of its result. The table in docs/reference/attach-matrix.md is made of this list.
"""

from dataclasses import dataclass, field
from pathlib import Path

SCRIPTS = Path(__file__).with_name("scripts")
PURELIB = "PURELIB"  # as an argument: where the interpreter's packages lie


@dataclass(frozen=True)
class Case:
    """One script, and how it is run."""

    name: str
    library: str  # as the table in the reference page groups it
    script: str  # in scripts/, or "project" for one with files of its own
    arguments: tuple[str, ...] = ()
    kind: str = ""
    modules: tuple[str, ...] = ("gymnasium",)  # what the interpreter needs
    is_fast: bool = False
    exit_code: int = 0
    python_options: tuple[str, ...] = ()
    # What is to be found in the database.
    is_recorded: bool = True  # False: nothing at all
    abandons_open: bool = True  # an episode that runs at the end; False: nobody was left to say so
    shares_streams: bool = False  # environments one after another in one stream: only sums can be compared
    unrecorded: tuple[str, ...] = ()  # environments, by the script's names for them, that are not
    workers: tuple[str, ...] = ()  # names of the streams, where they are not numbered slots
    metrics: bool = False  # the result says how many values of which scalar it logged
    # What is to be seen on standard error.
    told: tuple[str, ...] = ()
    is_watched: bool = False  # somebody looks while it runs
    settings: tuple[str, ...] = field(default=())


FAST = True


def _gymnasium() -> list[Case]:
    one = "Gymnasium, one environment"
    ended = "Gymnasium, a script that ends badly"
    return [
        Case("plain loop", one, "plain_loop.py", ("make",), is_fast=FAST),
        Case("without make", one, "plain_loop.py", ("constructed",)),
        Case("continuous actions", one, "plain_loop.py", ("continuous",)),
        Case("a class of its own", one, "plain_loop.py", ("unknown",), is_fast=FAST),
        Case("resets in mid-episode", one, "abandoned.py", is_fast=FAST),
        Case("Autoreset wrapper", one, "autoreset.py"),
        Case("an environment per episode", one, "env_per_episode.py", shares_streams=True),
        Case(
            "copies and pickles",
            one,
            "copies.py",
            unrecorded=("copied before its reset", "restored before its reset"),
            is_fast=FAST,
        ),
        Case("a make of its own", one, "patched_make.py"),
        Case("junk on stdout and stderr", one, "junk.py", is_fast=FAST),
        Case("watched", one, "watched.py", is_watched=True, is_fast=FAST),
        Case("render fails, unwatched", one, "broken_render.py", ("300",)),
        Case(
            "render fails, watched",
            one,
            "broken_render.py",
            ("3000",),
            is_watched=True,
            told=("FASTLANE_WRITER_ERROR",),
            is_fast=FAST,
        ),
        Case("an exception", ended, "ending.py", ("exception",), exit_code=1, is_fast=FAST),
        Case("sys.exit(7)", ended, "ending.py", ("exit",), exit_code=7),
        Case("os._exit(3)", ended, "ending.py", ("os_exit",), exit_code=3, abandons_open=False, is_fast=FAST),
        Case("SIGKILL", ended, "ending.py", ("kill",), exit_code=-9, abandons_open=False),
        Case("SIGTERM", ended, "ending.py", ("terminate",), exit_code=-15, abandons_open=False),
        Case("SIGINT", ended, "ending.py", ("interrupt",), exit_code=-2),
        Case("SIGABRT", ended, "ending.py", ("abort",), exit_code=-6, abandons_open=False),
    ]


def _gymnasium_vector() -> list[Case]:
    made_of = "Gymnasium, SyncVectorEnv and AsyncVectorEnv"
    modes = ("NEXT_STEP", "SAME_STEP", "DISABLED")
    cases = [
        Case(f"{kind} {mode}", made_of, "vector_loop.py", (kind, mode), is_fast=kind == "sync" or mode == "SAME_STEP")
        for kind in ("sync", "async")
        for mode in modes
    ]
    cases += [
        Case(f"async {method}", made_of, "vector_loop.py", ("async", "NEXT_STEP", method))
        for method in ("spawn", "forkserver")
    ]
    cases += [
        Case(f"{kind}, gymnasium 0.29.1", made_of, "vector_loop.py", (kind, "only"), kind="cleanrl")
        for kind in ("sync", "async")
    ]
    native = "Gymnasium, native vector environments"
    atari = ("gymnasium", "ale_py")
    return [
        *cases,
        Case("make_vec", native, "native_vector.py", ("make_vec",), is_fast=FAST),
        Case("CartPoleVectorEnv", native, "native_vector.py", ("class",)),
        Case("AtariVectorEnv NEXT_STEP", native, "native_vector.py", ("atari",), modules=atari, is_fast=FAST),
        Case("AtariVectorEnv SAME_STEP", native, "native_vector.py", ("atari_same",), modules=atari),
    ]


def _processes() -> list[Case]:
    several = "Processes and threads"
    cases = [
        Case(f"multiprocessing {method}", several, "processes.py", (method,), shares_streams=True, is_fast=is_fast)
        for method, is_fast in (("fork", FAST), ("spawn", False), ("forkserver", False))
    ]
    return [
        *cases,
        Case("os.fork", several, "forks.py", ("exit",)),
        Case("os.fork, os._exit", several, "forks.py", ("os_exit",), is_fast=FAST),
        Case("threads", several, "threads.py", is_fast=FAST),
    ]


def _interpreters() -> list[Case]:
    start = "How Python is started"
    nothing = ("recorded nothing",)
    return [
        Case("sitecustomize, config and workers of its own", start, "project", is_fast=FAST),
        Case("python -I", start, "isolated.py", python_options=("-I",), is_recorded=False, told=nothing, is_fast=FAST),
        Case(
            "python -S",
            start,
            "isolated.py",
            (PURELIB,),
            python_options=("-S",),
            is_recorded=False,
            told=nothing,
            is_fast=FAST,
        ),
        Case("no environment", start, "no_environment.py", modules=(), is_recorded=False, told=nothing, is_fast=FAST),
        Case("imports Gymnasium only", start, "no_environment.py", ("import",), is_recorded=False, told=nothing),
    ]


def _libraries() -> list[Case]:
    sb3, torch = "Stable-Baselines3", ("stable_baselines3",)
    return [
        *(
            Case(f"PPO {how}", sb3, "sb3_ppo.py", (how,), kind="sb3", modules=torch)
            for how in ("alone", "dummy", "spawn", "fork", "forkserver")
        ),
        Case(
            "PPO, gymnasium 0.29.1",
            "CleanRL",
            "cleanrl_ppo.py",
            ("--seed", "3"),
            kind="cleanrl",
            modules=("gymnasium", "torch", "tyro"),
            metrics=True,
        ),
        Case(
            "PPO, gymnasium 1.x",
            "CleanRL",
            "cleanrl_ppo.py",
            ("--seed", "3"),
            kind="sb3",
            modules=("gymnasium", "torch", "tyro"),
            metrics=True,
        ),
        Case(
            "PPO DummyVectorEnv",
            "tianshou",
            "tianshou_ppo.py",
            ("dummy",),
            kind="tianshou",
            modules=("tianshou", "torch"),
        ),
        Case(
            "PPO SubprocVectorEnv",
            "tianshou",
            "tianshou_ppo.py",
            ("subproc",),
            kind="tianshou",
            modules=("tianshou", "torch"),
        ),
        *_games(),
    ]


def _games() -> list[Case]:
    games = ("gymnasium", "ale_py")
    pettingzoo = "PettingZoo"
    return [
        *(
            Case(
                name,
                pettingzoo,
                "pettingzoo_loop.py",
                (how,),
                kind="pettingzoo",
                modules=("pettingzoo",),
                workers=tuple(f"worker-{agent}" for agent in agents),
                is_fast=how.startswith("toy"),
            )
            for name, how, agents in (
                ("parallel, a class of its own", "toy", ("first", "second")),
                ("AEC, a class of its own", "toy_aec", ("first", "second")),
                ("parallel, rps_v2", "parallel", ("player_0", "player_1")),
                ("AEC, rps_v2", "aec", ("player_0", "player_1")),
                ("AEC, connect_four_v3", "masked", ("player_0", "player_1")),
            )
        ),
        Case("dictionaries", "MiniGrid", "minigrid_loop.py", ("dict",), modules=("minigrid",), is_fast=FAST),
        Case("FlatObsWrapper", "MiniGrid", "minigrid_loop.py", ("flat",), modules=("minigrid",)),
        Case("a frame skip of its own", "ALE", "atari_loop.py", ("skip",), modules=games, is_fast=FAST),
        Case("AtariPreprocessing", "ALE", "atari_loop.py", ("preprocessing",), kind="atari", modules=games),
        Case("make", "gym 0.26", "old_gym_loop.py", ("make",), kind="gym", modules=("gym",)),
        Case("without make", "gym 0.26", "old_gym_loop.py", ("constructed",), kind="gym", modules=("gym",)),
        Case("SyncVectorEnv", "gym 0.26", "old_gym_loop.py", ("vector",), kind="gym", modules=("gym",)),
    ]


# What the reference page says of each group: what is a stream there, and what is told apart.
STREAMS = {
    "Gymnasium, one environment": (
        "an environment, from its first reset on; closed, the next one of its kind goes on in its stream",
        "episodes that end, are cut short, or are abandoned by a reset; the resets of an `Autoreset` wrapper",
    ),
    "Gymnasium, a script that ends badly": (
        "an environment",
        "a running episode is abandoned by an orderly end, by exception or `sys.exit()` too, and else without an end",
    ),
    "Gymnasium, SyncVectorEnv and AsyncVectorEnv": (
        "each sub-environment, in whatever process it lives",
        "the ways of resetting: the call that only resets is no step",
    ),
    "Gymnasium, native vector environments": (
        "the vector environment; its environments by `env_index`",
        "the ways of resetting: the row of one that was only reset has `is_reset` 1",
    ),
    "Processes and threads": (
        "an environment of a process; after `os.fork()` each side's",
        "a forked child's stream is the next incarnation of the parent's worker, with `forked_from`",
    ),
    "How Python is started": (
        "an environment; nothing where Python was told to look at no variable (`-I`) or at no `sitecustomize` (`-S`)",
        "that nothing is recorded, loudly",
    ),
    "Stable-Baselines3": ("each environment of a `DummyVecEnv` or `SubprocVecEnv`", "as of one environment"),
    "CleanRL": ("each sub-environment", "as of vector environments; scalars of a `SummaryWriter` are metrics"),
    "tianshou": ("each environment of a `DummyVectorEnv` or `SubprocVectorEnv`", "as of one environment"),
    "PettingZoo": (
        "each agent, from its first action on",
        "an action that is not `None` is a step; in turns its reward is what `last()` says when the turn comes back",
    ),
    "MiniGrid": ("an environment", "as of one environment"),
    "ALE": (
        "an environment, behind its frame skip",
        "a lost life that a wrapper makes an end is one; a wrapper's own steps in `reset()` are none",
    ),
    "gym 0.26": ("an environment; each sub-environment of a vector environment", "as of Gymnasium before 1.0"),
}

CASES = [*_gymnasium(), *_gymnasium_vector(), *_processes(), *_interpreters(), *_libraries()]
FAST_CASES = [case for case in CASES if case.is_fast]
KINDS = sorted({case.kind for case in CASES} - {""})


def title(case: Case) -> str:
    """As pytest shows it."""
    return f"{case.library}: {case.name}"
