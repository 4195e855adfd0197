"""Every control message, as a frozen tagged struct. Past `wire.py` nothing is a dict.

Batches of records are not here: they have a binary header of their own (`wire.py`), because routers and
proxies must forward them without decoding.
"""

from typing import Annotated, Any, Literal

import msgspec

from runlane.config.settings import QueuePolicy, Selection
from runlane.config.telemetry_mode import TelemetryMode

Seq = Annotated[int, msgspec.Meta(ge=0, le=(1 << 63) - 1)]
Name = Annotated[str, msgspec.Meta(min_length=1, max_length=64)]
MAX_RUN_TEXT = 200  # what a person may call a run: its id, the beginning of one, or its name
StreamId = Annotated[str, msgspec.Meta(pattern="^[0-9a-f]{32}$")]


class _Message(msgspec.Struct, frozen=True, kw_only=True, tag_field="type"):
    """Root of the control messages; the tag is the field `type` on the wire."""


class StepField(msgspec.Struct, frozen=True, array_like=True):
    """One column of a step row: name, NumPy type code as `<f8`, and count of items (0 = a scalar)."""

    name: Name
    code: Annotated[str, msgspec.Meta(pattern="^[<|][iufb][1248]$")]
    count: Annotated[int, msgspec.Meta(ge=0, le=1 << 24)] = 0  # a body holds no more bytes (`wire.MAX_BODY_BYTES`)


class StepSchema(msgspec.Struct, frozen=True):
    """Layout of the step rows that carry this `schema_id`: packed columns in this order, no padding.

    `env_count` 0 means one row is one environment's step; n > 0 means one row is a step of n environments
    and each per-environment column holds n values (or n times the values of one environment).
    """

    schema_id: Annotated[int, msgspec.Meta(ge=0, lt=1 << 16)]
    fields: Annotated[list[StepField], msgspec.Meta(min_length=1, max_length=32)]
    env_count: Annotated[int, msgspec.Meta(ge=0, le=1 << 20)] = 0


class StreamInfo(msgspec.Struct, frozen=True, kw_only=True):
    """Who writes a stream, and how its step rows are laid out so far.

    `forked_from` is the stream of the process this one was forked from. `is_resumed` says that this stream goes on
    where an earlier incarnation of its worker ended, at training step `resumed_step` if that is known.
    """

    stream: StreamId
    run: Name
    worker: Name
    host: Annotated[str, msgspec.Meta(max_length=255)]
    pid: Annotated[int, msgspec.Meta(ge=0, le=(1 << 31) - 1)]
    started_ns: Seq
    run_name: Annotated[str, msgspec.Meta(max_length=200)] = ""
    schemas: Annotated[list[StepSchema], msgspec.Meta(max_length=1 << 16)] = []
    forked_from: Annotated[str, msgspec.Meta(pattern="^([0-9a-f]{32})?$")] = ""
    is_resumed: bool = False
    resumed_step: Annotated[int, msgspec.Meta(ge=0, le=(1 << 63) - 1)] | None = None

    def schema(self, schema_id: int) -> StepSchema | None:
        """The layout of the step rows that carry this id, if it was announced."""
        return next((schema for schema in self.schemas if schema.schema_id == schema_id), None)

    def with_schemas_of(self, known: "StreamInfo | None") -> "StreamInfo":
        """This info, with the schemas of an earlier one where that has more: a stream's schemas are only ever added.

        Whoever speaks for a stream anew, as a proxy that begins at the last ack, may not have read of all of them yet,
        while rows that need them are under way already.
        """
        if known is None or len(known.schemas) <= len(self.schemas):
            return self
        return msgspec.structs.replace(self, schemas=known.schemas)


# ---- a source and its receiver: worker → proxy, proxy → router -------------------------------------------


class StreamHello(_Message, frozen=True, kw_only=True, tag="stream_hello"):
    """Source → receiver: this is my stream. Sent first, after a reconnect, and as a keep-alive.

    `oldest_seq` is the oldest record the source still holds (everything before it is committed); `sent_seq`
    the newest it has sent on this connection before this message. A worker tells its proxy where its `journal` lies.
    `high_seq` is the newest record there is, sent or not; 0 where the source does not tell.
    """

    info: StreamInfo
    oldest_seq: Annotated[int, msgspec.Meta(ge=1, le=(1 << 40) - 1)]
    sent_seq: Seq
    journal: Annotated[str, msgspec.Meta(max_length=4096)] = ""
    high_seq: Seq = 0


