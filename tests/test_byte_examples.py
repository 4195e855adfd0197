"""The worked examples of the pages on bytes: what a page prints decodes to what it says, by our code and by its own."""

import json
import re
from itertools import compress
from pathlib import Path
from types import ModuleType
from typing import Any

import msgspec
import pytest
from reference_page import blocks, page, part

from runlane.config import names
from runlane.transport import journal_layout, ring_layout
from runlane.transport.columns import decode_records, decode_steps, step_dtype
from runlane.transport.fast_lane_reader import FastLaneReader
from runlane.transport.journal_head import JournalHead
from runlane.transport.journal_reader import JournalReader
from runlane.transport.lease import wanted
from runlane.transport.messages import StepSchema, StreamHello
from runlane.transport.wire import (
    STEP,
    check_bodies,
    decode_control,
    decode_delivery,
    decode_echo,
    decode_header,
    encode_control,
    encode_delivery_prefix,
    encode_echo,
    encode_header,
)

# ---- the worked example ----------------------------------------------------------------------------------


def dumped(text: str) -> list[bytes]:
    """Frames of a hex dump; a line that starts with `frame` begins one."""
    frames: list[bytes] = []
    for line in text.splitlines():
        if line.startswith("frame"):
            frames.append(b"")
        elif line.strip():
            frames[-1] += bytes.fromhex(line[8:57])
    return frames


def example() -> tuple[list[list[bytes]], dict[str, Any]]:
    """The four dumped messages of the page (hello, batch, delivery, echo) and what it says they hold."""
    text = part(page("wire-format"), "A worked example")
    found = blocks(text)
    dumps = [dumped(block.text) for block in found if block.language == "text"]
    said = next(json.loads(block.text) for block in found if block.language == "json")
    assert len(dumps) == 4
    return dumps, said


def test_the_hello_of_the_example_decodes_to_what_the_page_says() -> None:
    """And what the page says encodes to the bytes of the dump."""
    dumps, said = example()
    [frame] = dumps[0]
    hello = decode_control(frame)
    assert isinstance(hello, StreamHello)
    assert msgspec.to_builtins(hello) == said["hello"]
    assert encode_control(hello) == frame


def test_the_batch_of_the_example_decodes_to_what_the_page_says() -> None:
    """Header, sections, step rows and records, by the code that readers use."""
    dumps, said = example()
    head, *bodies = dumps[1]
    header = decode_header(head)
    check_bodies(header, [len(body) for body in bodies])
    schema = msgspec.convert(said["hello"]["info"]["schemas"][0], StepSchema)
    decoded: dict[str, Any] = {
        "stream": header.stream.hex(),
        "first_seq": header.first_seq,
        "records": header.records,
        "closed_ns": header.closed_ns,
        "sections": [list(section) for section in header.sections],
    }
    for section, body in zip(header.sections, bodies, strict=True):
        if section.kind == STEP:
            decoded["step"] = [list(row) for row in decode_steps(body, section, step_dtype(schema)).tolist()]
        else:
            kind = names.KINDS[section.kind - 1]
            decoded[kind] = [list(msgspec.structs.astuple(record)) for record in decode_records(body, section)]
    assert decoded == said["batch"]
    assert encode_header(header.stream, header.first_seq, header.records, header.closed_ns, header.sections) == head


def test_the_delivery_and_the_echo_of_the_example_decode_to_what_the_page_says() -> None:
    """The subscriber gets a section less than the source sent, and the header as it was."""
    dumps, said = example()
    batch, delivery, [echo] = dumps[1:]
    decoded = decode_delivery(delivery)
    assert decoded.number == said["delivery"]["number"]
    assert encode_delivery_prefix(decoded.number, said["delivery"]["section_bits"]) == delivery[0]
    assert delivery[1] == batch[0]
    assert [body is not None for body in decoded.bodies] == said["delivery"]["is_present"]
    assert delivery[2:] == list(compress(batch[1:], said["delivery"]["is_present"]))
    assert decode_echo(echo) == said["echo"]["number"]
    assert encode_echo(said["echo"]["number"]) == echo


