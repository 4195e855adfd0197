"""The `sitecustomize` of `runlane run`: in every Python, near to free, and nobody else's is lost."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import runlane
from runlane.workers import site_hook

HOOK = Path(runlane.__file__).parent / "workers" / "site_hook.py"
LOOK = "import json, sys; print(json.dumps([sorted(m for m in sys.modules if m.startswith('runlane')), sys.path]))"


@pytest.fixture
def hook_dir(tmp_path: Path) -> Path:
    """As `runlane run` makes it."""
    directory = tmp_path / "hook"
    directory.mkdir()
    (directory / "sitecustomize.py").symlink_to(HOOK)
    return directory


def python(code: str, *directories: Path, options: tuple[str, ...] = (), program: str = sys.executable) -> str:
    """Standard output of a Python whose PYTHONPATH is that."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, directories))}
    command = [program, *options, "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, timeout=50, env=environment, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout + done.stderr


def test_a_script_that_trains_nothing_imports_nothing_of_ours(hook_dir: Path) -> None:
    """And finds its path as it would be without us."""
    modules, path = json.loads(python(LOOK, hook_dir))
    assert modules == []
    assert str(hook_dir) not in path


def test_another_sitecustomize_runs_as_if_ours_were_not_there(hook_dir: Path, tmp_path: Path) -> None:
    """It is `sys.modules["sitecustomize"]`, too; and one that fails is told as Python tells it."""
    (tmp_path / "sitecustomize.py").write_text("MINE = 7\n")
    assert python("import sitecustomize; print(sitecustomize.MINE)", hook_dir, tmp_path) == "7\n"
    (tmp_path / "sitecustomize.py").write_text("raise ValueError('theirs')\n")
    said = python("print('on')", hook_dir, tmp_path)
    assert "on\n" in said
    assert "theirs" in said


@pytest.mark.parametrize("version", ["2.7", "3.6", "3.8", "3.12", "3.13"])
def test_any_python_starts_with_it(hook_dir: Path, version: str) -> None:
    """Whatever a command starts: it runs, and says nothing."""
    found = sorted(Path.home().glob(f".pyenv/versions/{version}.*/bin/python"))
    if not found:
        pytest.skip(f"NO PYTHON {version}: install it with pyenv to see that it starts with our sitecustomize")
    assert python("print('on')", hook_dir, program=str(found[-1])) == "on\n"


def test_an_interpreter_without_runlane_says_what_to_do(hook_dir: Path, tmp_path: Path) -> None:
    """Once, when a library that we would hook is imported; the script goes on."""
    (tmp_path / "gymnasium").mkdir()
    (tmp_path / "gymnasium/__init__.py").write_text("import gymnasium.core\n")
    (tmp_path / "gymnasium/core.py").write_text("class Env: pass\n")
    code = "import sys; sys.modules['runlane'] = None\nimport gymnasium; print(gymnasium.core.Env.__name__)"
    said = python(code, hook_dir, tmp_path)
    assert said.startswith("Env\n")
    assert said.count("NOTHING IS RECORDED") == 1
    assert "pip install runlane" in said


def test_an_interpreter_without_runlane_says_nothing_of_what_records_nothing(hook_dir: Path, tmp_path: Path) -> None:
    """Every tool reads a command line; only a library with environments has something to record."""
    (tmp_path / "tyro.py").write_text("def cli(f): return f\n")
    code = "import sys; sys.modules['runlane'] = None\nimport argparse, tyro\n"
    code += "print(argparse.ArgumentParser().parse_args())"
    assert python(code, hook_dir, tmp_path) == "Namespace()\n"


def test_reading_a_command_line_imports_nothing_of_ours(hook_dir: Path) -> None:
    """Many a program below `runlane run` does, and trains nothing."""
    code = "import argparse, sys; argparse.ArgumentParser().parse_args()\n"
    code += "print([name for name in sys.modules if name.startswith('runlane')])"
    assert python(code, hook_dir, *map(Path, sys.path[1:])) == "[]\n"


def test_what_was_read_is_taken_when_an_environment_library_is_hooked(hook_dir: Path) -> None:
    """Whether the script read its command line before that or after."""
    code = """
import argparse
parser = argparse.ArgumentParser()
parser.add_argument("--lr", default=0.5)
parser.parse_args()
import gymnasium
from runlane.workers import hooked_session
print(hooked_session._config)
parser.set_defaults(lr=0.25)
parser.parse_args()
print(hooked_session._config)
"""
    assert python(code, hook_dir, *map(Path, sys.path[1:])) == "{'lr': 0.5}\n{'lr': 0.25}\n"


def test_a_finder_that_asks_the_others_is_asked_once(tmp_path: Path) -> None:
    """Wherever it stands: it finds the module as it would without us, and the module is patched."""
    (tmp_path / "watched.py").write_text("value = 1\n")
    (tmp_path / "patching.py").write_text("def patch(module): module.value += 1\n")
    (tmp_path / "asking.py").write_text("""
import sys
class Asking:
    count = 0
    def find_spec(self, name, path=None, target=None):
        if name == "watched":
            self.count += 1
            for finder in sys.meta_path:
                spec = finder.find_spec(name, path, target) if finder is not self else None
                if spec is not None:
                    return spec
""")
    for place in (0, 1):
        code = "from runlane.workers import site_hook; site_hook.install({'watched': 'patching:patch'})\n"
        code += f"import asking, sys; finder = asking.Asking(); sys.meta_path.insert({place}, finder)\n"
        code += "import watched; print(watched.value, finder.count)"
        assert python(code, tmp_path, *map(Path, sys.path[1:])) == "2 1\n"


def test_a_module_is_patched_right_after_it_was_executed(tmp_path: Path) -> None:
    """By its own loader, which it then still names; `from module import name` finds what was patched."""
    (tmp_path / "watched.py").write_text("value = 1\n")
    (tmp_path / "patching.py").write_text("def patch(module): module.value += 1\n")
    code = "from runlane.workers import site_hook; site_hook.install({'watched': 'patching:patch'})\n"
    code += "site_hook.install({'watched': 'patching:patch'})\n"
    code += "from watched import value; import watched; print(value, type(watched.__spec__.loader).__name__)"
    assert python(code, tmp_path, *map(Path, sys.path[1:])) == "2 SourceFileLoader\n"


def test_every_hook_names_a_function_that_is_there() -> None:
    """A misspelt one would be found by nobody: whatever goes wrong in a hook stays silent towards the script."""
    for hook in set(site_hook.HOOKS.values()):
        module, _, function = hook.partition(":")
        path = HOOK.parent / f"{module.rpartition('.')[2]}.py"
        assert f"def {function}(" in path.read_text("utf-8"), hook
