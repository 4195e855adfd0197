"""Free maps from user code become something every reader can take."""

import json
from typing import Any

from runlane.transport.journal_reader import MAX_BATCH_BYTES
from runlane.transport.wire import MAX_BODY_BYTES, pack, unpack
from runlane.workers.plain_values import MAX_MAP_BYTES, plain_map, short_text


def test_a_map_of_any_depth_can_be_read_by_anybody() -> None:
    """Thousand levels would end in a RecursionError in whoever reads them; here they end in a text."""
    tree: dict[str, Any] = {}
    for _ in range(1_000):
        tree = {"deeper": tree}
    plain = plain_map({"tree": tree})
    assert json.loads(json.dumps(unpack(pack(plain)))) == plain


def test_a_map_that_is_too_large_says_so_instead() -> None:
    """As many as make a batch long, and the last one beyond, must fit into one body."""
    plain = plain_map({"weights": list(range(100_000))})
    assert set(plain) == {"too_large", "keys"}
    assert MAX_BATCH_BYTES + MAX_MAP_BYTES < MAX_BODY_BYTES


def test_a_long_text_is_cut_with_a_mark() -> None:
    """The mark says how long it was."""
    assert short_text("short") == "short"
    cut = short_text("x" * 100_000)
    assert len(cut) <= 8_192
    assert cut.endswith("... (100000 characters)")
