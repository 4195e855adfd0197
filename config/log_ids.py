"""The one registry of log ids. A line in any log starts with one of them, so tools can filter.

`docs/reference/log-ids.md` repeats this table; a test compares.
"""

import logging
from typing import NamedTuple


class LogId(NamedTuple):
    """A fixed name, the level it is logged at, and what it means."""

    name: str
    level: int
    meaning: str


def _debug(name: str, meaning: str) -> LogId:
    return LogId(name, logging.DEBUG, meaning)


def _info(name: str, meaning: str) -> LogId:
    return LogId(name, logging.INFO, meaning)


def _warning(name: str, meaning: str) -> LogId:
    return LogId(name, logging.WARNING, meaning)


def _error(name: str, meaning: str) -> LogId:
    return LogId(name, logging.ERROR, meaning)


ACTOR_STARTED = _info("ACTOR_STARTED", "an actor's sockets are bound and it does its work")
ACTOR_STOPPING = _info("ACTOR_STOPPING", "an actor was asked to stop and drains; `reason` says by whom")
ACTOR_STOPPED = _info("ACTOR_STOPPED", "an actor closed its sockets and ends")
ACTOR_FAILED = _error("ACTOR_FAILED", "an actor ends on an error it cannot work past")
ACTOR_ORPHANED = _warning("ACTOR_ORPHANED", "the lifeline closed: the supervisor is gone, so the actor drains and ends")

WIRE_REJECTED = _warning(
    "WIRE_REJECTED", "bytes that are no message of ours were counted and dropped; `reason` says why"
)

SUPERVISOR_STARTED = _info("SUPERVISOR_STARTED", "the actor graph is up")
SUPERVISOR_CHILD_STARTED = _info("SUPERVISOR_CHILD_STARTED", "a child process was started")
SUPERVISOR_CHILD_EXITED = _info("SUPERVISOR_CHILD_EXITED", "a child process ended; `code` is its exit code")
SUPERVISOR_CHILD_RESTARTED = _warning("SUPERVISOR_CHILD_RESTARTED", "a child process ended and is started again")
SUPERVISOR_CHILD_SILENT = _error(
    "SUPERVISOR_CHILD_SILENT", "a child sent no heartbeat in time and is killed, to be started again"
)
SUPERVISOR_CHILD_KILLED = _warning("SUPERVISOR_CHILD_KILLED", "a child did not end in time after a stop and was killed")
SUPERVISOR_WORKER_SIGNALLED = _info(
    "SUPERVISOR_WORKER_SIGNALLED", "somebody asked to stop or kill a worker of the supervisor; it is not started again"
)
SUPERVISOR_GAVE_UP = _error("SUPERVISOR_GAVE_UP", "a child restarted more often than its intensity allows; all stop")
SUPERVISOR_STOPPING = _info("SUPERVISOR_STOPPING", "the ordered stop begins")
SUPERVISOR_STOPPED = _info("SUPERVISOR_STOPPED", "every child is gone")
SUPERVISOR_SWEPT = _info("SUPERVISOR_SWEPT", "something a dead process had left behind was removed")

RUNBUS_SUBSCRIBER_JOINED = _info("RUNBUS_SUBSCRIBER_JOINED", "a subscriber said hello and has its own queue")
RUNBUS_SUBSCRIBER_LIVE = _info("RUNBUS_SUBSCRIBER_LIVE", "a subscriber's socket is connected; deliveries begin")
RUNBUS_SUBSCRIBER_LEFT = _info("RUNBUS_SUBSCRIBER_LEFT", "a subscriber said goodbye, died or let its lease end")
RUNBUS_SUBSCRIBER_REFUSED = _warning("RUNBUS_SUBSCRIBER_REFUSED", "a hello was refused; `reason` says why")
RUNBUS_OVERFLOW = _warning("RUNBUS_OVERFLOW", "a QoS policy began to drop records of a subscriber's queue")
RUNBUS_QUEUE_DEPTH = _warning("RUNBUS_QUEUE_DEPTH", "a lossy subscriber's queue is four fifths full; it will soon drop")
RUNBUS_SUBSCRIBER_STALLED = _warning(
    "RUNBUS_SUBSCRIBER_STALLED", "a subscriber has taken nothing for longer than its lease; others do not wait for it"
)
RUNBUS_RESTORED = _info(
    "RUNBUS_RESTORED", "a new router took up the accounts of one that died; `dropped` is what its lossy queues held"
)
RUNBUS_RESUMED = _info(
    "RUNBUS_RESUMED", "a subscriber told a new router what it was given by the one before; that counts as delivered"
)
RUNBUS_NO_MEMORY = _error(
    "RUNBUS_NO_MEMORY", "accounts cannot be kept in the run directory: they would not survive a kill of the router"
)
RUNBUS_BACKPRESSURE = _debug("RUNBUS_BACKPRESSURE", "a full block queue stopped ingress, or let it go on")
RUNBUS_STREAM_OPENED = _info("RUNBUS_STREAM_OPENED", "a proxy announced a stream")
RUNBUS_STREAM_REFUSED = _error(
    "RUNBUS_STREAM_REFUSED", "a second living source said hello for a stream; nothing is taken from it"
)
RUNBUS_STREAM_CLOSED = _info("RUNBUS_STREAM_CLOSED", "a stream's proxy said goodbye after its last ack")
RUNBUS_GAP = _warning("RUNBUS_GAP", "a batch came before the one expected; the proxy is asked to resend")
RUNBUS_RESENT = _info("RUNBUS_RESENT", "unacked batches were queued again for a block subscriber that came back")

