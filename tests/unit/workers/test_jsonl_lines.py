"""What a line of a foreign program means."""

import json
import math

import pytest

from runlane.workers.jsonl_lines import (
    QUOTED_CHARACTERS,
    EpisodeLine,
    LogLine,
    MetricLine,
    MetricsLine,
    NotTaken,
    RunLine,
    StepLine,
    Text,
    huge_line,
    last_line,
    lines_of,
)


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ('{"kind":"step"}', StepLine()),
        ('{"kind":"step","action":1,"reward":2,"terminated":true,"more":[1]}', StepLine(1, 2.0, terminated=True)),
        ('{"kind":"episode","episode_return":3,"length":4}', EpisodeLine(3.0, 4)),
        ('{"kind":"metric","name":"loss","value":null}', MetricLine("loss", None)),
        ('{"kind":"metrics","values":{"a":1},"step":7}', MetricsLine({"a": 1.0}, 7)),
        ('{"kind":"log","text":"x"}', LogLine("x")),
        ('{"kind":"run","config":{"a":1}}', RunLine({"a": 1})),
    ],
)
def test_every_kind_is_read(text: str, line: object) -> None:
    """What is left out has its default, what is not known is passed over."""
    assert lines_of(f"{text}\r\n".encode()) == [line]


@pytest.mark.parametrize("text", ["hello", "[1]", "1", '{"loss":1}', "{'kind': 1}", '{"a":{"kind":1}}', "\ufffd"])
def test_what_is_no_record_is_text(text: str) -> None:
    """Banners, prints and logs in JSON of somebody else."""
    assert lines_of(text.encode()) == [Text(text)]


@pytest.mark.parametrize(
    ("text", "sort"),
    [
        ('{"kind":"leap"}', "unknown_kind"),
        ('{"kind":"step","reward":"1"}', "wrong_type"),
        ('{"kind":"metric","name":"loss"}', "wrong_type"),
        ('{"kind":"step","env_index":4096}', "wrong_type"),
        ('{"kind":"step"', "no_json"),
        ('{"kind":"step"} {"kind":"step"}', "no_json"),
    ],
)
def test_a_record_that_cannot_be_taken_has_a_sort(text: str, sort: str) -> None:
    """It is quoted, and nothing raises."""
    (found,) = lines_of(text.encode())
    assert isinstance(found, NotTaken)
    assert (found.sort, found.quote) == (sort, text)
    assert found.problem


def test_python_s_own_dialect_is_read() -> None:
    """`json.dumps` writes NaN and Infinity."""
    (found,) = lines_of(json.dumps({"kind": "metrics", "values": {"a": math.nan, "b": -math.inf}}).encode())
    assert isinstance(found, MetricsLine)
    assert math.isnan(found.values["a"] or 0)
    assert found.values["b"] == -math.inf


def test_blank_lines_mean_nothing_and_lines_never_join() -> None:
    """An object over two lines is two lines that are none."""
    assert lines_of(b'\n  \n{"kind":\n"step"}\n') == [
        NotTaken("no_json", "Expecting value: line 1 column 9 (char 8)", '{"kind":'),
        Text('"step"}'),
    ]


def test_a_last_line_is_taken_if_it_is_whole() -> None:
    """Cut-off JSON never is."""
    assert last_line(b'{"kind":"step"}') == StepLine()
    assert last_line(b"bye") == Text("bye")
    assert last_line(b"") is None
    half = last_line(b'{"kind":"st')
    assert isinstance(half, NotTaken)
    assert half.sort == "half"


def test_a_quote_is_short() -> None:
    """However long the line."""
    assert len(huge_line(b"x" * 10_000).quote) == QUOTED_CHARACTERS


@pytest.mark.parametrize("depth", [1_500, 100_000])
@pytest.mark.parametrize("field", ['"info":{"a":%s}', '"action":%s', '"more":%s', '"reward":NaN,"info":{"a":%s}'])
def test_a_line_nested_too_deeply_costs_that_line_alone(depth: int, field: str) -> None:
    """Whatever a reader's stack takes: those before and after it are taken."""
    deep = '{"kind":"step",' + field % ("[" * depth + "]" * depth) + "}"
    before, found, after = lines_of(f'{{"kind":"step"}}\n{deep}\n{{"kind":"step","reward":2}}'.encode())
    assert (before, after) == (StepLine(), StepLine(reward=2))
    assert isinstance(found, NotTaken)
    assert found.sort == "no_json"
    assert len(found.quote) == QUOTED_CHARACTERS
