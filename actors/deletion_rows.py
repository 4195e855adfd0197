"""What the database says of a run that a person wants gone, and the note that it is to go.

The note is made before the first row goes: it stands in `retention_rows` for every stream and class of the run, with
the greatest seq there is. So a writer that is killed half way goes on, and a record that comes late is refused.
"""

import json
from typing import NamedTuple

from runlane.actors.removal import CLASSES, DELETED
from runlane.actors.sql import Connection
from runlane.actors.topology import proxy_name
from runlane.transport.messages import StreamInfo
from runlane.transport.row_key import SEQ_MASK

_FACTS = """
SELECT r.name, r.state,
       EXISTS (SELECT 1 FROM ended_runs AS e WHERE e.run = r.run),
       NOT EXISTS (SELECT 1 FROM streams AS s WHERE s.run = r.run AND NOT EXISTS  -- as in removed_runs, of one run
                    (SELECT 1 FROM retention_rows AS t WHERE t.stream_no = s.stream_no
                        AND t.class = 'episode' AND t.is_done AND t.last_seq >= s.last_seq)),
       EXISTS (SELECT 1 FROM streams AS s WHERE s.run = r.run AND s.seen_ns > ?2
                  AND coalesce(s.state, 'running') IN ('running', 'stalled')),
       (SELECT coalesce(sum(s.steps), 0) FROM streams AS s WHERE s.run = r.run),
       (SELECT coalesce(sum(s.episodes), 0) FROM streams AS s WHERE s.run = r.run)
  FROM runs AS r WHERE r.run = ?1
"""
_STREAMS = "SELECT stream FROM streams WHERE run = ? ORDER BY stream_no"
_REMOVED = """
SELECT t.class, sum(t.rows), max(NOT t.is_done)
  FROM streams AS s JOIN retention_rows AS t USING (stream_no)
 WHERE s.run = ?1 AND t.reason = ?2 GROUP BY t.class
"""
_END_STREAMS = """
UPDATE streams SET state = 'killed', ended_ns = coalesce(seen_ns, started_ns)
 WHERE run = ? AND coalesce(state, 'running') IN ('running', 'stalled')
"""
_END_RUN = """
UPDATE runs SET
  state = iif(state IN ('running', 'stalled'), 'killed', state),
  ended_ns = coalesce(ended_ns, (SELECT max(coalesce(seen_ns, started_ns)) FROM streams WHERE run = ?1), started_ns)
 WHERE run = ?1
"""
_NOTE = """
INSERT INTO retention_rows (stream_no, class, reason, last_seq, rows, t_ns, is_done)
SELECT s.stream_no, c.value, ?2, ?3, 0, ?4, 0 FROM streams AS s JOIN json_each(?5) AS c WHERE s.run = ?1
    ON CONFLICT DO NOTHING
"""
_NOTE_STREAM = """
INSERT INTO retention_rows (stream_no, class, reason, last_seq, rows, t_ns, is_done)
SELECT ?1, t.class, ?3, ?4, 0, max(t.t_ns), 1
  FROM streams AS s JOIN retention_rows AS t USING (stream_no)
 WHERE s.run = ?2 AND t.reason = ?3
   AND NOT EXISTS (SELECT 1 FROM streams AS o
                    WHERE o.run = ?2 AND o.stream_no <> ?1 AND o.worker NOT GLOB 'proxy-*' AND NOT EXISTS
                     (SELECT 1 FROM retention_rows AS m WHERE m.stream_no = o.stream_no AND m.reason = ?3))
 GROUP BY t.class HAVING max(t.t_ns) >= ?5
    ON CONFLICT DO NOTHING
"""


class RunFacts(NamedTuple):
    """A run as it stands. `rows` were removed because it was deleted, by class; `is_begun`: there are more to go.

    `is_heard`: one of its streams that have not ended was heard of lately.
    """

    name: str
    state: str
    is_ended: bool
    is_removed: bool
    is_begun: bool
    is_heard: bool
    steps: int
    episodes: int
    streams: list[str]
    rows: dict[str, int]


class DeletionRows:
    """Part of the store: what writes runs in the transaction the store opens."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection

    def facts(self, run: str, heard_ns: int) -> RunFacts:
        """Of a run that is there; `heard_ns` is the wall clock since when somebody must have been heard of."""
        found = self.connection.execute(_FACTS, (run, heard_ns)).fetchall()[0]
        name, state, is_ended, is_removed, is_heard, steps, episodes = found
        marks = {row[0]: row[1:] for row in self.connection.execute(_REMOVED, (run, DELETED)).fetchall()}
        return RunFacts(
            name,
            state,
            bool(is_ended),
            bool(is_removed),
            any(is_begun for _, is_begun in marks.values()),
            bool(is_heard),
            steps,
            episodes,
            self.streams(run),
            {name: marks[name][0] for name in CLASSES if name in marks},
        )

    def streams(self, run: str) -> list[str]:
        """Ids of its streams."""
        return [stream for (stream,) in self.connection.execute(_STREAMS, (run,)).fetchall()]

    def begin(self, run: str, t_ns: int) -> None:
        """Note that all of a run is to go. One that is lost ends here: nobody else will say that it has."""
        if not self.connection.execute("SELECT EXISTS (SELECT 1 FROM ended_runs WHERE run = ?)", (run,)).get:
            self.connection.execute(_END_STREAMS, (run,))
            self.connection.execute(_END_RUN, (run,))
        self.connection.execute(_NOTE, (run, DELETED, SEQ_MASK, t_ns, json.dumps(CLASSES)))

    def note_stream(self, stream_no: int, info: StreamInfo) -> bool:
        """Delete a new stream that began before its run was deleted, as one from a journal that nobody had drained.

        One that began later brings its run back, and so does a resume, whatever the clock of its host says: who resumes
        wants the run, and from then on nothing of it is refused. A proxy's report does neither: it is about others.
        """
        if info.is_resumed:
            return False
        started_ns = 0 if info.worker.startswith(proxy_name("")) else info.started_ns
        self.connection.execute(_NOTE_STREAM, (stream_no, info.run, DELETED, SEQ_MASK, started_ns))
        return self.connection.changes() > 0
