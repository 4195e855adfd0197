"""The CleanRL worker runs a script as `python SCRIPT` does: the same output, the same errors, the same end."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from kinds import ROOT

SCRIPTS = {
    "says who it is": "import sys\nprint(__name__, __file__, sys.argv, sys.path[0], __spec__, __package__, __doc__)",
    "is the main module": "import sys; print(sys.modules['__main__'].__dict__ is globals(), sorted(globals()))",
    "ends with a code": "raise SystemExit(5)",
    "ends with a text": "raise SystemExit('enough')",
    "fails": "def f():\n    return 1 / 0\n\nprint('so far')\nf()\n",
    "fails twice": "try:\n    1 / 0\nexcept ZeroDivisionError as error:\n    raise KeyError('x') from error\n",
    "is no Python": "print(1)\nif True\n",
    "has a hook of its own": "import sys\nsys.excepthook = lambda *a: print('hook', a[0])\n1 / 0\n",
    "is interrupted": "raise KeyboardInterrupt\n",
    "says goodbye": "import atexit\natexit.register(print, 'goodbye')\nprint('hello', end='')\n",
    "spawns": """
import multiprocessing
def f(x):
    print(x, flush=True)
if __name__ == "__main__":
    process = multiprocessing.get_context("spawn").Process(target=f, args=(3,))
    process.start()
    process.join()
""",
}


def _run(directory: Path, *command: str) -> tuple[int, str, str]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src"), "RUNLANE_DISABLED": "1"}
    done = subprocess.run(
        [sys.executable, *command],
        cwd=directory,
        env=environment,
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )
    return done.returncode, done.stdout, done.stderr


@pytest.mark.parametrize("kind", sorted(SCRIPTS))
def test_it_is_as_if_python_ran_it(tmp_path: Path, kind: str) -> None:
    """Exit code, output and traceback are equal, letter by letter."""
    (tmp_path / "part").mkdir()
    (tmp_path / "part" / "real.py").write_text(SCRIPTS[kind])
    (tmp_path / "script.py").symlink_to("part/real.py")
    wanted = _run(tmp_path, "script.py", "--x", "1")
    found = _run(tmp_path, "-m", "runlane.workers.cleanrl", "script.py", "--x", "1")
    assert found == wanted
    if kind == "is interrupted":
        assert found[0] == -signal.SIGINT


def test_a_script_that_is_not_there_is_one_line(tmp_path: Path) -> None:
    """Exit code 2, the path, and no traceback."""
    code, out, err = _run(tmp_path, "-m", "runlane.workers.cleanrl", "nowhere.py")
    assert (code, out) == (2, "")
    assert err == "cannot read nowhere.py: No such file or directory; give a script's path\n"


def test_options_before_the_script_are_ours_and_those_behind_are_its(tmp_path: Path) -> None:
    """`--compat` reaches the processes that it starts; a `--compat` of the script's own stays its own."""
    (tmp_path / "script.py").write_text("import os, sys; print(os.environ.get('RUNLANE_COMPAT'), sys.argv[1:])")
    worker = ("-m", "runlane.workers.cleanrl")
    assert _run(tmp_path, *worker, "--compat", "script.py", "-h")[1] == "1 ['-h']\n"
    assert _run(tmp_path, *worker, "script.py", "--compat")[1] == "None ['--compat']\n"