FASTLANE_OPENED = _info("FASTLANE_OPENED", "a worker made a ring: viewers on its host may ask for frames")
FASTLANE_CLOSED = _info("FASTLANE_CLOSED", "a worker removed its ring; `frames` were published")
FASTLANE_WATCHED = _info("FASTLANE_WATCHED", "a viewer's lease lives: the worker renders, `rate_hz` frames a second")
FASTLANE_UNWATCHED = _info("FASTLANE_UNWATCHED", "no viewer's lease lives any more: nothing is rendered")
FASTLANE_WRITER_PUBLISH = _info(
    "FASTLANE_WRITER_PUBLISH", "figures of a watched ring, every ten seconds: frames, bytes, rate, time to render"
)
FASTLANE_WRITER_ERROR = _warning(
    "FASTLANE_WRITER_ERROR", "frames cannot be shown; `error` says why. Training and recording go on"
)
FASTLANE_SHORT_OF_MEMORY = _warning(
    "FASTLANE_SHORT_OF_MEMORY",
    "shared memory has no room for a whole ring: it has fewer `slots`, or lies in the run directory; `tried` says why",
)
FASTLANE_QUEUE_DEPTH = _warning(
    "FASTLANE_QUEUE_DEPTH", "the slowest viewer is `depth` frames behind, more than a second of them"
)
FASTLANE_CONNECTED = _info("FASTLANE_CONNECTED", "a viewer is attached to a ring")
FASTLANE_DISCONNECTED = _info("FASTLANE_DISCONNECTED", "a viewer let go of a ring whose worker has ended or died")
FASTLANE_READER_LAG = _warning(
    "FASTLANE_READER_LAG", "a viewer saw less than half of the frames of ten seconds; `age_ms` is that of the last"
)
FASTLANE_SWEPT = _info("FASTLANE_SWEPT", "a ring that a dead worker had left was removed")
FASTLANE_RECORDED = _info("FASTLANE_RECORDED", "the recorder finished the video of an episode")
FASTLANE_VIDEO_REMOVED = _info("FASTLANE_VIDEO_REMOVED", "the recorder removed a video, by its keep rule or its budget")
FASTLANE_VIDEO_FAILED = _warning(
    "FASTLANE_VIDEO_FAILED", "a running video was given up, as on a full disk; that worker is recorded again in a while"
)

PROXY_STREAM_OPENED = _info("PROXY_STREAM_OPENED", "a worker announced a stream to its proxy")
PROXY_STREAM_CLOSED = _info("PROXY_STREAM_CLOSED", "a worker said goodbye and all its records are acked")
PROXY_REWOUND = _info("PROXY_REWOUND", "unacked batches are sent again, after a router restart or a gap")
PROXY_UNDRAINED = _warning(
    "PROXY_UNDRAINED", "the proxy ends before all is acked; `records` of them stay in the journals for its successor"
)
PROXY_WORKER_GONE = _info("PROXY_WORKER_GONE", "a stream's worker has died; what is left in its journal is stored now")
PROXY_WORKER_SIGNALLED = _info(
    "PROXY_WORKER_SIGNALLED", "somebody asked to stop or kill a worker; `pids` got the `signal`"
)
PROXY_WORKER_STALLED = _warning(
    "PROXY_WORKER_STALLED", "a worker lives and makes no record, for `seconds`; or makes records again"
)
PROXY_STREAM_REFUSED = _error("PROXY_STREAM_REFUSED", "the router has another living source of this stream")

