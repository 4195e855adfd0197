"""The programs of `docs/how-to/attach-another-language.md`, run as the page says."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest
from process.graph_under_test import GraphUnderTest
from process.jsonl_rig import ForeignRun
from reference_page import ROOT

pytestmark = pytest.mark.timeout(120)
PAGE = (ROOT / "docs/how-to/attach-another-language.md").read_text("utf-8")


def example(language: str) -> str:
    """The first block of code in a language."""
    found = re.search(rf"^```{language}\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE)
    assert found is not None
    return found[1]


@pytest.mark.parametrize(
    ("language", "source", "tool", "wanted"),
    [
        ("sh", "stdout", "sh", (15, 9.0, 3)),
        ("c", "fd:3", "cc", (1_000, 500.0, 10)),
        ("js", "stdout", "node", (200, None, 4)),
    ],
)
def test_the_page_s_programs_are_recorded(
    short_dir: Path, language: str, source: str, tool: str, wanted: tuple[int, float | None, int]
) -> None:
    """Steps, their rewards and their episodes are in SQL."""
    found = shutil.which(tool)
    if found is None:
        pytest.skip(f"NO {tool} HERE: the example in {language} was not tried; install it")
    program = short_dir / f"walk.{language}"
    program.write_text(example(language))
    command = [found, str(program)]
    if language == "c":
        subprocess.run([found, "-Wall", "-Werror", "-o", str(short_dir / "walk"), str(program)], check=True, timeout=60)
        command = [str(short_dir / "walk")]
    with GraphUnderTest(short_dir) as graph:
        with ForeignRun(graph, source, *command) as run:
            code, _, err = run.end()
            assert code == 0, err
        ((steps, reward),) = graph.sql("SELECT count(*), sum(reward) FROM steps")
        episodes = graph.sql("SELECT count(*) FROM episodes WHERE outcome != 'abandoned'")
        assert (steps, *episodes[0]) == (wanted[0], wanted[2])
        assert wanted[1] in (None, reward)
