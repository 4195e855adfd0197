"""What a line of a foreign program means. `docs/reference/jsonl-protocol.md` is the page for those who write them.

Line by line, though msgspec could take a whole chunk at once (2.4 instead of 1.4 million lines a second): that would
also take two objects in one line, or one over two lines, so that what a line means would depend on its neighbours.
"""

import json
from typing import Annotated, Any, Literal, NamedTuple

import msgspec

from runlane.workers.plain_values import short_text

# A longer line is passed over: it would have to be in memory as a whole.
MAX_LINE_BYTES = 8 << 20
# Environments of one program, each with its running episode.
MAX_ENVS = 4096
QUOTED_CHARACTERS = 200
TOO_DEEP = "nested too deeply"

Sort = Literal["no_json", "unknown_kind", "wrong_type", "huge", "half"]
EnvIndex = Annotated[int, msgspec.Meta(ge=0, lt=MAX_ENVS)]
Number = float | None  # null is what JSON of other languages makes of NaN


class _Line(msgspec.Struct, tag_field="kind"):
    """One object. Unknown fields are passed over."""


class RunLine(_Line, tag="run"):
    """Facts about the run."""

    config: dict[str, Any] | None = None
    env: Any = None
    versions: dict[str, Any] | None = None


class StepLine(_Line, tag="step"):
    """One step of one environment; the fields of `WorkerSession.step`."""

    action: Any = None
    reward: Number = 0.0
    terminated: bool = False
    truncated: bool = False
    observation: Any = None
    info: dict[str, Any] | None = None
    env_index: EnvIndex = 0
    is_reset: bool = False
    is_human: bool = False


class EpisodeLine(_Line, tag="episode"):
    """The end of an episode, or a whole episode of a program that tells no steps."""

    episode_return: Number = None
    length: Annotated[int, msgspec.Meta(ge=0, lt=1 << 32)] | None = None
    outcome: Literal["terminated", "truncated", "abandoned"] = "terminated"
    info: dict[str, Any] | None = None
    env_index: EnvIndex = 0


class MetricLine(_Line, tag="metric"):
    """One named scalar."""

    name: str
    value: Number
    step: int | None = None


class MetricsLine(_Line, tag="metrics"):
    """Several named scalars of one moment."""

    values: dict[str, Number]
    step: int | None = None


class LogLine(_Line, tag="log"):
    """A line of text."""

    text: str
    level: str = "info"


class Text(NamedTuple):
    """A line that is not meant as a record."""

    text: str


class NotTaken(NamedTuple):
    """A line that was meant as a record. `problem` is the reader's own word, `quote` its beginning."""

    sort: Sort
    problem: str
    quote: str


Known = RunLine | StepLine | EpisodeLine | MetricLine | MetricsLine | LogLine
Line = Known | Text | NotTaken

_decode = msgspec.json.Decoder(Known).decode


def lines_of(chunk: bytes) -> list[Line]:
    """What whole lines mean, in order. Blank ones mean nothing."""
    found: list[Line] = []
    append = found.append
    for line in chunk.split(b"\n"):
        try:
            append(_decode(line))
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            other = _other(line, error)
            if other is not None:
                append(other)
    return found


def last_line(line: bytes) -> Line | None:
    """What a line means that has no end, because the program was killed or forgot it."""
    found = next(iter(lines_of(line)), None)
    return NotTaken("half", found.problem, found.quote) if isinstance(found, NotTaken) else found


def huge_line(beginning: bytes) -> NotTaken:
    """A line that is longer than `MAX_LINE_BYTES`."""
    return NotTaken("huge", f"longer than {MAX_LINE_BYTES >> 20} MiB", _quoted(beginning))


def _other(line: bytes, error: Exception) -> Line | None:
    """A line that is no record as it stands: text, a record in another dialect, or one that is not taken."""
    if not line.strip():
        return None
    if not (line.lstrip().startswith(b"{") and b'"kind"' in line):
        return Text(short_text(_decoded(line)))
    if isinstance(error, RecursionError):
        return NotTaken("no_json", TOO_DEEP, _quoted(line))
    if isinstance(error, msgspec.ValidationError) and "$.kind" in str(error):
        return NotTaken("unknown_kind", str(error), _quoted(line))
    try:  # Python's own json writes NaN and Infinity, and reads them
        found: Known = msgspec.convert(json.loads(line), Known)
    except msgspec.ValidationError as problem:
        has_kind = "field `kind`" not in str(problem)
        return NotTaken("wrong_type", str(problem), _quoted(line)) if has_kind else Text(short_text(_decoded(line)))
    except RecursionError:
        return NotTaken("no_json", TOO_DEEP, _quoted(line))
    except ValueError as problem:
        return NotTaken("no_json", str(problem) or type(problem).__name__, _quoted(line))
    return found


def _decoded(line: bytes) -> str:
    return line.decode("utf-8", "replace").rstrip("\r")


def _quoted(line: bytes) -> str:
    return _decoded(line[: 4 * QUOTED_CHARACTERS])[:QUOTED_CHARACTERS]
