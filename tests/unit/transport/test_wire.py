"""Wire: what is encoded comes back equal; what is not ours is refused by a short reason, and by nothing else."""

import contextlib
import struct
from collections.abc import Callable, Generator, Sequence

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from runlane.config.errors import WireError
from runlane.config.settings import MAX_BATCH_RECORDS, QueuePolicy
from runlane.config.telemetry_mode import TelemetryMode
from runlane.transport.messages import (
    Accounts,
    AccountsRequest,
    ChildStatus,
    ControlMessage,
    GraphMetrics,
    Heartbeat,
    Refused,
    RouterBye,
    RunDelete,
    RunDeletion,
    SetTelemetryMode,
    Status,
    StatusRequest,
    StepField,
    StepSchema,
    StopRequest,
    StopWorker,
    StreamAck,
    StreamBye,
    StreamHello,
    StreamInfo,
    StreamMode,
    StreamNack,
    StreamOpened,
    StreamRefused,
    StreamsAlive,
    StreamWelcome,
    SubscriberAccount,
    SubscriberBye,
    SubscriberHello,
    SubscriberLease,
    SubscriberRefused,
    SubscriberWelcome,
    TelemetryModeSet,
    WorkerExited,
    WorkerNote,
    WorkerSignalled,
    WorkerStart,
    WorkerStarted,
)
from runlane.transport.testing import make_batch, make_info, seqs_of
from runlane.transport.wire import (
    KIND_NUMBER,
    MAX_CONTROL_BYTES,
    VERSION,
    Section,
    array_header,
    check_bodies,
    decode_control,
    decode_delivery,
    decode_echo,
    decode_header,
    decode_packed,
    encode_control,
    encode_delivery_prefix,
    encode_echo,
    encode_header,
    encode_packed,
    is_control,
    pack,
    unpack,
)

STREAM = "0123456789abcdef" * 2
KEY = bytes.fromhex(STREAM)
INFO = StreamInfo(
    stream=STREAM,
    run="r",
    worker="w",
    host="h",
    pid=7,
    started_ns=1,
    run_name="ünï",
    schemas=[StepSchema(schema_id=3, fields=[StepField("seq", "<u8"), StepField("action", "<f4", 6)], env_count=2)],
)
FORKED = msgspec.structs.replace(INFO, forked_from=STREAM[::-1], is_resumed=True, resumed_step=1_000)
CHILD = ChildStatus(
    name="c",
    kind="actor",
    state="running",
    pid=1,
    restarts=0,
    heartbeat_age_s=None,
    exit_code=None,
    statistics={"depth": 3, "nested": {"a": [1.5, None, "x"]}},
)
MESSAGES: list[ControlMessage] = [
    StreamHello(info=INFO, oldest_seq=1, sent_seq=0),
    StreamHello(info=FORKED, oldest_seq=1, sent_seq=0, journal="/data/journals/ünï"),
    StreamWelcome(stream=STREAM, receiver="r", expected_seq=1, sent_seq=(1 << 63) - 1),
    StreamNack(stream=STREAM, expected_seq=0),
    StreamAck(stream=STREAM, seq=5),
    StreamRefused(stream=STREAM, reason="host h pid 7 writes it already"),
    StreamBye(stream=STREAM),
    SubscriberHello(name="gui", instance="i", kinds=["step"], policy=QueuePolicy("latest"), window=4),
    SubscriberHello(name="a", instance="i", kinds=["step"], runs=["ppo-*"], decimate=9, received={STREAM: 5}),
    SubscriberWelcome(
        name="gui",
        router="r",
        endpoint="ipc://x",
        policy=QueuePolicy("block", MAX_BATCH_RECORDS),
        window=1,
        first_number=9,
    ),
    SubscriberRefused(name="gui", reason="no", is_final=False),
    SubscriberLease(name="gui", instance="i"),
    SubscriberBye(name="gui", instance="i"),
    StreamOpened(info=INFO, after_seq=7),
    AccountsRequest(name="gui"),
    Accounts(
        router="r",
        t_ns=1,
        accounts=[SubscriberAccount("gui", "run", STREAM, 9, 4, 2, {"drop_oldest": 2, "stale": 1}, 3, 12)],
        is_last=False,
    ),
    RunDelete(run="ppo", only_ask=True, asker="00ff"),
    RunDeletion(asker="00ff", run="R", name="ppo", state="removed", steps=9, episodes=2, videos=1, rows={"step": 9}),
    GraphMetrics(t_ns=1, values={"router": {"streams": 2, "records_per_s": 1.5}}),
    StreamsAlive(streams=["0" * 32]),
    RouterBye(router="r"),
    Heartbeat(name="n", pid=1, state="running", statistics={"a": 1}),
    WorkerStart(worker="w", run="r"),
    WorkerStarted(worker="w", run="r", endpoint="ipc://x"),
    WorkerExited(worker="w", run="r", exit_code=-9),
    WorkerNote(worker="w", run="r", level="warning", text="line"),
    StreamMode(stream=STREAM, mode=TelemetryMode.DURABLE_ONLY),
    SetTelemetryMode(run="r", worker="w", mode=TelemetryMode.FAST_LANE_ONLY, request=7),
    TelemetryModeSet(run="r", worker="w", mode=TelemetryMode.DUAL_PATH, streams=2, request=7),
    StopWorker(run="r", worker="w", is_kill=True),
    WorkerSignalled(run="r", worker="w", signal="SIGKILL", pids=[5, 6], request=8),
    StatusRequest(),
    Status(pid=1, uptime_s=0.5, data_dir="d", run_dir="r", state="up", children=[CHILD]),
    StopRequest(),
    Refused(reason="no"),
]


