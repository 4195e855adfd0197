"""A worker that learns to shoot a monster in ViZDoom, an engine in a process of its own behind a wheel.

Scenario `basic` of ViZDoom: a monster stands somewhere along a wall; one shot that hits ends the episode, each tic
costs 1, a miss 5. The agent sees how far to its left or right the monster is, in `BINS` bins, and learns by Q-learning
in a table. The screen is copied for viewers alone, and only when one wants a picture now.

    python -m runlane.workers.vizdoom --episodes 300
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import json
import os
import select
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Generator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from runlane.workers.attachment import Session, attach
from runlane.workers.number_option import count, fraction, positive, seed
from runlane.workers.worker_report import write_report

if TYPE_CHECKING:
    from numpy.typing import NDArray

INTERRUPTED = 130
STUCK_S = 5.0  # after the engine's end: by then ViZDoom has said so, or never will
# Waits for a byte, or for our end without one; then it ends the engine and removes what that had in shared memory.
_WATCH = (
    "import os, shutil, sys\n"
    "_, told, directory, pids, *instances = sys.argv\n"
    "if os.read(int(told), 1):\n"
    "    sys.exit()\n"
    "for pid in filter(None, pids.split(',')):\n"
    "    try:\n"
    "        os.kill(int(pid), 9)\n"
    "    except OSError:\n"
    "        pass\n"
    "for name in os.listdir('/dev/shm'):\n"
    "    if name.startswith('ViZDoom') and name.endswith(tuple(instances) or ('/',)):\n"
    "        os.unlink('/dev/shm/' + name)\n"
    "shutil.rmtree(directory, ignore_errors=True)\n"
)
BINS = 13  # how far the monster is to the side, from far left to far right: a shot hits in the middle one
UNSEEN = BINS  # a row of its own
HALF_SCREEN = 160.0
ACTIONS = 3  # move left, move right, attack: the scenario's buttons


@dataclasses.dataclass(frozen=True)
class Settings:
    """Every number that shapes a run; Runlane stores it as the run's configuration."""

    scenario: str = "basic"
    episodes: int = 300
    steps: int = 0  # environment steps, at most; 0: as many as the episodes take
    seed: int = 0
    frame_skip: int = 4  # tics of the game for one step
    learning_rate: float = 0.2
    discount: float = 0.95
    exploration: float = 0.3  # chance of a random action at first; falls in a straight line to 0.02, by half of the run


@dataclasses.dataclass
class Tally:
    """What the engine returned, counted here and not by telemetry, so that the two can be compared."""

    steps: int = 0
    episodes: int = 0
    return_sum: float = 0.0
    drawn: int = 0


class Table:
    """Q-learning: the worth of each action in each bin."""

    def __init__(self, settings: Settings, rng: np.random.Generator) -> None:
        self.settings, self.rng = settings, rng
        self.worth: NDArray[np.float64] = np.zeros((UNSEEN + 1, ACTIONS))

    def choose(self, place: int, exploration: float) -> int:
        """The best action there, or any by chance."""
        if self.rng.random() < exploration:
            return int(self.rng.integers(ACTIONS))
        return int(self.worth[place].argmax())

    def learn(self, place: int, action: int, reward: float, after: int, *, is_last: bool) -> float:
        """One update; returns the error it corrected a part of."""
        future = 0.0 if is_last else float(self.worth[after].max())
        error = reward / 100.0 + self.settings.discount * future - float(self.worth[place, action])
        self.worth[place, action] += self.settings.learning_rate * error
        return error


