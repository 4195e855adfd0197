-- The database of runlane, schema version 4. One process writes it (the DB writer); everybody else reads.
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
  state      TEXT NOT NULL CHECK (state IN ('running', 'stalled', 'finished', 'failed', 'killed', 'stopped')),
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
  forked_from TEXT,                             -- stream of the process this one was forked from; NULL for none
  resumed_from TEXT,                            -- stream of the incarnation this one goes on from; NULL for none
  resumed_step INTEGER,                         -- training step it goes on from, where the source knew it
  state       TEXT,                             -- as in runs, told by run records; NULL before the first
  ended_ns    INTEGER,
  seen_ns     INTEGER,                          -- the head host's wall clock when it was last heard of
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
  JOIN json_each(v.flags) AS e ON NOT e.value & 16  -- 16: the row is not about this environment
  LEFT JOIN info_rows AS i ON i.step_id = v.id AND i.env_index = e.key;

CREATE VIEW IF NOT EXISTS steps AS
SELECT * FROM step_records WHERE NOT is_reset;

-- N + 1 observations of an episode of N steps. A reset's row has the number of the episode that begins, and the
-- observation that the one before it ended with.
CREATE VIEW IF NOT EXISTS observations AS
SELECT r.run, r.worker, r.incarnation, r.stream, r.seq, r.env_index,
       r.episode - r.is_reset AS episode,
       iif(r.is_reset,
           1 + (SELECT e.length FROM streams AS s JOIN episode_rows AS e
                   ON e.id BETWEEN s.stream_no << 40 AND (s.stream_no << 40) + r.seq
                 WHERE s.stream = r.stream AND e.env_index = r.env_index AND e.episode = r.episode - 1
                 ORDER BY e.id DESC LIMIT 1),
           r.step) AS step,
       r.t_ns, r.time, r.observation, r.is_reset AS is_final
  FROM step_records AS r
 WHERE r.observation IS NOT NULL AND r.episode > r.is_reset;

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

-- A run's state as it is now. `lost`: it has not ended, and for 4 seconds nobody who could write it was heard of.
CREATE VIEW IF NOT EXISTS run_status AS
SELECT r.run, r.name,
       iif(r.state IN ('running', 'stalled') AND strftime('%s', 'now') * 1000000000 - 4000000000 >
             coalesce(max(s.seen_ns) FILTER (WHERE coalesce(s.state, 'running') IN ('running', 'stalled')), 0),
           'lost', r.state) AS state,
       r.started_ns, r.ended_ns, max(s.seen_ns) AS seen_ns
  FROM runs AS r LEFT JOIN streams AS s USING (run)
 GROUP BY r.run;

-- Episodes counted together, so that a curve of a million of them is read in a few thousand rows. A bucket of level k
-- holds 2^k episodes of one stream, in the order they were stored; levels are 4, 8, 12 and so on. Level 4 is there
-- from its first episode on, a higher level once its bucket is full. Episodes and buckets are committed together.
CREATE TABLE IF NOT EXISTS episode_rollups (
  stream_no  INTEGER NOT NULL,
  level      INTEGER NOT NULL,
  bucket     INTEGER NOT NULL,                  -- 0 holds the stream's first 2^level episodes
  first_id   INTEGER NOT NULL,                  -- least id in episode_rows
  last_id    INTEGER NOT NULL,                  -- greatest
  episodes   INTEGER NOT NULL,
  returns    INTEGER NOT NULL,                  -- episodes whose return is no NaN
  min_return REAL,                              -- of those; NULL without any
  sum_return REAL,                              -- of those; NULL where infinities of both signs met
  max_return REAL,
  sum_length INTEGER NOT NULL,
  first_t_ns INTEGER NOT NULL,
  last_t_ns  INTEGER NOT NULL,
  PRIMARY KEY (stream_no, level, bucket)
) STRICT, WITHOUT ROWID;

-- Accounts of subscribers, as the router drew them up last; cumulative. No references: one may come before its stream.
CREATE TABLE IF NOT EXISTS account_rows (
  subscriber TEXT NOT NULL,
  stream     TEXT NOT NULL,                     -- 32 hexadecimal digits
  run        TEXT NOT NULL,
  published  INTEGER NOT NULL,
  delivered  INTEGER NOT NULL,
  queued     INTEGER NOT NULL,
  first_seq  INTEGER NOT NULL,                  -- the account begins after this seq
  last_seq   INTEGER NOT NULL,                  -- and reaches up to this one
  updated_ns INTEGER NOT NULL,                  -- wall clock of the router
  PRIMARY KEY (subscriber, stream)
) STRICT, WITHOUT ROWID;

CREATE TABLE IF NOT EXISTS account_drop_rows (
  subscriber TEXT NOT NULL,
  stream     TEXT NOT NULL,
  reason     TEXT NOT NULL,
  records    INTEGER NOT NULL,
  PRIMARY KEY (subscriber, stream, reason)
) STRICT, WITHOUT ROWID;

