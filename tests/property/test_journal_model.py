"""A journal is a list of records on disk, whatever is called, read, acked and deleted, in whatever order."""

import tempfile
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from runlane.config.settings import JournalSettings, SessionSettings, Settings
from runlane.transport.ack import Batch
from runlane.transport.columns import decode_records, decode_steps, step_dtype
from runlane.transport.journal_head import JournalHead
from runlane.transport.journal_layout import segment_numbers, segment_path
from runlane.transport.journal_reader import JournalReader, first_seq_of
from runlane.transport.messages import StreamInfo
from runlane.transport.records import Record
from runlane.transport.testing import make_info
from runlane.transport.wire import STEP, check_bodies, decode_header
from runlane.workers.plain_values import short_text
from runlane.workers.session import WorkerSession

Fact = tuple[Any, ...]
SMALL = JournalSettings(segment_bytes=1 << 16, quota_bytes=1 << 18, min_free_bytes=0)
DROP_NEWEST = SessionSettings(overflow="drop_newest", close_s=0.001)
FIELDS = {
    "EpisodeRecord": ("episode", "episode_return", "length", "outcome"),
    "MetricRecord": ("name", "value"),
    "LogRecord": ("text",),
    "InfoRecord": ("step_seq", "info"),
    "DropRecord": ("kind", "reason", "records"),
    "RunRecord": ("state",),
}


class Still:
    """In place of the session's threads: nothing moves but what the test moves."""

    has_ended = True

    def __init__(self, *_: object) -> None:
        pass

    def start(self) -> None:
        """Nothing."""

    wake = start

    def close(self, *_: object) -> None:
        """Nothing."""


def _facts_of(batch: Batch, info: StreamInfo) -> dict[int, Fact]:
    """Every record of a batch by seq, as plain values."""
    header = decode_header(batch.frames[0])
    check_bodies(header, [len(body) for body in batch.frames[1:]])
    schemas = {schema.schema_id: step_dtype(schema) for schema in info.schemas}
    found: dict[int, Fact] = {}
    for section, body in zip(header.sections, batch.frames[1:], strict=True):
        if section.kind != STEP:
            found |= {record.seq: _fact(record) for record in decode_records(body, section)}
            continue
        for row in decode_steps(body, section, schemas[section.schema_id]):
            columns = set(row.dtype.names) & {"episode", "step", "reward", "action", "observation"}
            found[int(row["seq"])] = ("step", {name: np.ravel(row[name]).tolist() for name in columns})
    assert sorted(found) == list(range(batch.first_seq, batch.last_seq + 1))
    return found


def _fact(record: Record) -> Fact:
    name = type(record).__name__
    return (name, *(getattr(record, field) for field in FIELDS[name]))


