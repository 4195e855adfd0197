-- The database of runlane, schema version 1. One process writes it (the DB writer); everybody else reads.
-- `docs/reference/schema.md` describes every table, view and column; a test compares.
--
-- Names ending in `_rows` are storage: compact, keyed by one packed integer. The views are for reading.
--
-- A record's key:  id = stream_no << 40 | seq.  Both parts are positive, a stream_no stays below 1 << 23 and a
-- seq below 1 << 40, so ids are positive, sort by stream and then by seq, and a record that arrives twice
-- meets itself. 1099511627775 is (1 << 40) - 1, the seq's share.
--
-- SQLite has no NaN: a NaN is NULL here. Infinities are kept, inside JSON as 9e999.

CREATE TABLE IF NOT EXISTS runs (
  run        TEXT NOT NULL PRIMARY KEY,         -- ULID
  name       TEXT NOT NULL DEFAULT '',          -- for people; may repeat
  state      TEXT NOT NULL CHECK (state IN ('running', 'finished', 'failed', 'killed', 'stopped')),
  started_ns INTEGER NOT NULL,                  -- wall clock of the earliest stream
  ended_ns   INTEGER,                           -- wall clock of the end state
  exit_code  INTEGER,
  error      TEXT,
  command    TEXT,
  config     TEXT,                              -- JSON
  host       TEXT,                              -- of the stream that opened it, or opened it again
  pid        INTEGER,                           -- likewise
  facts      TEXT NOT NULL DEFAULT '{}'         -- JSON object: all facts of all run records, newest wins
) STRICT;

CREATE TABLE IF NOT EXISTS streams (
  stream_no   INTEGER PRIMARY KEY CHECK (stream_no BETWEEN 1 AND 8388607),
  stream      TEXT NOT NULL UNIQUE,             -- 32 hexadecimal digits
  run         TEXT NOT NULL REFERENCES runs (run),
  worker      TEXT NOT NULL,
  incarnation INTEGER NOT NULL,                 -- 1, 2, ... of this worker in this run
  host        TEXT NOT NULL,
  pid         INTEGER NOT NULL,
  started_ns  INTEGER NOT NULL,
  state       TEXT,                             -- as in runs, told by run records; NULL before the first
  ended_ns    INTEGER,
  first_seq   INTEGER,                          -- seq of the first record stored
  last_seq    INTEGER NOT NULL DEFAULT 0,       -- everything up to here is stored, or counted in drops
  steps       INTEGER NOT NULL DEFAULT 0,       -- environment steps stored, resets not counted
  episodes    INTEGER NOT NULL DEFAULT 0,       -- episodes stored
  schemas     TEXT NOT NULL DEFAULT '[]',       -- JSON: layout of this stream's step rows
  UNIQUE (run, worker, incarnation)
) STRICT;

-- One row is one step of one environment.
CREATE TABLE IF NOT EXISTS step_rows (
  id          INTEGER PRIMARY KEY,
  t_ns        INTEGER NOT NULL,
  episode     INTEGER,
  step        INTEGER,
  env_index   INTEGER NOT NULL,
  flags       INTEGER NOT NULL,                 -- 1 terminated, 2 truncated, 4 reset, 8 human
  reward      REAL,
  action      ANY,                              -- INTEGER or REAL; an array is a BLOB, little endian
  observation ANY                               -- likewise
) STRICT;

-- One row is one step of env_count environments; entry i of each array is environment i's.
CREATE TABLE IF NOT EXISTS vector_step_rows (
  id          INTEGER PRIMARY KEY,
  t_ns        INTEGER NOT NULL,
  env_count   INTEGER NOT NULL,
  episode     TEXT,                             -- JSON array, as are step, flags and reward
  step        TEXT,
  flags       TEXT NOT NULL,
  reward      TEXT,
  action      ANY,                              -- one value each: JSON array; several each: BLOB, in env order
  observation ANY                               -- likewise
) STRICT;