class StreamWelcome(_Message, frozen=True, kw_only=True, tag="stream_welcome"):
    """Receiver → source: I have everything before `expected_seq`; `sent_seq` is echoed from the hello."""

    stream: StreamId
    receiver: str
    expected_seq: Seq
    sent_seq: Seq


class StreamNack(_Message, frozen=True, kw_only=True, tag="stream_nack"):
    """Receiver → source: a hole; send again from `expected_seq`. With seq 0: say hello, I do not know you."""

    stream: StreamId
    expected_seq: Seq


class StreamAck(_Message, frozen=True, kw_only=True, tag="stream_ack"):
    """Receiver → source: everything up to `seq` is committed, without a hole."""

    stream: StreamId
    seq: Seq


class StreamRefused(_Message, frozen=True, kw_only=True, tag="stream_refused"):
    """Receiver → source: another living source writes this stream. Nothing of it will be taken from you."""

    stream: StreamId
    reason: str


class StreamBye(_Message, frozen=True, kw_only=True, tag="stream_bye"):
    """Source → receiver: nothing more comes from me, because all is acked or because I end. A hello opens it again."""

    stream: StreamId


class StreamMode(_Message, frozen=True, kw_only=True, tag="stream_mode"):
    """Proxy → worker: be in this mode. Worker → proxy, with each hello and after each switch: I am in this mode."""

    stream: StreamId
    mode: TelemetryMode


# ---- a subscriber and the router -------------------------------------------------------------------------


class SubscriberHello(_Message, frozen=True, kw_only=True, tag="subscriber_hello"):
    """Subscriber → router: who I am and what I want. `policy` None takes the one of the settings file.

    `received` counts, stream by stream, the records this instance was given by the routers before this one.
    """

    name: Name
    instance: Annotated[str, msgspec.Meta(min_length=1, max_length=64)]
    kinds: list[str]
    runs: Annotated[list[Name], msgspec.Meta(max_length=1_000)] = []
    workers: Annotated[list[Name], msgspec.Meta(max_length=1_000)] = []
    decimate: Annotated[int, msgspec.Meta(ge=1, le=1_000_000_000)] = 1
    policy: QueuePolicy | None = None
    window: Annotated[int, msgspec.Meta(ge=1, le=1024)] = 16
    pid: int = 0
    host: str = ""
    received: dict[StreamId, Seq] = {}

    @property
    def selection(self) -> Selection:
        """What of the bus it asks for."""
        return Selection(self.kinds, self.runs, self.workers, self.decimate)


class SubscriberWelcome(_Message, frozen=True, kw_only=True, tag="subscriber_welcome"):
    """Router → subscriber: connect here. `first_number` is the number before the first delivery.

    `watermarks` are the newest seq of each open stream that will not be delivered, because it was accepted before
    this subscriber joined. A stream that is not among them is delivered from its first record on.
    """

    name: Name
    router: str
    endpoint: str
    policy: QueuePolicy
    window: int
    first_number: Seq
    watermarks: dict[StreamId, Seq] = {}


class SubscriberRefused(_Message, frozen=True, kw_only=True, tag="subscriber_refused"):
    """Router → subscriber: no, for this reason. `is_final` False means: say hello again."""

    name: str
    reason: str
    is_final: bool = True


class SubscriberLease(_Message, frozen=True, kw_only=True, tag="subscriber_lease"):
    """Subscriber → router, and echoed back: I am alive. An unknown instance is refused, not final."""

    name: Name
    instance: str


class SubscriberBye(_Message, frozen=True, kw_only=True, tag="subscriber_bye"):
    """Subscriber → router: I leave; what is queued for me counts as dropped."""

    name: Name
    instance: str


class StreamOpened(_Message, frozen=True, kw_only=True, tag="stream_opened"):
    """Router → subscriber, before the first delivery of a stream and whenever its schemas grow.

    What this subscriber is sent of it begins after `after_seq`: what came before was accepted before it joined.
    """

    info: StreamInfo
    after_seq: Seq = 0