JOURNAL_ADOPTED = _info("JOURNAL_ADOPTED", "a journal that nobody drained was found and is drained now")
JOURNAL_DRAINED = _info("JOURNAL_DRAINED", "all of a journal is committed and its files are removed")
JOURNAL_TORN = _info("JOURNAL_TORN", "the last record was cut short by a kill; its call had not returned")
JOURNAL_DAMAGED = _error(
    "JOURNAL_DAMAGED", "a journal cannot be read from some record on; everything before it is stored, the file is kept"
)

DURABLE_OPENED = _info("DURABLE_OPENED", "the DB writer opened the database")
DURABLE_COMMITTED = _debug("DURABLE_COMMITTED", "a transaction is committed and its batches are acked")
DURABLE_GAP = _error("DURABLE_GAP", "a hole before a batch is stored as a `drops` row")
DURABLE_REJECTED = _error("DURABLE_REJECTED", "a batch could not be decoded; its records are stored as a `drops` row")
DURABLE_PRUNED = _info(
    "DURABLE_PRUNED", "a class of records was removed from a run, by retention or by a person; see the view `retention`"
)
DURABLE_PRUNE_FAILED = _warning(
    "DURABLE_PRUNE_FAILED", "rows, or a video of a deleted run, cannot be removed now; rows are tried again soon"
)
DURABLE_OVER_BUDGET = _warning(
    "DURABLE_OVER_BUDGET", "the database is above `max_bytes` and holds nothing more that may be removed"
)
DURABLE_WAL_PINNED = _warning(
    "DURABLE_WAL_PINNED",
    "readers keep the write-ahead log from being emptied; `pids` says who, `wal_bytes` how large it is",
)
DURABLE_RECOVERED = _info("DURABLE_RECOVERED", "a transaction that had failed is committed; `attempts` says how often")
DURABLE_RETRY = _error("DURABLE_RETRY", "a transaction failed and is tried again; nothing is acked meanwhile")

WORKER_ATTACHED = _info("WORKER_ATTACHED", "a session is connected to its proxy")
WORKER_DETACHED = _warning("WORKER_DETACHED", "no graph and no proxy was found: this process records nothing")
WORKER_UNRECORDED = _info("WORKER_UNRECORDED", "`fast_lane.only` is set: this process shows frames and records nothing")
WORKER_MODE = _info("WORKER_MODE", "a worker's telemetry mode was switched; the switch is in its stream, too")
WORKER_TWICE = _warning(
    "WORKER_TWICE", "a script records steps by itself and its environments are hooked, so steps may be stored twice"
)
WORKER_FAULT = _warning("WORKER_FAULT", "telemetry failed inside a worker; training goes on, `count` says how often")
WORKER_METRIC_LEFT_OUT = _warning(
    "WORKER_METRIC_LEFT_OUT", "a logged value is no number in main memory; it is not recorded. Log a number instead"
)
WORKER_BLOCKED = _warning("WORKER_BLOCKED", "step() waits because the journal is at its quota")
WORKER_DROPPED = _error(
    "WORKER_DROPPED", "the journal or its disk is full and records are dropped, each counted in a `drop` record"
)
WORKER_UNDRAINED = _warning(
    "WORKER_UNDRAINED", "close() reached its deadline; `records` stay in the journal until they are stored from there"
)

JSONL_OPENED = _info("JSONL_OPENED", "a bridge reads what a program writes; `offset` says where it begins")
JSONL_NOT_TAKEN = _warning(
    "JSONL_NOT_TAKEN", "a line was meant as a record and could not be taken; `sort` says why. Quoted once for each sort"
)
JSONL_TRUNCATED = _warning(
    "JSONL_TRUNCATED", "the program cut its own output short; the bridge begins again at `offset`"
)
JSONL_UNSURE = _error(
    "JSONL_UNSURE", "how far a killed bridge came cannot be read from its journal; lines may be stored twice"
)
JSONL_ABANDONED = _warning(
    "JSONL_ABANDONED", "the journal is full and nobody is there to empty it; the bridge ends, its spool keeps the rest"
)
JSONL_KEPT = _info("JSONL_KEPT", "space of a spool cannot be given back on this file system; it goes with its run")
JSONL_CLOSED = _info("JSONL_CLOSED", "all lines of a program are recorded and its spool is removed")

REGISTRY: dict[str, LogId] = {value.name: value for value in list(globals().values()) if isinstance(value, LogId)}