CREATE TABLE IF NOT EXISTS episode_rows (
  id             INTEGER PRIMARY KEY,
  t_ns           INTEGER NOT NULL,
  env_index      INTEGER NOT NULL,
  episode        INTEGER NOT NULL,
  episode_return REAL,
  length         INTEGER NOT NULL,
  outcome        TEXT NOT NULL,
  duration_s     REAL,
  info           TEXT                           -- JSON object
) STRICT;

CREATE TABLE IF NOT EXISTS metric_rows (
  id    INTEGER PRIMARY KEY,
  t_ns  INTEGER NOT NULL,
  name  TEXT NOT NULL,
  step  INTEGER NOT NULL,
  value REAL
) STRICT;
CREATE INDEX IF NOT EXISTS metric_rows_by_name ON metric_rows (name);  -- and id, as every index

CREATE TABLE IF NOT EXISTS log_rows (
  id    INTEGER PRIMARY KEY,
  t_ns  INTEGER NOT NULL,
  level TEXT NOT NULL,
  text  TEXT NOT NULL
) STRICT;

CREATE TABLE IF NOT EXISTS run_rows (
  id    INTEGER PRIMARY KEY,
  t_ns  INTEGER NOT NULL,
  state TEXT NOT NULL,
  facts TEXT NOT NULL                           -- JSON object
) STRICT;

-- Keyed by the step it belongs to, so that `steps` may skip it when nobody asks for `info`.
CREATE TABLE IF NOT EXISTS info_rows (
  step_id   INTEGER NOT NULL,                   -- id of the step
  env_index INTEGER NOT NULL,
  seq       INTEGER NOT NULL,                   -- of the info record itself
  info      TEXT NOT NULL,                      -- JSON object
  PRIMARY KEY (step_id, env_index)
) STRICT, WITHOUT ROWID;

-- What was lost. `source`: first_seq = last_seq = seq of the drop record, the lost records never had one.
-- `db_writer`: first_seq to last_seq is the stretch in which records are missing.
CREATE TABLE IF NOT EXISTS drop_rows (
  stream_no INTEGER NOT NULL,
  noted_by  TEXT NOT NULL CHECK (noted_by IN ('source', 'db_writer')),
  first_seq INTEGER NOT NULL,
  kind      TEXT NOT NULL,                      -- '' when any kind may be among them
  last_seq  INTEGER NOT NULL,
  t_ns      INTEGER NOT NULL,
  reason    TEXT NOT NULL,
  records   INTEGER NOT NULL,
  PRIMARY KEY (stream_no, noted_by, first_seq, kind, reason)
) STRICT, WITHOUT ROWID;

-- In most views below a stream is joined twice over: by number, which is quick from a record to its stream, and
-- by range of ids, which is quick from a run to its records.

CREATE VIEW IF NOT EXISTS step_records AS
SELECT s.run, s.worker, s.incarnation, s.stream,
       r.id & 1099511627775 AS seq,
       r.env_index, r.episode, r.step, r.t_ns,
       strftime('%Y-%m-%d %H:%M:%f', r.t_ns / 1e9, 'unixepoch') AS time,
       r.action, r.reward,
       r.flags & 1 AS terminated,
       r.flags >> 1 & 1 AS truncated,
       r.flags >> 2 & 1 AS is_reset,
       iif(r.flags & 8, 'human', 'policy') AS actor,
       r.observation, i.info
  FROM streams AS s
  JOIN step_rows AS r
    ON r.id >> 40 = s.stream_no AND r.id BETWEEN s.stream_no << 40 AND s.stream_no << 40 | 1099511627775
  LEFT JOIN info_rows AS i ON i.step_id = r.id AND i.env_index = r.env_index