class Player:
    """Plays the game, across the ends of its episodes."""

    def __init__(self, game: Any, session: Session, settings: Settings) -> None:
        self.game, self.session, self.settings = game, session, settings
        self.tally = Tally()
        self.table = Table(settings, np.random.default_rng(settings.seed))

    def draw(self) -> NDArray[np.uint8] | None:
        """What is on the screen, as an array (height, width, 3). None after the last step of an episode."""
        state = self.game.get_state()
        if state is None:
            return None
        self.tally.drawn += 1
        return np.array(state.screen_buffer, np.uint8)

    def look(self) -> tuple[int, float]:
        """The monster's bin, and how far it is to the side: -1 to 1, NaN where it is not to be seen."""
        state = self.game.get_state()
        for label in () if state is None else state.labels:
            if label.object_category == "Monster":
                side = (label.x + label.width / 2 - HALF_SCREEN) / HALF_SCREEN
                return min(BINS - 1, int((side + 1) / 2 * BINS)), side
        return UNSEEN, float("nan")

    def play(self, exploration: float) -> float:
        """One episode; returns its return."""
        game, session = self.game, self.session
        game.new_episode()
        place, side = self.look()
        episode_return = 0.0
        while True:
            action = self.table.choose(place, exploration)
            observation = np.array([side], np.float32)
            reward = float(
                game.make_action([int(index == action) for index in range(ACTIONS)], self.settings.frame_skip)
            )
            is_last = bool(game.is_episode_finished())
            is_late = is_last and bool(game.is_episode_timeout_reached())
            after, side = self.look()
            self.table.learn(place, action, reward, after, is_last=is_last and not is_late)
            place = after
            episode_return += reward
            self.tally.steps += 1
            session.step(action, reward, is_last and not is_late, is_late, observation=observation)
            session.frame(self.draw, reward=reward)
            if is_last or self.has_done_its_steps:
                return episode_return if is_last else float("nan")

    @property
    def has_done_its_steps(self) -> bool:
        """Whether the budget of steps is used up."""
        return 0 < self.settings.steps <= self.tally.steps

    def learn(self) -> None:
        """All episodes."""
        for episode in range(self.settings.episodes):
            share = 2 * episode / self.settings.episodes
            exploration = max(0.02, self.settings.exploration * (1 - share))
            episode_return = self.play(exploration)
            if episode_return == episode_return:
                self.tally.episodes += 1
                self.tally.return_sum += episode_return
                self.session.metrics({"policy/exploration": exploration, "policy/worth": float(self.table.worth.max())})
            if self.has_done_its_steps:
                return


def open_game(vizdoom: Any, settings: Settings, directory: str) -> Any:
    """The engine, started. What it writes for itself lies in `directory`. Raises what ViZDoom raises."""
    game = vizdoom.DoomGame()
    game.load_config(str(Path(vizdoom.scenarios_path) / f"{settings.scenario}.cfg"))
    game.set_doom_config_path(str(Path(directory) / "vizdoom.ini"))
    game.set_window_visible(False)
    game.set_sound_enabled(False)
    game.set_labels_buffer_enabled(True)
    game.set_screen_format(vizdoom.ScreenFormat.RGB24)
    game.set_screen_resolution(vizdoom.ScreenResolution.RES_320X240)
    game.set_seed(settings.seed)
    with contextlib.chdir(directory):  # the engine makes a folder where it is started
        game.init()
    return game


@contextlib.contextmanager
def orphan_watch(directory: str) -> Generator[None]:
    """While this holds, our death is the engine's, too: by itself it would wait for us for ever, with its memory."""
    engines = _engines()
    names = [part for pid in engines for part in Path(f"/proc/{pid}/cmdline").read_text("utf-8", "replace").split("\0")]
    instances = [names[at + 1] for at, part in enumerate(names[:-1]) if part == "+viz_instance_id"]
    told, tells = os.pipe()
    command = [sys.executable, "-I", "-S", "-c", _WATCH, str(told), directory, ",".join(map(str, engines)), *instances]
    watch = subprocess.Popen(command, pass_fds=(told,), start_new_session=True)
    os.close(told)
    try:
        yield
    finally:
        os.write(tells, b".")  # in order: there is nothing to do
        os.close(tells)
        watch.wait()


