"""WorkerType: every worker that ships with runlane, what it needs and what it can be told. The form is made of this."""

from dataclasses import dataclass

from runlane.gui.worker_option import WorkerOption


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerType:
    """A worker that ships with runlane. `worker` is its name in a run, by which the window knows its type.

    It runs with an interpreter that can import `packages`, which `pip` installs; what is best kept apart from
    everything else, for its pins, `is_apart`. Where an interpreter is another program's (`python_flag`), the module
    runs in ours and is told of it. Of each group of `programs` one has to be on the PATH, unless the option
    `program_option` says where it is; `display_program` makes a display where there is none; `apt` installs them.
    `name_keys` are the options that name a run.
    """

    key: str
    label: str
    about: str
    worker: str
    module: str
    packages: tuple[str, ...] = ()
    pip: tuple[str, ...] = ()
    programs: tuple[tuple[str, ...], ...] = ()
    program_option: str = ""
    display_program: str = ""
    apt: tuple[str, ...] = ()
    options: tuple[WorkerOption, ...] = ()
    seed_flag: str = "--seed"
    python_flag: str = ""
    python_hint: str = ""
    name_keys: tuple[str, ...] = ()
    is_apart: bool = False


def _episodes(default: int) -> WorkerOption:
    tip = "How many episodes are played"
    return WorkerOption(key="episodes", label="Episodes", flag="--episodes", default=default, least=1, tip=tip)


_CARTPOLE = WorkerType(
    key="cartpole",
    label="CartPole",
    about="PPO in NumPy learns to balance a pole, in some ten seconds.",
    worker="cartpole",
    module="runlane.workers.cartpole",
    packages=("gymnasium",),
    pip=("gymnasium",),
    options=(
        WorkerOption(
            key="steps",
            label="Total steps",
            flag="--steps",
            default=300_000,
            least=1,
            tip="Environment steps, at most",
        ),
        WorkerOption(
            key="target",
            label="Target return",
            flag="--target-return",
            default=475,
            least=-1e9,
            most=1e9,
            places=1,
            tip="It ends when the mean of 100 episodes is this high",
        ),
        WorkerOption(
            key="rate",
            label="Learning rate",
            flag="--learning-rate",
            default=0.001,
            least=1e-8,
            most=1,
            places=6,
            tip="At the start; it falls to zero",
        ),
    ),
)

_CLEANRL = WorkerType(
    key="cleanrl",
    label="CleanRL",
    about="A script of CleanRL as it is, with its arguments; its metrics and settings come with it.",
    worker="cleanrl",
    module="runlane.workers.cleanrl",
    packages=("gymnasium", "torch"),
    name_keys=("script",),
    is_apart=True,
    pip=("gymnasium[classic-control]==0.29.1", "torch", "tensorboard", "tyro"),
    options=(
        WorkerOption(
            key="compat",
            label="Written for Gymnasium 0.29, runs on 1.x",
            flag="--compat",
            kind="switch",
            default=False,
            tip="Give the script the names that newer releases have dropped",
        ),
        WorkerOption(
            key="script",
            label="Script",
            kind="file",
            suffix=".py",
            is_required=True,
            hint="choose a CleanRL script, as ppo.py",
            tip="Path of a CleanRL script",
        ),
        WorkerOption(
            key="arguments",
            label="Arguments of the script",
            kind="words",
            hint="--total-timesteps 100000",
            tip="Passed on as they are; a seed is added",
        ),
    ),
)

_SB3 = WorkerType(
    key="sb3",
    label="SB3",
    about="Stable-Baselines3 with its usual policies, on one environment or several.",
    worker="sb3",
    module="runlane.workers.sb3",
    packages=("stable_baselines3", "gymnasium"),
    name_keys=("algo", "env"),
    pip=("stable-baselines3", "gymnasium[classic-control]"),
    options=(
        WorkerOption(
            key="algo",
            label="Algorithm",
            flag="--algo",
            kind="choice",
            default="ppo",
            choices=("ppo", "a2c", "dqn", "sac", "td3", "ddpg"),
            is_required=True,
            tip="DQN needs discrete actions; SAC, TD3 and DDPG continuous ones",
        ),
        WorkerOption(
            key="env",
            label="Environment",
            flag="--env",
            kind="text",
            default="CartPole-v1",
            is_required=True,
            hint="CartPole-v1",
            tip="Id of a Gymnasium environment",
        ),
        WorkerOption(
            key="steps", label="Total steps", flag="--steps", default=50_000, least=1, tip="Of all environments"
        ),
        WorkerOption(
            key="envs", label="Environments", flag="--envs", default=4, least=1, most=256, tip="How many play at once"
        ),
        WorkerOption(
            key="vec",
            label="They run in",
            flag="--vec",
            kind="choice",
            default="dummy",
            choices=("dummy", "subproc"),
            tip="dummy: one process, one after the other; subproc: a process each",
        ),
    ),
)