@contextlib.contextmanager
def _refused(reason: str) -> Generator[None]:
    with pytest.raises(WireError) as caught:
        yield
    assert caught.value.reason == reason


def _header(count: int = 3, first_seq: int = 1, sections: tuple[Section, ...] = (Section(1, 0, 3, 24),)) -> bytes:
    return encode_header(KEY, first_seq, count, 99, sections)


# ---- control ---------------------------------------------------------------------------------------------


def test_every_control_message_is_in_the_list_below() -> None:
    """A new message gets its round trip here."""
    assert {type(message) for message in MESSAGES} == set(ControlMessage.__args__)


@pytest.mark.parametrize("message", MESSAGES, ids=lambda message: type(message).__name__)
def test_a_control_message_comes_back_equal(message: ControlMessage) -> None:
    """Encode, decode: the same struct, from bytes and from a view of them."""
    frame = encode_control(message)
    assert is_control(frame)
    assert decode_control(frame) == message
    assert decode_control(memoryview(frame)) == message


def test_a_text_from_outside_never_stops_the_sender() -> None:
    """A name with a lone surrogate, as Python makes of odd bytes in an environment, is sent escaped."""
    message = decode_control(encode_control(WorkerStart(worker="w", run="r", run_name="bad\udcff")))
    assert isinstance(message, WorkerStart)
    assert message.run_name == r"bad\udcff"


@pytest.mark.parametrize(
    ("frame", "reason"),
    [
        (b"", "short"),
        (b"RL\x01", "short"),
        (b"XX\x01C\x80", "magic"),
        (b"RL" + bytes([VERSION + 1]) + b"C\x80", "version"),
        (b"RL\x00C\x80", "version"),
        (encode_echo(1), "type"),
        (b"RL\x01Z", "type"),
        (b"RL\x01C", "msgpack"),
        (b"RL\x01C\xc1", "msgpack"),
        (b"RL\x01C\x80\x80", "msgpack"),
        (b"RL\x01C\xdf\xff\xff\xff\xff", "msgpack"),
        (b"RL\x01C" + b"\x91" * 5000, "msgpack"),
        (b"RL\x01C\xa2\xff\xff", "msgpack"),
        (b"RL\x01C\x80", "invalid"),
        (b"RL\x01C\x93\x01\x02\x03", "invalid"),
        (b"RL\x01C" + pack({"type": "no_such_message"}), "invalid"),
        (b"RL\x01C" + pack({"type": "stream_ack", "stream": STREAM, "seq": -1}), "invalid"),
        (b"RL\x01C" + pack({"type": "stream_ack", "stream": STREAM, "seq": 1 << 63}), "invalid"),
        (b"RL\x01C" + pack({"type": "stream_ack", "stream": "short", "seq": 1}), "invalid"),
        (b"RL\x01C" + pack({"type": "stream_ack", "stream": STREAM}), "invalid"),
        (b"RL\x01C" + pack({"type": "worker_start", "worker": "x" * 65, "run": "r"}), "invalid"),
        (b"RL\x01C" + bytes(MAX_CONTROL_BYTES), "oversized"),
    ],
)
def test_a_bad_control_frame_is_named_by_reason(frame: bytes, reason: str) -> None:
    """Each way a control frame can be wrong has its word, fit for counting."""
    with _refused(reason):
        decode_control(frame)