@contextlib.contextmanager
def stuck_watch(on_stuck: Callable[[], None]) -> Generator[None]:
    """While this holds, `on_stuck` is called, by another thread, when the engine has ended and we wait for it still.

    An engine that is killed while it holds the lock of the queue between us leaves it locked: ViZDoom then waits
    for ever, as one in some twenty kills showed, without Python's lock and deaf to Ctrl-C.
    """
    engines = [os.pidfd_open(pid) for pid in _engines()]
    over = os.eventfd(0)

    def wait() -> None:
        if over not in select.select([*engines, over], [], [])[0] and not select.select([over], [], [], STUCK_S)[0]:
            on_stuck()

    thread = threading.Thread(target=wait, name="runlane-engine", daemon=True)
    thread.start()
    try:
        yield
    finally:
        os.eventfd_write(over, 1)
        thread.join()
        for descriptor in (over, *engines):
            os.close(descriptor)


def _engines() -> list[int]:
    """Pids of the engines that we have started."""
    lists = [task.joinpath("children").read_text("ascii") for task in Path("/proc/self/task").iterdir()]
    children = [int(pid) for pids in lists for pid in pids.split()]
    return [pid for pid in children if b"viz_instance_id" in Path(f"/proc/{pid}/cmdline").read_bytes()]


def _failures(vizdoom: Any) -> tuple[type[Exception], ...]:
    """Everything ViZDoom raises."""
    return tuple(getattr(vizdoom, name) for name in dir(vizdoom) if name.endswith("Exception"))


def parse_settings(argv: list[str] | None) -> Settings:
    """Read the command line; each option is named after a field of Settings and defaults to it."""
    parser = argparse.ArgumentParser(prog="python -m runlane.workers.vizdoom", description="Learn to shoot in ViZDoom.")
    add = parser.add_argument
    add("--episodes", type=positive, default=Settings.episodes, help="episodes to play")
    add("--steps", type=count, default=Settings.steps, help="environment steps, at most; 0: no limit")
    add("--seed", type=seed, default=Settings.seed)
    add("--frame-skip", type=positive, default=Settings.frame_skip, help="tics of the game for one step")
    add("--learning-rate", type=fraction, default=Settings.learning_rate)
    return Settings(**vars(parser.parse_args(argv)))


def train(vizdoom: Any, settings: Settings) -> int:
    """Play and learn; returns the exit status."""
    session = attach(name=f"vizdoom-{settings.scenario}", worker="vizdoom", config=dataclasses.asdict(settings))
    failures: tuple[type[Exception], ...] = (RuntimeError, *_failures(vizdoom))
    player = Player(None, session, settings)

    def give_up() -> None:
        end(player, 1, "killed, and ViZDoom still waits for it")
        sys.stdout.flush()
        os._exit(1)  # the orphan watch clears away

    with tempfile.TemporaryDirectory(prefix="runlane-vizdoom-") as directory:
        try:
            player.game = open_game(vizdoom, settings, directory)
            with orphan_watch(directory), stuck_watch(give_up):
                player.learn()
            player.game.close()
        except KeyboardInterrupt:
            return end(player, INTERRUPTED)
        except failures as error:  # ViZDoom sees to Ctrl-C itself, and closes its engine
            return end(player, INTERRUPTED if "SIGINT" in str(error) else 1, str(error))
    return end(player, 0)


def end(player: Player, code: int, error: str = "") -> int:
    """Say how it went, to the run and on standard output, and close the session; returns the exit status."""
    session, counts = player.session, dataclasses.asdict(player.tally)
    if code == 1:
        sys.stderr.write(f"runlane: the engine has ended: {error}\n")
        session.log(f"the engine has ended: {error}", level="error")
    write_report(counts)
    session.log("the engine's own count: " + json.dumps(counts))
    session.close("finished" if not code else "stopped" if code == INTERRUPTED else "failed")
    sys.stdout.write(json.dumps(counts) + "\n")
    return code


def main(argv: list[str] | None = None) -> int:
    """Train, print one line, and return the exit status."""
    settings = parse_settings(argv)
    try:
        import vizdoom  # type: ignore[import-not-found]  # pyright: ignore[reportMissingImports]
    except ImportError as error:
        sys.stderr.write(f"runlane: no ViZDoom ({error}): pip install 'vizdoom>=1.3,<2'\n")
        return 2
    return train(vizdoom, settings)


if __name__ == "__main__":
    raise SystemExit(main())