# ---- the journal, and its worked example -----------------------------------------------------------------


def placed(text: str, size: int) -> bytes:
    """A hex dump as a file of `size` bytes; lines that are left out are zero."""
    found = bytearray(size)
    for line in text.splitlines():
        row = bytes.fromhex(line[8:57])
        start = int(line[:8], 16)
        found[start : start + len(row)] = row
    return bytes(found)


def journal_example(parent: Path) -> tuple[Path, dict[str, Any]]:
    """The dumped journal of the page as a directory, and what the page says it holds."""
    found = blocks(part(page("journal-layout"), "A worked example"))
    head, segment = (block.text for block in found if block.language == "text")
    said = next(json.loads(block.text) for block in found if block.language == "json")
    directory = parent / said["head"]["stream"]
    directory.mkdir()
    (directory / journal_layout.HEAD_FILE).write_bytes(placed(head, journal_layout.HEAD_BYTES))
    journal_layout.segment_path(directory, said["segment"]["number"]).write_bytes(placed(segment, 1 << 16))
    return directory, said


@pytest.mark.parametrize(
    ("layout", "name", "least"), [(journal_layout, "journal-layout", 20), (ring_layout, "ring-layout", 30)]
)
def test_the_drawings_of_a_layout_stand_in_its_page(layout: ModuleType, name: str, least: int) -> None:
    """Line by line, as in the one file that counts its bytes."""
    text = page(name)
    drawn = [line for line in (layout.__doc__ or "").splitlines() if re.match(r"\s+(\+--|\||\d+ {2,})", line)]
    assert len(drawn) >= least
    for line in drawn:
        assert line.strip() in text, line


def test_the_journal_of_the_example_decodes_to_what_the_page_says(tmp_path: Path) -> None:
    """The head word by word, and the segment's records into the very batch of the wire format's example."""
    directory, said = journal_example(tmp_path)
    head = JournalHead.open(directory)
    assert {
        "stream": head.stream.hex(),
        "published": head.published,
        "closed": head.closed,
        "acked": head.acked,
        "untold": head.untold(head.published),
    } == said["head"]
    assert not head.is_writer_alive
    first_info = head.info
    head.close()
    header = journal_layout.decode_segment_header(journal_layout.segment_path(directory, 2).read_bytes())
    assert {"stream": header.stream.hex(), "number": header.number, "first_seq": header.first_seq} == said["segment"]
    dumps, wire = example()
    reader = JournalReader(directory)
    reader.seek(said["head"]["acked"] + 1)
    batch = reader.read_final(said["head"]["published"], wire["batch"]["closed_ns"])
    assert batch is not None
    assert list(batch.frames) == dumps[1]
    assert reader.read_final(said["head"]["published"], 0) is None
    assert not reader.is_torn
    assert msgspec.to_builtins(reader.info) == wire["hello"]["info"]
    assert msgspec.to_builtins(first_info) == {**wire["hello"]["info"], "schemas": []}
    reader.close()


def test_the_reader_in_the_page_finds_the_records_of_its_example(tmp_path: Path) -> None:
    """The program that uses nothing of ours sees what the page says, and stops where nothing whole follows."""
    directory, said = journal_example(tmp_path)
    program = next(block.text for block in blocks(page("journal-layout")) if block.language == "python")
    names_of: dict[str, Any] = {}
    exec(compile(program, "journal-layout", "exec"), names_of)  # noqa: S102  the page's own text
    segment = journal_layout.segment_path(directory, said["segment"]["number"])
    found = list(names_of["records"](segment))
    place = journal_layout.SEGMENT_HEADER_BYTES
    listed: list[dict[str, int]] = []
    for kind, schema, seq, payload in found:
        length = journal_layout.RECORD_HEADER_BYTES + len(payload)
        listed.append({"offset": place, "length": length, "kind": kind, "schema": schema, "seq": seq})
        place += length
    assert listed == said["records"]
    torn = segment.read_bytes()
    segment.write_bytes(torn[: place - 1] + bytes(1) + torn[place:])
    assert list(names_of["records"](segment)) == found[:-1]