-- `balance` is 0 when published = delivered + dropped + queued. No CHECK: a row that does not add up must be seen.
CREATE VIEW IF NOT EXISTS accounts AS
SELECT run, name, worker, incarnation, stream, subscriber, published, delivered, dropped, queued,
       published - delivered - dropped - queued AS balance,
       first_seq, last_seq, updated_ns,
       strftime('%Y-%m-%d %H:%M:%f', updated_ns / 1e9, 'unixepoch') AS time
  FROM (SELECT a.*, r.name, s.worker, s.incarnation,
               (SELECT coalesce(sum(d.records), 0) FROM account_drop_rows AS d
                 WHERE d.subscriber = a.subscriber AND d.stream = a.stream) AS dropped
          FROM account_rows AS a
          LEFT JOIN streams AS s ON s.stream = a.stream
          LEFT JOIN runs AS r ON r.run = a.run);

CREATE VIEW IF NOT EXISTS account_drops AS
SELECT a.run, s.worker, s.incarnation, a.stream, a.subscriber, d.reason, d.records, a.updated_ns,
       strftime('%Y-%m-%d %H:%M:%f', a.updated_ns / 1e9, 'unixepoch') AS time
  FROM account_rows AS a
  JOIN account_drop_rows AS d ON d.subscriber = a.subscriber AND d.stream = a.stream
  LEFT JOIN streams AS s ON s.stream = a.stream;

-- Figures of the graph over time. The oldest go: those of more than 7 days, or beyond 500,000 rows.
CREATE TABLE IF NOT EXISTS graph_metric_rows (
  t_ns   INTEGER NOT NULL,
  source TEXT NOT NULL,
  name   TEXT NOT NULL,
  value  REAL,
  PRIMARY KEY (t_ns, source, name)
) STRICT, WITHOUT ROWID;

CREATE VIEW IF NOT EXISTS graph_metrics AS
SELECT source, name, value, t_ns, strftime('%Y-%m-%d %H:%M:%f', t_ns / 1e9, 'unixepoch') AS time
  FROM graph_metric_rows;

-- What retention removed, or a person ('deleted'), or is about to be. It is also a watermark: a record of the class up to last_seq that comes again is refused.
CREATE TABLE IF NOT EXISTS retention_rows (
  stream_no INTEGER NOT NULL,
  class     TEXT NOT NULL CHECK (class IN ('step', 'info', 'log', 'metric', 'episode')),
  reason    TEXT NOT NULL CHECK (reason IN ('max_runs', 'max_age_days', 'max_bytes', 'deleted')),
  last_seq  INTEGER NOT NULL,                   -- of 'deleted' the greatest there is: nothing comes back
  rows      INTEGER NOT NULL,                   -- removed so far
  t_ns      INTEGER NOT NULL,                   -- wall clock of the last removal
  is_done   INTEGER NOT NULL,                   -- 0 while rows up to last_seq may still be there
  PRIMARY KEY (stream_no, class, reason)
) STRICT, WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS retention_rows_begun ON retention_rows (stream_no) WHERE NOT is_done;

CREATE VIEW IF NOT EXISTS retention AS
SELECT s.run, s.worker, s.incarnation, s.stream,
       r.class, r.reason, r.last_seq, r.rows, r.t_ns,
       strftime('%Y-%m-%d %H:%M:%f', r.t_ns / 1e9, 'unixepoch') AS time
  FROM streams AS s
  JOIN retention_rows AS r ON r.stream_no = s.stream_no
 WHERE r.rows > 0;

-- Runs of which something may be removed. A failed run may have workers that go on: it has ended when none of its streams is
-- alive. A proxy's stream is a place for its reports, and may end without one about itself.
CREATE VIEW IF NOT EXISTS ended_runs AS
SELECT r.run, r.ended_ns
  FROM runs AS r
 WHERE r.state IN ('finished', 'failed', 'killed', 'stopped') AND r.ended_ns IS NOT NULL
   AND NOT EXISTS (SELECT 1 FROM streams AS s
                    WHERE s.run = r.run
                      AND (s.state IN ('running', 'stalled') OR (s.state IS NULL AND s.worker NOT GLOB 'proxy-*')));

-- Episodes go last, and only with their whole run. A stream that came, or went on, after that brings its run back.
CREATE VIEW IF NOT EXISTS removed_runs AS
SELECT s.run
  FROM streams AS s
  LEFT JOIN (SELECT stream_no, max(last_seq) AS last_seq
               FROM retention_rows WHERE class = 'episode' AND is_done GROUP BY stream_no) AS r
    ON r.stream_no = s.stream_no AND r.last_seq >= s.last_seq
 GROUP BY s.run
HAVING count(*) = count(r.stream_no);
