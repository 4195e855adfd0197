"""RunWarning: what the launcher writes when nothing is hooked, and what the window makes of it."""

from runlane.config.names import PROXY_PREFIX
from runlane.gui.run_warning import THREE_LINES, is_nothing_recorded, parse_warning
from runlane.transport.messages import StreamInfo
from runlane.transport.records import LogRecord

TEXT = """Nothing is recorded after 10 s of `python t.py`.
No environment was reset in it. Add three lines:
    from runlane.workers import attach
    lane = attach()
    lane.step(action, reward)
or one: env = wrap(env)
`runlane run --dry` says more."""


def info_of(worker: str) -> StreamInfo:
    return StreamInfo(stream="0" * 32, run="r", worker=worker, host="h", pid=1, started_ns=1)


def test_a_warning_is_a_headline_and_lines_to_copy() -> None:
    """Words before and after the lines stay in their places."""
    found = parse_warning(TEXT)
    assert found.headline == "Nothing is recorded after 10 s of `python t.py`."
    assert found.code.splitlines() == [
        "from runlane.workers import attach",
        "lane = attach()",
        "lane.step(action, reward)",
    ]
    assert found.before == "No environment was reset in it. Add three lines:"
    assert found.after == "or one: env = wrap(env)\n`runlane run --dry` says more."


def test_without_lines_of_its_own_there_are_three() -> None:
    """Whatever the launcher writes, somebody reads what to do."""
    found = parse_warning("Nothing is recorded of this.\nSorry.")
    assert (found.code, found.before, found.after) == (THREE_LINES, "Sorry.", "")
    assert len(THREE_LINES.splitlines()) == 3


def test_only_a_proxys_warning_counts() -> None:
    """A script may log what it likes."""
    record = LogRecord(1, 0, "warning", TEXT)
    assert is_nothing_recorded(info_of(f"{PROXY_PREFIX}worker"), record)
    assert not is_nothing_recorded(info_of("worker"), record)
    assert not is_nothing_recorded(info_of(f"{PROXY_PREFIX}worker"), LogRecord(1, 0, "info", TEXT))
    assert not is_nothing_recorded(info_of(f"{PROXY_PREFIX}worker"), LogRecord(1, 0, "warning", "Recorded"))