class StreamsAlive(_Message, frozen=True, kw_only=True, tag="streams_alive"):
    """Router → `block` subscriber, every second or so: somebody who could write these streams is there.

    Whoever keeps no account of who is alive passes over it.
    """

    streams: list[StreamId]


class SubscriberAccount(msgspec.Struct, frozen=True, array_like=True):
    """Records of one stream towards one subscriber, up to `last_seq`; what it asked for after `first_seq`.

    At any instant `published = delivered + queued + sum(dropped.values())`. `dropped` is by reason.
    """

    subscriber: Name
    run: Name
    stream: StreamId
    published: Seq
    delivered: Seq
    queued: Seq
    dropped: dict[str, Seq]
    first_seq: Seq
    last_seq: Seq

    @property
    def balance(self) -> int:
        """0, or the account does not add up."""
        return self.published - self.delivered - self.queued - sum(self.dropped.values())


class AccountsRequest(_Message, frozen=True, kw_only=True, tag="accounts_request"):
    """Anyone → router: the accounts of this subscriber, or with an empty name of all, please."""

    name: Annotated[str, msgspec.Meta(max_length=64)] = ""


class Accounts(_Message, frozen=True, kw_only=True, tag="accounts"):
    """Router → whoever asked; router → `block` subscriber, those that have changed; router → subscriber, its own
    before it says goodbye. Each is whole and takes the place of an earlier one. `is_last`: no more parts follow.
    """

    router: str
    t_ns: int
    accounts: list[SubscriberAccount]
    is_last: bool = True


class GraphMetrics(_Message, frozen=True, kw_only=True, tag="graph_metrics"):
    """Router → `block` subscriber: figures of the graph by source and name, as they are now."""

    t_ns: int
    values: dict[str, dict[str, float]]


class RunDelete(_Message, frozen=True, kw_only=True, tag="run_delete"):
    """Anyone → router → DB writer: delete this run, or with `only_ask` say what that would be. Asked again, it says
    how far that is. `run` is an id, the beginning of one, or a name. The router sets `asker`.
    """

    run: Annotated[str, msgspec.Meta(max_length=MAX_RUN_TEXT)]
    only_ask: bool = False
    asker: Annotated[str, msgspec.Meta(max_length=512)] = ""


class RunDeletion(_Message, frozen=True, kw_only=True, tag="run_deletion"):
    """DB writer → router → asker: how far it is; or, with a reason in `refused`, no; `is_final` False: ask again.

    `state` is `found`, which may be deleted, `removing` or `removed`. `steps` and `episodes` were stored, `videos` are
    there, `rows` were removed up to now because the run was deleted, by class.
    """

    asker: Annotated[str, msgspec.Meta(max_length=512)]
    refused: str = ""
    is_final: bool = True
    run: str = ""
    name: str = ""
    state: Literal["found", "removing", "removed"] = "found"
    steps: Seq = 0
    episodes: Seq = 0
    videos: Seq = 0
    rows: dict[str, Seq] = {}


class RouterBye(_Message, frozen=True, kw_only=True, tag="router_bye"):
    """Router → subscriber, in the order of deliveries: nothing more will come from this router."""

    router: str


# ---- an actor and the supervisor, a command line and the supervisor ---------------------------------------


class Heartbeat(_Message, frozen=True, kw_only=True, tag="heartbeat"):
    """Actor → supervisor: I live, and these are my figures."""

    name: Name
    pid: int
    state: str
    statistics: dict[str, Any] = {}


class WorkerStart(_Message, frozen=True, kw_only=True, tag="worker_start"):
    """Command line or worker → supervisor: start a proxy for this worker.

    `pid` is the asker's, on the supervisor's host: the proxy stays at least as long as that process.
    """

    worker: Name
    run: Name
    run_name: Annotated[str, msgspec.Meta(max_length=200)] = ""
    pid: Annotated[int, msgspec.Meta(ge=0, le=(1 << 31) - 1)] = 0


