"""RunWarning: the loud word that nothing is recorded of a command, as its launcher left it in the run. No Qt.

`runlane run` writes it, by the proxy, when nothing has attached for some seconds: a headline, and lines of code.
"""

from dataclasses import dataclass

from runlane.config.names import PROXY_PREFIX
from runlane.transport.messages import StreamInfo
from runlane.transport.records import LogRecord

NOTHING_RECORDED = "Nothing is recorded"
LEVEL = "warning"
CODE_INDENT = "    "
MAX_TEXT = 4_000
# Where the launcher names no lines of its own.
THREE_LINES = """from runlane.workers import wrap
env = wrap(env)  # right after gymnasium.make(...)
env.close()  # at the end of the script"""


@dataclass(frozen=True, slots=True)
class RunWarning:
    """What is said: in a line, in lines of code that can be copied, and in words before and after those."""

    headline: str
    code: str
    before: str = ""
    after: str = ""


def is_nothing_recorded(info: StreamInfo, record: object) -> bool:
    """Whether a record is that word; a script's own log line is none, whatever it says."""
    return (
        isinstance(record, LogRecord)
        and info.worker.startswith(PROXY_PREFIX)
        and record.level.lower() == LEVEL
        and record.text.startswith(NOTHING_RECORDED)
    )


def parse_warning(text: str) -> RunWarning:
    """A text as it was recorded. Indented lines are code."""
    headline, _, rest = text[:MAX_TEXT].partition("\n")
    lines = [line.rstrip() for line in rest.splitlines() if line.strip()]
    is_code = [line.startswith(CODE_INDENT) for line in lines]
    first = is_code.index(True) if any(is_code) else len(lines)
    code = [line.removeprefix(CODE_INDENT) for line, is_one in zip(lines, is_code, strict=True) if is_one]
    return RunWarning(
        headline.strip(),
        "\n".join(code) or THREE_LINES,
        "\n".join(line.strip() for line in lines[:first]),
        "\n".join(line.strip() for line, is_one in zip(lines[first:], is_code[first:], strict=True) if not is_one),
    )