_SPADE = WorkerType(
    key="spade",
    label="SPADE-BDI",
    about="An agent of beliefs, desires and intentions walks a toy-text world, as its .asl program says.",
    worker="spade",
    module="runlane.workers.spade_bdi",
    packages=("spade", "spade_bdi", "gymnasium"),
    is_apart=True,
    pip=("spade==4.1.4", "spade-bdi==0.3.3", "pyjabber==0.4.5", "greenlet", "gymnasium[toy-text]"),
    options=(
        _episodes(200),
        WorkerOption(
            key="env",
            label="Environment",
            flag="--env",
            kind="text",
            default="FrozenLake-v1",
            hint="FrozenLake-v1",
            tip="Id of a toy-text environment",
        ),
        WorkerOption(
            key="program",
            label="Program",
            flag="--program",
            kind="file",
            suffix=".asl",
            hint="the one that ships with it",
            tip="An AgentSpeak program",
        ),
        WorkerOption(
            key="slippery",
            label="Slippery ice",
            flag="--slippery",
            kind="switch",
            default=False,
            tip="The agent goes where it wants only one time in three",
        ),
    ),
)

_COACH = WorkerType(
    key="coach",
    label="Coach",
    about="A preset of Intel's archived Coach, in the Python 3.6 it needs; only JSON lines come out of it.",
    worker="coach",
    module="runlane.workers.coach",
    packages=("rl_coach", "tensorflow", "gym"),
    pip=("rl-coach==1.0.1", "tensorflow==1.13.1", "gym==0.12.5"),
    name_keys=("preset",),
    python_flag="--python",
    python_hint="a Python 3.6 with rl-coach",
    options=(
        WorkerOption(
            key="preset",
            label="Preset",
            flag="--preset",
            kind="text",
            default="CartPole_DQN",
            is_required=True,
            hint="CartPole_DQN",
            tip="Name of a preset, as coach -l lists them",
        ),
        WorkerOption(
            key="level",
            label="Level",
            flag="--level",
            kind="text",
            hint="breakout",
            tip="Of a preset that has several",
        ),
        WorkerOption(
            key="steps",
            label="Steps",
            flag="--steps",
            default=0,
            tip="To train, at most; 0: as many as the preset says",
        ),
    ),
)

_GODOT = WorkerType(
    key="godot",
    label="Godot",
    about="A game in its own engine, without Python inside: it tells its steps in JSON lines and draws into the ring.",
    worker="godot",
    module="runlane.workers.godot",
    programs=(("godot3-runner", "godot3", "godot"),),
    program_option="engine",
    display_program="Xvfb",
    apt=("godot3-runner", "xvfb"),
    options=(
        _episodes(2_000),
        WorkerOption(key="steps", label="Steps", flag="--steps", default=0, tip="At most; 0: as many as come"),
        WorkerOption(key="rate", label="Steps a second", flag="--rate", default=0, tip="At most; 0: all that it can"),
        WorkerOption(
            key="project",
            label="Project",
            flag="--project",
            kind="directory",
            hint="the task that ships with it",
            tip="A folder with project.godot",
        ),
        WorkerOption(
            key="engine",
            label="Engine",
            flag="--engine",
            kind="file",
            hint="godot3-runner, as found on the PATH",
            tip="The engine's program",
        ),
    ),
)

_VIZDOOM = WorkerType(
    key="vizdoom",
    label="ViZDoom",
    about="Doom in a process of its own: a learner finds out where the monster stands, and shoots.",
    worker="vizdoom",
    module="runlane.workers.vizdoom",
    packages=("vizdoom",),
    pip=("vizdoom",),
    options=(
        _episodes(300),
        WorkerOption(key="steps", label="Steps", flag="--steps", default=0, tip="At most; 0: as many as come"),
        WorkerOption(
            key="frame_skip",
            label="Frame skip",
            flag="--frame-skip",
            default=4,
            least=1,
            most=100,
            tip="Tics of the game for one step",
        ),
        WorkerOption(
            key="rate",
            label="Learning rate",
            flag="--learning-rate",
            default=0.2,
            least=1e-8,
            most=1,
            places=6,
            tip="Of the table of values",
        ),
    ),
)

WORKER_TYPES = (_CARTPOLE, _CLEANRL, _SB3, _SPADE, _COACH, _GODOT, _VIZDOOM)


def worker_type_named(key: str) -> WorkerType | None:
    """The type of a key; None for a script."""
    return next((kind for kind in WORKER_TYPES if kind.key == key), None)