def test_a_policy_that_cannot_work_is_refused_on_the_wire_too() -> None:
    """What `QueuePolicy` refuses at construction arrives as WireError, not as SettingsError."""
    hello = {"type": "subscriber_hello", "name": "n", "instance": "i", "kinds": ["step"]}
    with _refused("invalid"):
        decode_control(b"RL\x01C" + pack({**hello, "policy": {"overflow": "latest", "max_queue": 500}}))


def test_a_newer_peer_may_send_fields_we_do_not_know() -> None:
    """Unknown fields of a known message are passed over, so that a version can grow."""
    frame = b"RL\x01C" + pack({"type": "stream_bye", "stream": STREAM, "farewell": "see you"})
    assert decode_control(frame) == StreamBye(stream=STREAM)


# ---- batch headers ---------------------------------------------------------------------------------------


def test_a_header_comes_back_equal() -> None:
    """Stream, seqs, time and every section survive."""
    sections = (Section(1, 65_535, 200, 8_200), Section(7, 0, 56, (1 << 32) - 1))
    header = decode_header(encode_header(KEY, 1_000, 256, -5, sections))
    assert header == (KEY, 1_000, 256, -5, sections)
    assert header.last_seq == 1_255


@pytest.mark.parametrize(
    ("frame", "reason"),
    [
        (b"", "short"),
        (_header()[:47], "short"),
        (b"XL" + _header()[2:], "magic"),
        (_header()[:2] + b"\x09" + _header()[3:], "version"),
        (encode_echo(1), "type"),
        (encode_control(StatusRequest()), "type"),
        (_header()[:-1], "header"),
        (_header() + b"\0", "header"),
        (_header(sections=()), "header"),
        (_header(8, sections=tuple(Section(1 + i % 7, 0, 1, 8) for i in range(8))), "header"),
        (_header(0, sections=(Section(1, 0, 0, 0),)), "count"),
        (_header(MAX_BATCH_RECORDS + 1, sections=(Section(1, 0, MAX_BATCH_RECORDS + 1, 8),)), "count"),
        (_header(4), "count"),
        (_header(first_seq=0), "seq"),
        (_header(first_seq=(1 << 40) - MAX_BATCH_RECORDS + 1), "seq"),
        (_header(sections=(Section(0, 0, 3, 24),)), "kind"),
        (_header(sections=(Section(8, 0, 3, 24),)), "kind"),
        (_header(sections=(Section(2, 0, 1, 8), Section(2, 0, 2, 16))), "kind"),
    ],
)
def test_a_bad_header_is_named_by_reason(frame: bytes, reason: str) -> None:
    """Each way a batch header can be wrong has its word."""
    with _refused(reason):
        decode_header(frame)


@pytest.mark.parametrize("sizes", [[], [24, 1], [23], [25]])
def test_bodies_must_have_the_sizes_their_header_says(sizes: list[int]) -> None:
    """A body missing, too many, too short or too long is refused."""
    header = decode_header(_header())
    check_bodies(header, [24])
    with _refused("size"):
        check_bodies(header, sizes)


# ---- deliveries and echoes -------------------------------------------------------------------------------


def _delivery(bits: int) -> list[bytes]:
    """A delivery of a batch with three sections, of which those in `bits` follow."""
    head, *bodies = (bytes(frame) for frame in make_batch(make_info(), 1, step=2, metric=1, log=3).frames)
    return [encode_delivery_prefix(77, bits), head, *(body for i, body in enumerate(bodies) if bits >> i & 1)]


@pytest.mark.parametrize("bits", range(8))
def test_a_delivery_tells_present_sections_from_absent_ones(bits: int) -> None:
    """Every subset of the sections comes back in its place, absent ones as None; the header is the source's."""
    delivery = decode_delivery(_delivery(bits))
    assert delivery.number == 77
    assert delivery.header.records == 6
    whole = [[1, 2], [3], [4, 5, 6]]
    expected = [whole[index] if bits >> index & 1 else [] for index in range(3)]
    assert [seqs_of(body) for body in delivery.bodies] == expected
    assert [body is None for body in delivery.bodies] == [not bits >> index & 1 for index in range(3)]


