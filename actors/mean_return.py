"""The mean return of a run's newest episodes, over all of its streams together."""

from runlane.actors.sql import Connection

MEAN_EPISODES = 100  # the newest of a run that its mean return is taken over

# Each stream's newest hundred, found by their keys, and of those the newest hundred by time: not one more is read,
# and none leaves SQLite.
MEAN_SQL = """
SELECT avg(episode_return) FROM (
  SELECT e.episode_return
    FROM streams AS s CROSS JOIN episode_rows AS e
      ON e.id BETWEEN (SELECT min(id) FROM (SELECT n.id FROM episode_rows AS n
                        WHERE n.id BETWEEN s.stream_no << 40 AND s.stream_no << 40 | 1099511627775
                        ORDER BY n.id DESC LIMIT ?2))
                  AND s.stream_no << 40 | 1099511627775
   WHERE s.run = ?1 AND s.episodes > 0
   ORDER BY e.t_ns DESC LIMIT ?2)
"""


def mean_return(connection: Connection, run: str) -> float | None:
    """The mean; a NaN return is NULL and not among the summands. None without any."""
    found: float | None = connection.execute(MEAN_SQL, (run, MEAN_EPISODES)).get
    return found
