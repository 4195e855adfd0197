"""What a script reads from its command line becomes config; what others read does not."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from kinds import ROOT, interpreter_of

ARM = """
import argparse, json, sys
from runlane.workers import config_hook, hooked_session, site_hook
site_hook.keep_parsed(argparse)
site_hook.keep_parsed(argparse)
noted = []
hooked_session.note_config = noted.append
"""
TELL = "\nprint(json.dumps(noted))\n"
PARSER = """
parser = argparse.ArgumentParser()
parser.add_argument("--lr", type=float, default=0.1)
parser.add_argument("--api-key", default="k")
"""


def _run(directory: Path, text: str, *arguments: str, python: str = sys.executable) -> object:
    script = directory / "script.py"
    script.write_text(ARM + text + TELL)
    command = [python, str(script), *arguments]
    done = subprocess.run(
        command,
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
        env={"PYTHONPATH": str(ROOT / "src"), "PATH": "/usr/bin:/bin"},
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.parametrize(
    "call", ["parse_args()", "parse_args(sys.argv[1:])", "parse_known_args()", "parse_known_args(None)"]
)
def test_the_command_line_is_noted_once(tmp_path: Path, call: str) -> None:
    """`parse_args` calls `parse_known_args`, and that is no second time; secrets are masked."""
    found = _run(tmp_path, f"{PARSER}\nparser.{call}\n", "--lr", "0.5", "--api-key", "abc")
    assert found == [{"lr": 0.5, "api_key": "***"}]


def test_other_lists_are_not(tmp_path: Path) -> None:
    """Arguments that are not this process's."""
    assert _run(tmp_path, f"{PARSER}\nparser.parse_args(['--lr', '2'])\n") == []


def test_an_iterator_is_left_to_the_parser(tmp_path: Path) -> None:
    """To look into it would be to take it away."""
    text = f"""{PARSER}
import types
words = (word for word in sys.argv[1:] if word != "--junk")
assert parser.parse_args(words).lr == 0.5
tyro = types.ModuleType("tyro")
tyro.cli = lambda f, *, args=None: list(args)
config_hook.patch_tyro(tyro)
assert tyro.cli(dict, args=(word for word in sys.argv[1:])) == sys.argv[1:]
"""
    assert _run(tmp_path, text, "--lr", "0.5") == []


def test_what_was_read_before_anything_of_ours_was_there_is_taken_once(tmp_path: Path) -> None:
    """As it was then: what the script does to its namespace later is not what it was given."""
    script = tmp_path / "script.py"
    script.write_text(f"""
import argparse, json, runpy, sys
site = runpy.run_path({str(ROOT / "workers/site_hook.py")!r}, run_name="site")
site["keep_parsed"](argparse)
{PARSER}
parser.parse_args().lr = 9.0
assert not [name for name in sys.modules if name.startswith("runlane")]
from runlane.workers import config_hook, hooked_session
noted = []
hooked_session.note_config = noted.append
config_hook.take_parsed()
config_hook.take_parsed()
parser.parse_args()
print(json.dumps(noted))
""")
    command = [sys.executable, str(script), "--lr", "0.5"]
    environment = {"PYTHONPATH": str(ROOT / "src"), "PATH": "/usr/bin:/bin"}
    done = subprocess.run(command, capture_output=True, text=True, timeout=50, check=False, env=environment)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == [{"lr": 0.5, "api_key": "***"}] * 2


def test_nor_what_a_launcher_or_a_child_reads(tmp_path: Path) -> None:
    """A module of torch's parses its own command line, a child of multiprocessing its parent's."""
    launcher = "import types\nlauncher = types.ModuleType('torch.distributed.run')\n"
    text = launcher + "exec('def read(parser): parser.parse_args()', vars(launcher))\n" + PARSER
    assert _run(tmp_path, text + "launcher.read(parser)\n") == []
    child = f"""
def read(queue):
    {"    ".join(PARSER.strip().splitlines(keepends=True))}
    parser.parse_args()
    queue.put(noted)
import multiprocessing
context = multiprocessing.get_context("fork")
queue = context.SimpleQueue()
process = context.Process(target=read, args=(queue,))
process.start()
noted = [*noted, *queue.get()]
process.join()
"""
    assert _run(tmp_path, child) == []


def test_a_parser_that_fails_fails_as_before(tmp_path: Path) -> None:
    """The error, the exit code and the signature are argparse's."""
    text = f"""{PARSER}
import inspect
assert list(inspect.signature(parser.parse_args).parameters) == ["args", "namespace"]
try:
    parser.parse_args()
except SystemExit as error:
    assert error.code == 2
"""
    assert _run(tmp_path, text, "--lr", "much") == []


def test_groups_inside_are_maps(tmp_path: Path) -> None:
    """Namespaces and dataclasses in a namespace, as some parsers make them."""
    text = """
import dataclasses
@dataclasses.dataclass
class Optim:
    lr: float = 0.1
    token: str = "t"
parser = argparse.ArgumentParser()
parser.parse_args(namespace=argparse.Namespace(optim=Optim(), sub=argparse.Namespace(n=1)))
"""
    assert _run(tmp_path, text) == [{"optim": {"lr": 0.1, "token": "***"}, "sub": {"n": 1}}]


def test_tyro_tells_its_dataclass_and_nothing_else(tmp_path: Path) -> None:
    """What tyro does with argparse inside is not the script's; of a function that it calls nothing is known."""
    text = """
import dataclasses, tyro
from runlane.workers.config_hook import patch_tyro
patch_tyro(tyro)
@dataclasses.dataclass
class Optim:
    lr: float = 0.1
@dataclasses.dataclass
class Args:
    optim: Optim = dataclasses.field(default_factory=Optim)
    api_key: str = "k"
def main(steps: int = 1):
    return Optim(5.0)
tyro.cli(Args)
tyro.cli(main, args=[])
tyro.cli(Args, args=[])
"""
    python = str(interpreter_of("cleanrl", "tyro"))
    assert _run(tmp_path, text, "--optim.lr", "0.5", python=python) == [{"optim": {"lr": 0.5}, "api_key": "***"}]
