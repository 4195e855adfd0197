"""The recorder in a whole graph: what a worker showed is stored as video, picture by picture, whatever is killed."""

import json
import os
import signal
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from process.graph_under_test import GraphUnderTest, wait_until

from runlane.config.names import RECORDER

pytestmark = pytest.mark.timeout(120)

WORKER = Path(__file__).with_name("filmed_worker.py")
JOIN = """
SELECT picture.key, s.episode, s.step, s.action, s.reward
FROM json_each('{sidecar}', '$.step_seq') AS picture
JOIN steps AS s ON s.stream = json_extract('{sidecar}', '$.stream') AND s.seq = picture.value
ORDER BY picture.key
"""


TABLES = f"""
[recorder]
enabled = true
keep = 'all'
fps = 100
[workers.filmed]
command = ['{{python}}', '{WORKER}']
"""


def files(graph: GraphUnderTest, suffix: str) -> list[Path]:
    """Files of the recorder."""
    return sorted((graph.directory / "data" / "videos").glob(f"*/*{suffix}"))


def sidecars(graph: GraphUnderTest) -> list[dict[str, Any]]:
    """What stands beside the finished videos, in the order of their episodes."""
    return [json.loads(path.with_suffix(".json").read_text()) for path in files(graph, ".mp4")]


def pictures(path: Path) -> list[tuple[float, float]]:
    """How bright the middles of the left and the right half of each picture are, from 0 to 255."""
    with av.open(str(path)) as container:
        found = [np.asarray(picture.to_ndarray(), float) for picture in container.decode(video=0)]
        size = container.streams.video[0].width, container.streams.video[0].height
    assert size == (48, 38)  # the worker's frames have an odd height
    # The first rows of a picture are its brightness, from 16 to 235.
    return [((picture[18, 12] - 16) / 219 * 255, (picture[18, 36] - 16) / 219 * 255) for picture in found]


def test_what_a_worker_shows_is_stored_whatever_becomes_of_the_recorder(short_dir: Path) -> None:
    """Each picture is a row of the database. `kill -9` costs what was running, which the successor removes."""
    with GraphUnderTest(short_dir, TABLES) as graph:
        wait_until(lambda: [found["return_source"] for found in sidecars(graph)] == ["bus"] * 3, "three episodes")
        for path, sidecar in zip(files(graph, ".mp4")[1:], sidecars(graph)[1:], strict=True):
            assert_each_picture_is_its_row(graph, path, sidecar)
        killed_at_step = kill_in_mid_episode(graph)
        wait_until(lambda: graph.child(RECORDER).statistics.get("frames", 0) > 10, "the successor has frames")
    assert files(graph, ".part") == []
    assert graph.leftovers() == []
    assert [found["episode"] for found in sidecars(graph)] == [1, 2, 3, 4]
    running = sidecars(graph)[-1]
    assert not running["is_whole"]
    assert running["outcome"] in (None, "abandoned")  # the worker's last record may come before the recorder's end
    assert running["step"][0] > killed_at_step
    assert len(pictures(files(graph, ".mp4")[-1])) == running["frames"] == len(running["step_seq"])


def assert_each_picture_is_its_row(graph: GraphUnderTest, path: Path, sidecar: dict[str, Any]) -> None:
    """Its halves say the step and the episode that the row of its seq has."""
    assert [sidecar[key] for key in ("episode_return", "length", "outcome")] == [20.0, 20, "terminated"]
    assert sidecar["is_whole"]
    assert sidecar["frames"] > 1  # of twenty; how many is a matter of the machine
    statement = JOIN.format(sidecar=json.dumps(sidecar))
    wait_until(lambda: len(graph.sql(statement)) == sidecar["frames"], "its steps are stored, too")
    rows = graph.sql(statement)
    assert [row[1] for row in rows] == [sidecar["episode"]] * sidecar["frames"]
    assert [row[2] for row in rows] == [row[3] for row in rows] == sidecar["step"]
    for shown, step in zip(pictures(path), sidecar["step"], strict=True):
        assert shown == pytest.approx((step * 10, sidecar["episode"] * 50), abs=4)  # of 10


def kill_in_mid_episode(graph: GraphUnderTest) -> int:
    """`kill -9`, and wait for the successor; returns how many frames of the running episode were lost at least."""
    before = graph.child(RECORDER).statistics["frames"]
    wait_until(lambda: graph.child(RECORDER).statistics["frames"] > before + 10, "the fourth episode has frames")
    os.kill(graph.child(RECORDER).pid, signal.SIGKILL)
    assert len(files(graph, ".mp4")) == len(files(graph, ".json")) == 3
    log = graph.directory / "data" / "logs" / "recorder.log"
    wait_until(lambda: "0-00000004.mp4.part reason=unfinished" in log.read_text(), "the successor has removed it")
    return 10
