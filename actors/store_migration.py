"""What brings a database of an older schema version up to date: SQL, run by its writer in one transaction.

The schema makes what is missing. So a view that has changed is only dropped. SQLite cannot change a CHECK, so a table
whose CHECK has changed is made anew; views on it are dropped before, because renaming a table rewrites them.
"""

# Since 3 `retention_rows` knows the reason 'deleted'. The schema comes twice: a file may be older than the table.
_FROM_2 = """
{0};
DROP VIEW retention; DROP VIEW removed_runs; DROP INDEX retention_rows_begun;
ALTER TABLE retention_rows RENAME TO retention_rows_2;
{0};
INSERT INTO retention_rows (stream_no, class, reason, last_seq, rows, t_ns, is_done)
  SELECT stream_no, class, reason, last_seq, rows, t_ns, is_done FROM retention_rows_2;
DROP TABLE retention_rows_2
"""
# Since 4 `step_records` leaves out what a row of several environments is not about.
_FROM_3 = """
DROP VIEW steps; DROP VIEW step_records;
{0}
"""


def migrated(version: int, schema: str) -> str:
    """Statements that make a database of `version` one of this schema."""
    if version == 2:
        return _FROM_3.replace("{0}", _FROM_2).replace("{0}", schema)
    return _FROM_3.replace("{0}", schema) if version == 3 else schema