Frames = list[bytes]
spoilt: list[tuple[Callable[[Frames], Frames], str]] = [
    (lambda frames: frames[:1], "type"),
    (lambda frames: frames[1:], "type"),
    (lambda frames: [frames[0] + b"\0", *frames[1:]], "type"),
    (lambda frames: [b"", *frames[1:]], "short"),
    (lambda frames: [frames[0], frames[1][:20], *frames[2:]], "short"),
    (lambda frames: frames[:-1], "frames"),
    (lambda frames: [*frames, b"x"], "frames"),
    (lambda frames: [encode_delivery_prefix(1, 0b1001), *frames[1:3]], "frames"),
    (lambda frames: [*frames[:-1], frames[-1][:-1]], "size"),
]


@pytest.mark.parametrize(("spoil", "reason"), spoilt)
def test_a_bad_delivery_is_named_by_reason(spoil: Callable[[Frames], Frames], reason: str) -> None:
    """Frames missing, added, cut or swapped are refused."""
    with _refused(reason):
        decode_delivery(spoil(_delivery(0b111)))


@pytest.mark.parametrize("number", [0, 1, (1 << 64) - 1])
def test_an_echo_comes_back_equal(number: int) -> None:
    """Any delivery number survives."""
    assert decode_echo(encode_echo(number)) == number


@pytest.mark.parametrize(
    ("frame", "reason"),
    [(b"", "short"), (encode_echo(1)[:-1], "type"), (encode_echo(1) + b"\0", "type"), (b"RL\x01C1234567", "type")],
)
def test_a_bad_echo_is_named_by_reason(frame: bytes, reason: str) -> None:
    """An echo is exactly one prefix and one number."""
    with _refused(reason):
        decode_echo(frame)


# ---- garbage ---------------------------------------------------------------------------------------------

prefixes = st.sampled_from([b"", b"RL", b"RL\x01", b"RL\x01C", b"RL\x01B", b"RL\x01D", b"RL\x01E", b"RL\x02C"])
frames = st.builds(bytes.__add__, prefixes, st.binary(max_size=200))


@given(frame=frames)
def test_no_bytes_raise_anything_but_wire_error(frame: bytes) -> None:
    """One bad message never kills a loop: each decoder answers, or raises WireError."""
    for decode in (decode_control, decode_header, decode_echo, is_control, unpack):
        with contextlib.suppress(WireError):
            decode(frame)


@given(parts=st.lists(frames, min_size=1, max_size=5))
def test_no_frames_raise_anything_but_wire_error(parts: list[bytes]) -> None:
    """The same for whole deliveries."""
    with contextlib.suppress(WireError):
        decode_delivery(parts)


plain_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(1 << 63), (1 << 64) - 1) | st.floats() | st.text() | st.binary(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=10,
)


@given(value=plain_values)
def test_no_valid_message_pack_raises_anything_but_wire_error(value: object) -> None:
    """Well-formed objects that are no message of ours are refused as such, whatever they hold."""
    with contextlib.suppress(WireError):
        decode_control(b"RL\x01C" + pack(value))
    with contextlib.suppress(WireError):
        decode_control(b"RL\x01C" + pack({"type": "heartbeat", "name": "n", "statistics": value, "pid": 1}))


@given(data=st.binary(max_size=60), keep=st.integers(0, 60))
def test_a_spoilt_header_is_whole_or_refused(data: bytes, keep: int) -> None:
    """A header with bytes overwritten either decodes to something within its limits or raises WireError."""
    whole = _header(sections=(Section(1, 0, 2, 16), Section(2, 0, 1, 8)))
    try:
        header = decode_header((whole[:keep] + data + whole[keep + len(data) :])[: len(whole)])
    except WireError:
        return
    assert 1 <= header.records <= MAX_BATCH_RECORDS
    assert header.first_seq >= 1
    assert sum(section.records for section in header.sections) == header.records


