"""Every setting, frozen and typed, one class per subject. A bad value fails at construction.

Units are in the names: `_s` seconds, `_ms` milliseconds, `_bytes`, `_records`. `docs/reference/settings.md`
lists each; a test compares. Defaults live in `defaults.toml`, which is the text a user reads.
"""

import ipaddress
from fnmatch import fnmatchcase
from typing import Annotated, Literal

import msgspec

from runlane.config import names
from runlane.config.errors import SettingsError
from runlane.config.telemetry_mode import TelemetryMode

# One batch never holds more records, so a queue of this many always has room for one. Every process pays per batch,
# whatever is in it (router and proxy some 130 µs of CPU): 1,024 instead of 256 halves what a step costs them and the
# flusher, and raises the durable rate by a quarter; 2,048 gained nothing more.
MAX_BATCH_RECORDS = 1_024

Overflow = Literal["block", "drop_oldest", "drop_newest", "latest"]
Restart = Literal["permanent", "transient", "temporary"]
Positive = Annotated[int, msgspec.Meta(ge=1)]
Seconds = Annotated[float, msgspec.Meta(gt=0, le=86_400)]
Command = Annotated[list[str], msgspec.Meta(min_length=1)]


class QueuePolicy(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """QoS policy of one subscriber: how many records may wait for it, and what gives way beyond that.

    `block` loses nothing and slows ingress; `drop_oldest` and `drop_newest` lose the record they name;
    `latest` keeps only what is newest of each kind per `key`: a stream, or an environment of a stream, and so
    takes no `max_queue`. Lossy policies may also drop what has waited for longer than `max_age_ms`.
    """

    overflow: Overflow = "drop_oldest"
    max_queue: int | None = None
    key: Literal["stream", "env"] = "stream"
    max_age_ms: Annotated[float, msgspec.Meta(gt=0, le=86_400_000)] | None = None

    def __post_init__(self) -> None:
        """Refuse pairs that cannot work."""
        if self.key != "stream" and self.overflow != "latest":
            raise SettingsError(
                "key", self.key, f'is of no use to overflow "{self.overflow}"', 'remove it, or choose overflow "latest"'
            )
        if self.max_age_ms is not None and self.overflow == "block":
            raise SettingsError(
                "max_age_ms",
                self.max_age_ms,
                'would lose records of a subscriber with overflow "block", which loses none',
                'remove max_age_ms, or choose overflow "drop_oldest"',
            )
        if self.overflow == "latest":
            if self.max_queue is not None:
                raise SettingsError(
                    "max_queue",
                    self.max_queue,
                    'overflow "latest" keeps one batch per kind and key, so it has no queue to bound',
                    'remove max_queue, or choose overflow "drop_oldest"',
                )
        elif self.max_queue is not None and self.max_queue < MAX_BATCH_RECORDS:
            raise SettingsError(
                "max_queue",
                self.max_queue,
                f"is below {MAX_BATCH_RECORDS} records, the most one batch may hold, so a full batch never fits",
                f"choose {MAX_BATCH_RECORDS} or more",
            )

    @property
    def max_records(self) -> int:
        """Records that may wait; the default of a policy that names none."""
        return 16_384 if self.max_queue is None else self.max_queue


class SubscriberSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One subscriber of the RunBus. With a `command` the supervisor starts it as a process of its own."""

    overflow: Overflow = "drop_oldest"
    max_queue: int | None = None
    key: Literal["stream", "env"] = "stream"
    max_age_ms: Annotated[float, msgspec.Meta(gt=0, le=86_400_000)] | None = None
    window: Annotated[int, msgspec.Meta(ge=1, le=1024)] = 16
    kinds: list[str] = msgspec.field(default_factory=lambda: list(names.KINDS))
    runs: list[str] = []
    workers: list[str] = []
    decimate: Positive = 1
    command: Command | None = None
    restart: Restart = "permanent"

    def __post_init__(self) -> None:
        """Refuse unknown kinds and impossible policies."""
        check_kinds(self.kinds)
        check_decimate(self.decimate, self.policy)

    @property
    def policy(self) -> QueuePolicy:
        """The QoS policy these settings describe."""
        return QueuePolicy(self.overflow, self.max_queue, self.key, self.max_age_ms)

    @property
    def selection(self) -> "Selection":
        """What of the bus these settings ask for."""
        return Selection(self.kinds, self.runs, self.workers, self.decimate)


class Selection(msgspec.Struct, frozen=True):
    """What of the bus a subscriber asks for; the rest never leaves the router, and is no loss.

    `runs` and `workers` are names or shell patterns (`ppo-*`), a run by its id or its name; empty means all.
    `decimate` n sends every n-th step row of a stream, and every record of other kinds.
    """

    kinds: list[str] = msgspec.field(default_factory=lambda: list(names.KINDS))
    runs: list[str] = []
    workers: list[str] = []
    decimate: Positive = 1

    def takes(self, run: str, run_name: str, worker: str) -> bool:
        """Whether a stream of this run and this worker is asked for."""
        return _matches(self.runs, run, run_name) and _matches(self.workers, worker)


def _matches(patterns: list[str], *texts: str) -> bool:
    return not patterns or any(fnmatchcase(text, pattern) for pattern in patterns for text in texts)


def check_decimate(decimate: int, policy: QueuePolicy) -> None:
    """Raise `SettingsError` for a decimation that contradicts the policy."""
    if decimate > 1 and policy.overflow == "block":
        raise SettingsError(
            "decimate",
            decimate,
            'would leave out steps of a subscriber with overflow "block", which misses none',
            'remove decimate, or choose overflow "drop_oldest"',
        )


def check_kinds(kinds: list[str]) -> None:
    """Raise `SettingsError` unless every name is a record kind."""
    unknown = [kind for kind in kinds if kind not in names.KINDS]
    if unknown or not kinds:
        raise SettingsError("kinds", kinds, "names no known record kind", f"choose from {', '.join(names.KINDS)}")


class WorkerSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A worker that the supervisor starts with the graph, beside its own proxy."""

    command: Command
    restart: Restart = "temporary"
    run_name: str | None = None


class TransportSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Where processes meet: unix sockets in the run directory, or TCP ports counted from `port`."""

    kind: Literal["ipc", "tcp"] = "ipc"
    host: str = "127.0.0.1"
    port: Annotated[int, msgspec.Meta(ge=1, le=65_000)] = 5610
    run_dir: str | None = None
    keys_dir: str | None = None

    def __post_init__(self) -> None:
        """Refuse to listen to the network without keys."""
        if self.kind == "tcp" and not is_loopback(self.host) and self.keys_dir is None:
            raise SettingsError(
                "host",
                self.host,
                "a TCP bind beyond loopback without keys would let anyone write into the run",
                'use host = "127.0.0.1" with an ssh tunnel, or set keys_dir (make one with `runlane keys DIR`)',
            )


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach `host`."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


class RouterSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The RunBus router: how much may be under way to it, and how long a silent subscriber keeps its place."""

    ingress_hwm: Annotated[int, msgspec.Meta(ge=1, le=10_000)] = 32
    lease_s: Seconds = 3.0
    report_s: Seconds = 1.0
    metrics_s: Seconds = 10.0
    restart: Restart = "permanent"


class ProxySettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A worker's proxy: how many bytes of unacked batches it holds, and when a silent worker counts as stalled."""

    outbox_bytes: Annotated[int, msgspec.Meta(ge=1 << 18)] = 2 << 20
    drain_s: Seconds = 1.5
    stalled_s: Seconds = 30.0


class SessionSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What a training process does with its records: whether they are kept, when sent, and when the journal is full.

    `telemetry_mode` is what a worker begins with; it may be switched while it runs.
    """

    telemetry_mode: TelemetryMode = TelemetryMode.DUAL_PATH

    batch_records: Annotated[int, msgspec.Meta(ge=1, le=MAX_BATCH_RECORDS)] = 256
    batch_age_ms: Annotated[float, msgspec.Meta(gt=0, le=10_000)] = 20.0
    overflow: Literal["block", "drop_newest"] = "block"
    close_s: Seconds = 5.0


class JournalSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A worker's journal: its size on disk, and how often it is forced there. `sync_ms` 0 leaves that to the kernel."""

    segment_bytes: Annotated[int, msgspec.Meta(ge=1 << 16, le=1 << 30)] = 4 << 20
    quota_bytes: Annotated[int, msgspec.Meta(ge=1 << 18)] = 1 << 30
    min_free_bytes: Annotated[int, msgspec.Meta(ge=0)] = 64 << 20
    sync_ms: Annotated[float, msgspec.Meta(ge=0, le=60_000)] = 50.0

    def __post_init__(self) -> None:
        """A quota of less than four segments would be full before the first one is acked."""
        if self.quota_bytes < 4 * self.segment_bytes:
            raise SettingsError(
                "quota_bytes",
                self.quota_bytes,
                f"holds less than four segments (segment_bytes = {self.segment_bytes})",
                f"choose {4 * self.segment_bytes} or more, or smaller segments",
            )


class FastLaneSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What a worker shows to viewers on its host. Without a viewer's lease it renders nothing and copies nothing."""

    enabled: bool = True
    only: bool = False
    video_mode: Literal["single", "grid", "off"] = "single"
    slot: Annotated[int, msgspec.Meta(ge=0, le=65_535)] = 0
    grid_limit: Annotated[int, msgspec.Meta(ge=1, le=64)] = 4
    grid_pixels: Annotated[int, msgspec.Meta(ge=1 << 10, le=1 << 26)] = 1 << 20
    max_fps: Annotated[float, msgspec.Meta(gt=0, le=1000)] = 30.0
    slots: Annotated[int, msgspec.Meta(ge=1, le=64)] = 4
    return_window: Annotated[int, msgspec.Meta(ge=1, le=100_000)] = 100


class AttachSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What `runlane run` does to a script that nobody edited."""

    layer: Literal["outermost", "make"] = "outermost"
    observations: bool = False
    render: bool = True
    unhooked_s: Seconds = 10.0


class RecorderSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The recorder: video of episodes beside the database. While it is enabled it is a viewer like any other.

    `keep` says which of a stream's episodes stay: "all", "every" `keep_count`-th one, the "best" or the "worst"
    `keep_count` by their return, or the "last" `keep_count`.
    """

    enabled: bool = False
    keep: Literal["all", "every", "best", "worst", "last"] = "last"
    keep_count: Positive = 10
    max_bytes: Annotated[int, msgspec.Meta(ge=1 << 20)] = 1 << 30
    fps: Annotated[float, msgspec.Meta(gt=0, le=1000)] = 30.0


class DbWriterSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The DB writer: where the database lies and when a transaction is committed."""

    database: str = names.DATABASE_FILE
    commit_rows: Annotated[int, msgspec.Meta(ge=1, le=1_000_000)] = 5_000
    commit_ms: Annotated[float, msgspec.Meta(gt=0, le=10_000)] = 30.0
    synchronous: Literal["FULL", "NORMAL"] = "FULL"
    wal_limit_bytes: Annotated[int, msgspec.Meta(ge=1 << 20)] = 64 << 20


class RetentionSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What the database may hold of runs that have ended. Without a limit it keeps everything.

    `classes` are the record kinds that age and size may take out of a run, the one missed least first.
    """

    max_runs: Positive | None = None
    max_age_days: Annotated[float, msgspec.Meta(gt=0, le=36_500)] | None = None
    max_bytes: Annotated[int, msgspec.Meta(ge=1 << 20)] | None = None
    classes: list[str] = msgspec.field(default_factory=lambda: list(names.RETENTION_CLASSES))

    def __post_init__(self) -> None:
        """Refuse classes that must stay, and an age that would take nothing."""
        if set(self.classes) - set(names.RETENTION_CLASSES) or len(set(self.classes)) < len(self.classes):
            raise SettingsError(
                "classes",
                self.classes,
                "names what retention cannot take out of a run (episodes and drops stay), or one class twice",
                f"choose from {', '.join(names.RETENTION_CLASSES)}, in the order in which they may go",
            )
        if self.max_age_days is not None and not self.classes:
            raise SettingsError(
                "max_age_days",
                self.max_age_days,
                "would take nothing, because classes is empty",
                "name at least one class, or remove max_age_days",
            )

    @property
    def is_on(self) -> bool:
        """Whether there is any limit."""
        return any(limit is not None for limit in (self.max_runs, self.max_age_days, self.max_bytes))


class SupervisorSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Supervision: heartbeat, restart intensity (OTP's MaxR in MaxT), back-off and the ordered stop."""

    heartbeat_s: Seconds = 0.5
    heartbeat_timeout_s: Seconds = 10.0
    start_s: Seconds = 15.0
    max_restarts: Annotated[int, msgspec.Meta(ge=0)] = 10
    period_s: Seconds = 30.0
    backoff_s: Seconds = 0.1
    backoff_max_s: Seconds = 2.0
    recovers: bool = True
    worker_grace_s: Seconds = 1.0
    stop_s: Seconds = 1.9

    def __post_init__(self) -> None:
        """A timeout shorter than two beats would kill healthy children."""
        if self.heartbeat_timeout_s < 2 * self.heartbeat_s:
            raise SettingsError(
                "heartbeat_timeout_s",
                self.heartbeat_timeout_s,
                f"is under two heartbeats (heartbeat_s = {self.heartbeat_s})",
                f"choose {2 * self.heartbeat_s} or more",
            )
        if self.max_restarts and self._backoffs_s() >= self.period_s:
            raise SettingsError(
                "period_s",
                self.period_s,
                f"is over before {self.max_restarts} restarts with their back-off are ({self._backoffs_s():.1f} s), "
                "so a child that always fails would be restarted for ever",
                "choose a longer period_s, fewer max_restarts or a smaller backoff_max_s",
            )
        if self.worker_grace_s >= self.stop_s:
            raise SettingsError(
                "worker_grace_s",
                self.worker_grace_s,
                f"leaves no time for the rest of the stop (stop_s = {self.stop_s})",
                "choose a grace below stop_s",
            )

    def _backoffs_s(self) -> float:
        """How long `max_restarts` restarts in a row take, by their waits alone. The first one does not wait."""
        waits = (self.backoff_s * 2.0**number for number in range(min(self.max_restarts, 1000) - 1))
        return sum(min(wait, self.backoff_max_s) for wait in waits)


class Settings(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The whole program as data: every process, endpoint, QoS policy and restart rule."""

    data_dir: str = ".runlane"
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"
    transport: TransportSettings = TransportSettings()
    router: RouterSettings = RouterSettings()
    proxy: ProxySettings = ProxySettings()
    session: SessionSettings = SessionSettings()
    journal: JournalSettings = JournalSettings()
    fast_lane: FastLaneSettings = FastLaneSettings()
    attach: AttachSettings = AttachSettings()
    recorder: RecorderSettings = RecorderSettings()
    db_writer: DbWriterSettings = DbWriterSettings()
    retention: RetentionSettings = RetentionSettings()
    supervisor: SupervisorSettings = SupervisorSettings()
    subscribers: dict[str, SubscriberSettings] = {}
    workers: dict[str, WorkerSettings] = {}

    def __post_init__(self) -> None:
        """Names become parts of socket paths and SQL values, so they are kept plain."""
        for table in ("subscribers", "workers"):
            for name in getattr(self, table):
                check_name(name, f"{table}.{name}")
        for name in {*self.subscribers} & {*self.workers, names.ROUTER, names.SUPERVISOR, names.RECOVERY}:
            raise SettingsError(f"subscribers.{name}", None, "is also the name of another process", "rename one")
        mode = self.session.telemetry_mode
        if mode is TelemetryMode.FAST_LANE_ONLY and not self.fast_lane.enabled:
            raise SettingsError(
                "session.telemetry_mode",
                mode.value,
                "would neither show nor keep anything, because fast_lane.enabled = false",
                'set fast_lane.enabled = true, or choose telemetry_mode = "durable_only"',
            )
        if mode is TelemetryMode.DURABLE_ONLY and self.fast_lane.only:
            raise SettingsError(
                "session.telemetry_mode",
                mode.value,
                "contradicts fast_lane.only = true, which records nothing at all",
                "remove fast_lane.only (FASTLANE_ONLY), or telemetry_mode",
            )


def check_name(name: str, key: str) -> None:
    """Raise `SettingsError` unless `name` is 1 to 32 letters, digits, `_`, `-` or `.`."""
    plain = name.replace("_", "").replace("-", "").replace(".", "")
    if not (1 <= len(name) <= 32 and plain.isascii() and plain.isalnum()):
        raise SettingsError(
            key,
            name,
            "is no plain name",
            "use 1 to 32 of the characters a-z A-Z 0-9 _ - . with a letter or digit",
        )