class WorkerStarted(_Message, frozen=True, kw_only=True, tag="worker_started"):
    """Supervisor → asker: the worker's proxy listens here. `worker` may have got a suffix to be unique."""

    worker: Name
    run: Name
    endpoint: str


class WorkerExited(_Message, frozen=True, kw_only=True, tag="worker_exited"):
    """Command line → supervisor → proxy: the worker process ended, so drain and end."""

    worker: Name
    run: Name
    exit_code: int


class WorkerNote(_Message, frozen=True, kw_only=True, tag="worker_note"):
    """Command line → supervisor → proxy: record this line about a worker. It comes back when it was sent on."""

    run: Name
    worker: Name
    level: Literal["info", "warning", "error"]
    text: Annotated[str, msgspec.Meta(max_length=4096)]


class SetTelemetryMode(_Message, frozen=True, kw_only=True, tag="set_telemetry_mode"):
    """Asker → supervisor → proxy: every stream of this worker shall be in this mode.

    `request` is the supervisor's, and comes back in the proxy's answer; an asker leaves it 0.
    """

    run: Name
    worker: Name
    mode: TelemetryMode
    request: Seq = 0


class TelemetryModeSet(_Message, frozen=True, kw_only=True, tag="telemetry_mode_set"):
    """Proxy → supervisor → asker: all of the worker's open streams, so many, have said that they are in this mode."""

    run: Name
    worker: Name
    mode: TelemetryMode
    streams: Annotated[int, msgspec.Meta(ge=1)]
    request: Seq = 0


class StopWorker(_Message, frozen=True, kw_only=True, tag="stop_worker"):
    """Asker → supervisor → proxy: signal the worker's processes, SIGINT or SIGKILL. `request` as elsewhere."""

    run: Name
    worker: Name
    is_kill: bool = False
    request: Seq = 0


class WorkerSignalled(_Message, frozen=True, kw_only=True, tag="worker_signalled"):
    """Proxy → supervisor → asker, or the supervisor's own word: these processes got this signal.

    Without `pids` there was no process just now, and the supervisor will not start it again.
    """

    run: Name
    worker: Name
    signal: Literal["SIGINT", "SIGKILL"]
    pids: list[int]
    request: Seq = 0


class StatusRequest(_Message, frozen=True, kw_only=True, tag="status_request"):
    """Anyone → supervisor: what is running?"""


class ChildStatus(msgspec.Struct, frozen=True, kw_only=True):
    """One child as the supervisor sees it."""

    name: str
    kind: str
    state: str
    pid: int
    restarts: int
    heartbeat_age_s: float | None
    exit_code: int | None
    statistics: dict[str, Any]


class Status(_Message, frozen=True, kw_only=True, tag="status"):
    """Supervisor → asker: the graph as it stands."""

    pid: int
    uptime_s: float
    data_dir: str
    run_dir: str
    state: str
    children: list[ChildStatus]


class StopRequest(_Message, frozen=True, kw_only=True, tag="stop_request"):
    """Command line → supervisor: begin the ordered stop."""


class Refused(_Message, frozen=True, kw_only=True, tag="refused"):
    """Supervisor → asker, proxy → supervisor: no, for this reason. `request` says to what, where a proxy answers."""

    reason: str
    request: Seq = 0


ControlMessage = (
    StreamHello
    | StreamWelcome
    | StreamNack
    | StreamAck
    | StreamRefused
    | StreamBye
    | StreamMode
    | SubscriberHello
    | SubscriberWelcome
    | SubscriberRefused
    | SubscriberLease
    | SubscriberBye
    | StreamOpened
    | StreamsAlive
    | AccountsRequest
    | Accounts
    | GraphMetrics
    | RunDelete
    | RunDeletion
    | RouterBye
    | Heartbeat
    | WorkerStart
    | WorkerStarted
    | WorkerExited
    | WorkerNote
    | SetTelemetryMode
    | TelemetryModeSet
    | StopWorker
    | WorkerSignalled
    | StatusRequest
    | Status
    | StopRequest
    | Refused
)

# msgspec works out a type when it is first converted, and two threads that do so at once crash the process (it reads
# a NULL; seen with 0.22.0). So it is done here, at the import: a training process must not die of its telemetry.
msgspec.msgpack.Decoder(ControlMessage)
