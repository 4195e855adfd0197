"""A project with files of its own whose names are ours: what it imports must be its own, with and without runlane.

Written out where it is run: no module of this repository may import such bare names.
"""

from pathlib import Path

from matrix.case import SCRIPTS

_FILES = {
    "site/sitecustomize.py": '''
"""What this user runs in every Python."""
import sys

sys.marks = [*getattr(sys, "marks", []), "sitecustomize of the user"]
''',
    "config.py": 'NAME = "config of the user"\n',
    "transport.py": 'NAME = "transport of the user"\n',
    "gui.py": 'NAME = "gui of the user"\n',
    "slot.py": 'NAME = "slot of the user"\n',
    "actors/__init__.py": 'NAME = "actors of the user"\n',
    "workers/__init__.py": 'NAME = "workers of the user"\n',
    "workers/session.py": 'NAME = "session of the user"\n',
    "train.py": '''
"""Train with all of them."""
import sys

import actors
import config
import gui
import gymnasium
import sitecustomize
import slot
import transport
import workers.session
from tally import Tally

if __name__ == "__main__":
    modules = (actors, config, gui, slot, transport, workers, workers.session)
    print(sys.marks, sitecustomize.__doc__, [module.NAME for module in modules])
    tally = Tally()
    env = gymnasium.make("CartPole-v1")
    env.action_space.seed(1)
    env.reset(seed=1)
    tally.reset()
    for _ in range(200):
        observation, reward, terminated, truncated, _ = env.step(env.action_space.sample())
        tally.step(reward, terminated or truncated)
        tally.see(observation, reward)
        if terminated or truncated:
            env.reset()
            tally.reset()
    env.close()
    tally.write(sys.argv[1])
''',
}


def write_project(directory: Path) -> Path:
    """The script to run; the `sitecustomize` is found when `directory / "site"` is on PYTHONPATH."""
    for name, text in _FILES.items():
        path = directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text.lstrip("\n"))
    (directory / "tally.py").write_text((SCRIPTS / "tally.py").read_text())
    return directory / "train.py"