# ---- the ring, and its worked example --------------------------------------------------------------------


def ring_example(parent: Path) -> tuple[Path, dict[str, Any]]:
    """The dumped ring of the page as files, and what the page says they hold."""
    found = blocks(part(page("ring-layout"), "A worked example"))
    head, slots = (block.text for block in found if block.language == "text")
    said = next(json.loads(block.text) for block in found if block.language == "json")
    path = parent / "rl-0123456789-01234567"
    path.write_bytes(placed(head, ring_layout.HEAD_BYTES))
    path.with_name(f"{path.name}.{said['head']['generation']}").write_bytes(placed(slots, 4480))
    return path, said


def test_the_head_of_the_example_decodes_to_what_the_page_says(tmp_path: Path) -> None:
    """Its maker, its words, whose it is, and what its viewer wants."""
    head, said = ring_example(tmp_path)
    data = head.read_bytes()
    header, info = ring_layout.decode_head(data)
    words = memoryview(data).cast("Q")
    found = {**header._asdict(), "generation": words[ring_layout.GENERATION], "head": words[ring_layout.HEAD]}
    assert {**found, "closed": words[ring_layout.CLOSED], "info": msgspec.to_builtins(info)} == said["head"]
    asked = wanted(words, said["frames"][-1]["hud"][2] + 100_000_000)
    assert asked is not None
    assert asked._asdict() == said["wanted"]
    assert ring_layout.encode_head(header, info)[:64] == data[:64]
    assert ring_layout.encode_head(header, info)[ring_layout.INFO_OFFSET :] == data[ring_layout.INFO_OFFSET :]


def test_the_slots_of_the_example_decode_to_what_the_page_says(tmp_path: Path) -> None:
    """Every frame where the page has it, with a check that fits; and the newest one, by a reader of ours."""
    head, said = ring_example(tmp_path)
    data = head.with_name(f"{head.name}.1").read_bytes()
    header = ring_layout.decode_slots(data, len(data))
    flat = {**header._asdict(), **header.geometry._asdict()}
    assert {key: flat[key] for key in said["slots"]} == said["slots"]
    for frame in said["frames"]:
        start = header.slot_offset(frame["number"])
        hud = ring_layout.FIELDS.unpack_from(data, start + ring_layout.FIELDS_OFFSET)
        pixels = data[start + ring_layout.SLOT_HEADER_BYTES :][: header.geometry.frame_bytes]
        assert {"number": frame["number"], "hud": list(hud), "pixels": pixels.hex()} == frame
        check = int.from_bytes(data[start + ring_layout.CHECK_OFFSET :][:8], "little")
        assert check == ring_layout.check_of_copy(frame["number"], ring_layout.Hud(*hud), pixels)
    reader = FastLaneReader(head)
    newest = reader.read()
    reader.close()
    assert newest is not None
    assert [list(newest[0]), newest[1].hex()] == [said["frames"][-1]["hud"], said["frames"][-1]["pixels"]]


def test_the_reader_in_the_page_finds_the_newest_frame_of_its_example(tmp_path: Path) -> None:
    """The program that uses nothing of ours; a pixel that is not as it was written gives it nothing."""
    head, said = ring_example(tmp_path)
    program = next(block.text for block in blocks(page("ring-layout")) if block.language == "python")
    names_of: dict[str, Any] = {}
    exec(compile(program, "ring-layout", "exec"), names_of)  # noqa: S102  the page's own text
    newest = said["frames"][-1]
    assert names_of["newest_frame"](head) == ((newest["number"], *newest["hud"]), bytes.fromhex(newest["pixels"]))
    slots = head.with_name(f"{head.name}.1")
    slots.write_bytes(slots.read_bytes().replace(bytes.fromhex(newest["pixels"]), b"123456"))
    assert names_of["newest_frame"](head) is None