class JournalMachine(RuleBasedStateMachine):
    """A session that records, a list of what it recorded, and readers at any place."""

    @initialize()
    def begin(self) -> None:
        """A session in a directory of its own, that drops what finds no room."""
        self.patch = pytest.MonkeyPatch()
        for name in ("Flusher", "JournalSync"):
            self.patch.setattr(f"runlane.workers.stream_writer.{name}", Still)
        self.home = tempfile.TemporaryDirectory(prefix="rlj-")
        chosen = Settings(data_dir=self.home.name, journal=SMALL, session=DROP_NEWEST)
        self.session = WorkerSession(make_info("w", schemas=[]), f"ipc://{self.home.name}/nobody.ipc", chosen, {})
        self.journal = self.session._journal  # pyright: ignore[reportPrivateUsage]
        self.expected: list[Fact] = [("RunRecord", "running")]
        self.told: dict[str, int] = {}
        self.place = [1, 0, 0.0]  # episode, step, return

    @property
    def head(self) -> JournalHead:
        """The journal's, which is there from the first record on."""
        assert self.journal.head is not None
        return self.journal.head

    def read_from(self, seq: int, most: int = 256, *, is_final: bool = True) -> dict[int, Fact]:
        """All records from a seq on, as a reader finds them."""
        reader = JournalReader(self.journal.directory)
        reader.seek(seq)
        read = reader.read_final if is_final else reader.read
        found: dict[int, Fact] = {}
        while (batch := read(self.journal.seq, 0, most)) is not None:
            assert batch.records <= most
            assert reader.info is not None
            found |= _facts_of(batch, reader.info)
        reader.close()
        return found

    def _expect(self, before: int, dropped: int, kind: str, fact: Fact) -> bool:
        """The next record is this one, unless it was dropped; drops that are told stand before it."""
        is_kept = self.session.dropped[kind] == dropped
        drops = self.journal.seq - before - is_kept
        if drops > 0:
            found = self.read_from(before + 1)
            for seq in range(before + 1, before + 1 + drops):
                name, of_kind, reason, records = found[seq]
                assert (name, reason) == ("DropRecord", "journal_full")
                self.told[of_kind] = self.told.get(of_kind, 0) + records
                self.expected.append(found[seq])
        if is_kept:
            self.expected.append(fact)
        return is_kept

    # ---- calls ----

    @rule(
        action=st.integers(-5, 5) | st.floats(allow_nan=False) | st.none() | st.lists(st.integers(0, 3), min_size=1),
        reward=st.floats(-10, 10),
        size=st.sampled_from([0, 0, 3, 100, 3_000]),
        repeats=st.sampled_from([1, 2, 300]),
    )
    def step(self, action: Any, reward: float, size: int, repeats: int) -> None:
        """Rows of any shape, also many alike."""
        observation = np.full(size, size % 251, np.uint8) if size else None
        for _ in range(repeats):
            before, dropped = self.journal.seq, self.session.dropped["step"]
            self.session.step(action, reward, observation=observation)
            self.place = [self.place[0], self.place[1] + 1, self.place[2] + reward]
            columns: dict[str, Any] = {"episode": [self.place[0]], "step": [self.place[1]], "reward": [reward]}
            if action is not None:
                columns["action"] = np.ravel(action).tolist()
            if observation is not None:
                columns["observation"] = observation.tolist()
            self._expect(before, dropped, "step", ("step", columns))

    @rule(name=st.sampled_from("abc"), value=st.floats(allow_nan=False))
    def metric(self, name: str, value: float) -> None:
        """A named scalar."""
        before, dropped = self.journal.seq, self.session.dropped["metric"]
        self.session.metric(name, value)
        self._expect(before, dropped, "metric", ("MetricRecord", name, value))

    @rule(text=st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=9),
          size=st.sampled_from([1, 1, 500, 20_000]))  # fmt: skip
    def log(self, text: str, size: int) -> None:
        """A line of text, cut where it is too long."""
        before, dropped = self.journal.seq, self.session.dropped["log"]
        self.session.log(text * size)
        self._expect(before, dropped, "log", ("LogRecord", short_text(text * size)))

    @rule()
    def end_episode(self) -> None:
        """By hand, whether its steps were dropped or not."""
        before, dropped = self.journal.seq, self.session.dropped["episode"]
        self.session.episode(outcome="abandoned")
        episode, length, total = self.place
        if length:
            self._expect(before, dropped, "episode", ("EpisodeRecord", episode, total, length, "abandoned"))
            self.place = [episode + 1, 0, 0.0]

    # ---- whoever drains it ----

    @rule(share=st.floats(0, 1))
    def commit(self, share: float) -> None:
        """Some of it is acked."""
        self.head.acked = max(self.head.acked, int(share * self.journal.seq))

    @rule()
    def delete(self) -> None:
        """Segments whose every record is acked go, as a proxy removes them."""
        for number, following in pairwise(segment_numbers(self.journal.directory)):
            if not 0 < self._first_seq(following) <= self.head.acked + 1:
                return
            segment_path(self.journal.directory, number).unlink()

    @rule()
    def make_spare(self) -> None:
        """As the flusher does, ahead of its time."""
        self.journal.make_spare()

    @rule(share=st.floats(0, 1), most=st.sampled_from([1, 2, 7, 256, 1_024]), is_final=st.booleans())
    def read(self, share: float, most: int, is_final: bool) -> None:
        """From any place, in batches of any size, with and without the checks: the list from there on."""
        wanted = 1 + int(share * self.journal.seq)
        oldest = self._first_seq(segment_numbers(self.journal.directory)[0])
        first = max(wanted, oldest)
        if self.journal.seq - first > 2_000:
            most = 1_024
        found = self.read_from(wanted, most, is_final=is_final)
        assert sorted(found) == list(range(first, self.journal.seq + 1))
        assert found == {seq: self.expected[seq - 1] for seq in found}

    def _first_seq(self, number: int) -> int:
        return first_seq_of(segment_path(self.journal.directory, number))

    @precondition(lambda self: hasattr(self, "session"))
    @invariant()
    def every_record_has_its_seq(self) -> None:
        """One for each that was taken, none for those dropped, and no fault."""
        assert self.journal.seq == len(self.expected)
        assert self.session.faults == 0

    @precondition(lambda self: hasattr(self, "session"))
    @invariant()
    def drops_are_told_exactly(self) -> None:
        """By records, or else by the head's own count."""
        untold = self.head.untold(self.journal.seq)
        dropped = {kind: records for kind, records in self.session.dropped.items() if records}
        assert {kind: self.told.get(kind, 0) + untold.get(kind, 0) for kind in {*self.told, *untold}} == dropped

    def teardown(self) -> None:
        """All of it once more, then the end."""
        if hasattr(self, "session"):
            try:
                self.read(0.0, 256, is_final=True)
            finally:
                self.session.close()
                self.home.cleanup()
                self.patch.undo()


TestJournalModel = JournalMachine.TestCase
TestJournalModel.settings = settings(max_examples=60, stateful_step_count=30)
