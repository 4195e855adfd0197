"""Programs in C, compiled as a careful engine would be: what the compiler has doubts about is an error."""

import shutil
import subprocess
from pathlib import Path

import pytest

EXAMPLE = Path(__file__).parents[2] / "examples" / "ring_writer.c"
FLAGS = ("-std=c11", "-O2", "-Wall", "-Wextra", "-Wpedantic", "-Wconversion", "-Werror")


def compiled(source: Path, directory: Path, *flags: str) -> Path:
    """The program of a C file; without a compiler the test is skipped."""
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip("NO C COMPILER: install one, as with `apt-get install gcc libc6-dev`")
    program = directory / source.stem
    subprocess.run([compiler, *FLAGS, *flags, "-o", str(program), str(source)], check=True, timeout=60)
    return program