UNION ALL
SELECT s.run, s.worker, s.incarnation, s.stream,
       v.id & 1099511627775,
       e.key, v.episode ->> e.key, v.step ->> e.key, v.t_ns,
       strftime('%Y-%m-%d %H:%M:%f', v.t_ns / 1e9, 'unixepoch'),
       iif(typeof(v.action) = 'blob',
           substr(v.action, 1 + e.key * (length(v.action) / v.env_count), length(v.action) / v.env_count),
           v.action ->> e.key),
       v.reward ->> e.key,
       e.value & 1,
       e.value >> 1 & 1,
       e.value >> 2 & 1,
       iif(e.value & 8, 'human', 'policy'),
       iif(typeof(v.observation) = 'blob',
           substr(v.observation, 1 + e.key * (length(v.observation) / v.env_count),
                  length(v.observation) / v.env_count),
           v.observation ->> e.key),
       i.info
  FROM streams AS s
  JOIN vector_step_rows AS v
    ON v.id >> 40 = s.stream_no AND v.id BETWEEN s.stream_no << 40 AND s.stream_no << 40 | 1099511627775
  JOIN json_each(v.flags) AS e
  LEFT JOIN info_rows AS i ON i.step_id = v.id AND i.env_index = e.key;

CREATE VIEW IF NOT EXISTS steps AS
SELECT * FROM step_records WHERE NOT is_reset;

CREATE VIEW IF NOT EXISTS episodes AS
SELECT s.run, s.worker, s.incarnation, s.stream,
       r.id & 1099511627775 AS seq,
       r.env_index, r.episode, r.episode_return, r.length, r.outcome, r.duration_s, r.t_ns,
       strftime('%Y-%m-%d %H:%M:%f', r.t_ns / 1e9, 'unixepoch') AS time,
       r.info
  FROM streams AS s
  JOIN episode_rows AS r
    ON r.id >> 40 = s.stream_no AND r.id BETWEEN s.stream_no << 40 AND s.stream_no << 40 | 1099511627775;

CREATE VIEW IF NOT EXISTS metrics AS
SELECT s.run, s.worker, s.incarnation, s.stream,
       r.id & 1099511627775 AS seq,
       r.name, r.step, r.value, r.t_ns,
       strftime('%Y-%m-%d %H:%M:%f', r.t_ns / 1e9, 'unixepoch') AS time
  FROM streams AS s
 CROSS JOIN metric_rows AS r  -- CROSS: streams first, else a name would be looked for in every run
    ON r.id BETWEEN s.stream_no << 40 AND s.stream_no << 40 | 1099511627775;

CREATE VIEW IF NOT EXISTS logs AS
SELECT s.run, s.worker, s.incarnation, s.stream,
       r.id & 1099511627775 AS seq,
       r.level, r.text, r.t_ns,
       strftime('%Y-%m-%d %H:%M:%f', r.t_ns / 1e9, 'unixepoch') AS time
  FROM streams AS s
  JOIN log_rows AS r
    ON r.id >> 40 = s.stream_no AND r.id BETWEEN s.stream_no << 40 AND s.stream_no << 40 | 1099511627775;

CREATE VIEW IF NOT EXISTS run_states AS
SELECT s.run, s.worker, s.incarnation, s.stream,
       r.id & 1099511627775 AS seq,
       r.state, r.facts, r.t_ns,
       strftime('%Y-%m-%d %H:%M:%f', r.t_ns / 1e9, 'unixepoch') AS time
  FROM streams AS s
  JOIN run_rows AS r
    ON r.id >> 40 = s.stream_no AND r.id BETWEEN s.stream_no << 40 AND s.stream_no << 40 | 1099511627775;

CREATE VIEW IF NOT EXISTS infos AS
SELECT s.run, s.worker, s.incarnation, s.stream, r.seq,
       r.step_id & 1099511627775 AS step_seq,
       r.env_index, r.info
  FROM streams AS s
  JOIN info_rows AS r
    ON r.step_id >> 40 = s.stream_no AND r.step_id BETWEEN s.stream_no << 40 AND s.stream_no << 40 | 1099511627775;

CREATE VIEW IF NOT EXISTS drops AS
SELECT s.run, s.worker, s.incarnation, s.stream,
       r.noted_by, r.first_seq, r.last_seq, r.kind, r.reason, r.records, r.t_ns,
       strftime('%Y-%m-%d %H:%M:%f', r.t_ns / 1e9, 'unixepoch') AS time
  FROM streams AS s
  JOIN drop_rows AS r ON r.stream_no = s.stream_no;
