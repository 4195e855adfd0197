"""Which run a person means: by its id, by the beginning of its id, or by its name."""

from pathlib import Path

from runlane.actors.sql import Connection
from runlane.config.errors import StoreError

SHOWN = 5  # candidates that an error lists

_BY_NAME = """
SELECT run FROM runs WHERE name = ?1 AND run NOT IN (SELECT run FROM removed_runs) ORDER BY started_ns DESC, run DESC
"""
_BY_ID = """
SELECT run FROM runs WHERE substr(run, 1, length(?1)) = ?1 AND run NOT IN (SELECT run FROM removed_runs)
 ORDER BY run DESC
"""


def find_run(connection: Connection, path: Path, text: str) -> str:
    """Id of the one run that is meant; raises `StoreError` when there is none, or more than one.

    A whole id wins over a name, a name over the beginning of an id. A run that was removed has its whole id only.
    """
    if connection.execute("SELECT count(*) FROM runs WHERE run = ?", (text,)).get:
        return text
    for sql, what in ((_BY_NAME, "are named"), (_BY_ID, "begin with")) if text else ():
        found = [str(run) for (run,) in connection.execute(sql, (text,)).fetchall()]
        if len(found) == 1:
            return found[0]
        if found:
            shown = ", ".join(found[:SHOWN]) + (", …" if len(found) > SHOWN else "")
            raise StoreError(f"{len(found)} runs {what} {text!r}: {shown}; give the id of one")
    raise StoreError(f"no run {text!r} in {path}; give an id, the beginning of one, or a name from `runlane runs`")