# ---- pack and unpack -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (np.float32(0.5), 0.5),
        (np.float64(0.5), 0.5),
        (np.int64(-3), -3),
        (np.uint8(200), 200),
        (np.bool_(True), True),
        (np.array([[1, 2], [3, 4]], np.int16), [[1, 2], [3, 4]]),
        (np.str_("x"), "x"),
        (1 << 64, "18446744073709551616"),
        (-(1 << 63) - 1, "-9223372036854775809"),
        ((1 << 64) - 1, (1 << 64) - 1),
        ({3}, [3]),
        (1 + 2j, "(1+2j)"),
        ("bad\udcff", r"bad\udcff"),
        (b"raw", b"raw"),
        ((1, 2), [1, 2]),
    ],
)
def test_what_a_training_script_holds_can_be_packed(value: object, expected: object) -> None:
    """NumPy scalars become numbers, huge integers text, odd text escaped text: alone and inside a record."""
    assert unpack(pack(value)) == expected
    assert unpack(pack([value, {"key": value}])) == [expected, {"key": expected}]


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_floats_that_are_no_numbers_survive(value: float) -> None:
    """A NaN reward is news, not an error."""
    found = unpack(pack(value))
    assert struct.pack("<d", found) == struct.pack("<d", value)


def test_map_keys_are_text_or_bytes() -> None:
    """An integer key is refused when decoded, so that nobody comes to rely on one."""
    with _refused("msgpack"):
        unpack(b"\x81\x01\x02")  # {1: 2}


@pytest.mark.parametrize("body", [b"\xd4\x05x", b"\xc7\x01\x05x", b"\xd6\xff\0\0\0\0"], ids=["fixed", "any", "time"])
def test_an_extension_type_is_refused(body: bytes) -> None:
    """No type of MessagePack but the plain ones is ours, its time stamp included."""
    with _refused("msgpack"):
        unpack(body)


def test_step_is_kind_one() -> None:
    """The numbers of the kinds are fixed by the wire, in the order of `names.KINDS`."""
    assert KIND_NUMBER == {"step": 1, "episode": 2, "metric": 3, "log": 4, "run": 5, "drop": 6, "info": 7}


# ---- packed batches --------------------------------------------------------------------------------------


def _batches() -> list[Sequence[bytes]]:
    info = make_info()
    return [
        [bytes(frame) for frame in batch.frames]
        for batch in (make_batch(info, 1, step=3), make_batch(info, 4, log=1, metric=2), make_batch(info, 7, step=256))
    ]


@pytest.mark.parametrize("count", [0, 1, 3])
def test_packed_batches_come_back_as_they_went_in(count: int) -> None:
    """Header and bodies of each, byte for byte, as views of the one frame."""
    batches = _batches()[:count]
    found = decode_packed(encode_packed(batches))
    assert [[bytes(frame) for frame in frames] for _, frames in found] == batches
    assert [header for header, _ in found] == [decode_header(frames[0]) for frames in batches]


def test_packed_batches_cut_short_are_refused_anywhere() -> None:
    """A frame that ends inside a batch is no shorter list of batches, but for one that ends between two."""
    batches = _batches()[:2]
    frame = encode_packed(batches)
    between = {4, len(encode_packed(batches[:1]))}
    for size in set(range(len(frame))) - between:
        with pytest.raises(WireError):
            decode_packed(frame[:size])
    assert [len(decode_packed(frame[:size])) for size in sorted(between)] == [0, 1]


@pytest.mark.parametrize(
    ("frame", "reason"),
    [
        (b"", "short"),
        (b"RL\x01B", "type"),
        (b"XX\x01P", "magic"),
        (b"RL\x02P", "version"),
        (b"RL\x01P" + b"\0" * 200, "magic"),
        (b"RL\x01P" + b"RL\x01B\xff" + b"\0" * 100, "header"),
    ],
)
def test_what_is_no_packed_batches_is_refused(frame: bytes, reason: str) -> None:
    """By reason, whichever part of it is wrong."""
    with _refused(reason):
        decode_packed(frame)


@pytest.mark.parametrize("count", [0, 1, 15, 16, 255, 256, (1 << 16) - 1, 1 << 16])
def test_an_array_header_makes_encoded_objects_one_array(count: int) -> None:
    """So records packed one by one are sent without being packed again."""
    assert unpack(array_header(count) + pack(7) * count) == [7] * count
