"""Log ids: one registry, one spelling, each in use."""

import ast
import logging
from pathlib import Path

import pytest

from runlane.config import log_ids
from runlane.config.log_ids import REGISTRY, LogId

ROOT = Path(__file__).parents[3]
SUBJECTS = {
    "ACTOR",
    "WIRE",
    "JOURNAL",
    "JSONL",
    "SUPERVISOR",
    "RUNBUS",
    "PROXY",
    "DURABLE",
    "WORKER",
    "FASTLANE",
    "GUI",
}


def _used() -> set[str]:
    """Every `log_ids.NAME` in running code."""
    found: set[str] = set()
    for folder in ("actors", "gui", "src/runlane", "transport", "workers"):
        for path in (ROOT / folder).glob("*.py"):
            for node in ast.walk(ast.parse(path.read_text("utf-8"))):
                if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "log_ids":
                    found.add(node.attr)
    return found


def test_each_constant_is_named_like_its_id() -> None:
    """What stands in a log can be searched for in the code."""
    constants = {name: value for name, value in vars(log_ids).items() if isinstance(value, LogId)}
    assert constants == REGISTRY


@pytest.mark.parametrize("log_id", REGISTRY.values(), ids=lambda log_id: log_id.name)
def test_an_id_starts_with_its_subject_and_says_what_it_means(log_id: LogId) -> None:
    """SUBJECT_EVENT, a level of the logging module, and a sentence."""
    assert log_id.name.partition("_")[0] in SUBJECTS
    assert log_id.name == log_id.name.upper()
    assert log_id.level in (logging.DEBUG, logging.INFO, logging.WARNING, logging.ERROR)
    assert len(log_id.meaning.split()) >= 4


def test_every_id_is_used_and_every_used_one_exists() -> None:
    """The registry holds what the code logs, no more and no less."""
    assert _used() - {"REGISTRY", "LogId"} == set(REGISTRY)
