"""What is encoded can be decoded: colours, times, sizes, and the sidecar beside it."""

import json
import sys
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from numpy.typing import NDArray

from runlane.actors import video_file
from runlane.actors.video_file import Result, Sidecar, VideoFile
from runlane.actors.video_rules import EpisodeKey, Video
from runlane.config.errors import VideoError
from runlane.transport.ring_layout import Geometry, Hud, RingInfo

STREAM = "a" * 32
INFO = RingInfo(run="run-1", run_name="walk", worker="w", stream=STREAM)
FRAME_NS = 40_000_000
TOLERANCE = 6  # of 255: colours are halved and the rest is rounded
RED, GREEN, BLUE = (250, 0, 0), (0, 250, 0), (0, 0, 250)


def frame(shape: tuple[int, ...], colour: Any) -> NDArray[np.uint8]:
    """A frame of one colour."""
    pixels = np.empty(shape, np.uint8)
    pixels[:] = colour
    return pixels


def hud(number: int, episode: int = 3, **changed: Any) -> Hud:
    """The HUD of the frame of the step `number`, 40 ms after the one before."""
    at_ns = number * FRAME_NS
    place = episode + (number << 32)
    found = Hud(2 * number, 10**18 + at_ns, 10**12 + at_ns, place, episode_return=number / 2)
    return found._replace(**changed)


def opened(directory: Path, shape: tuple[int, ...], part: int = 1) -> VideoFile:
    """A new video of frames of this shape."""
    size = Geometry(shape[1], shape[0], shape[2] if len(shape) > 2 else 1)
    return VideoFile(directory, EpisodeKey(STREAM, 0, 3), part, INFO, hud(1), size)


def recorded(directory: Path, *frames: NDArray[np.uint8], result: Result | None = None) -> Video:
    """A finished video of these frames."""
    video = opened(directory, frames[0].shape)
    for number, pixels in enumerate(frames, 1):
        video.add(hud(number), pixels)
    return video.finish(77, result, is_whole=True)


def decoded(directory: Path, video: Video) -> tuple[list[float], list[NDArray[np.uint8]]]:
    """Times in seconds, and pictures in RGB."""
    with av.open(str(directory / f"{video.name}.mp4")) as container:
        found = [(picture.time or 0.0, rgb_of(picture)) for picture in container.decode(video=0)]
    return [time for time, _ in found], [picture for _, picture in found]


def rgb_of(picture: av.VideoFrame) -> NDArray[np.uint8]:
    """As BT.709 has it, and as the picture has to say: PyAV itself obeys only from version 17 on."""
    assert (picture.format.name, picture.colorspace, picture.color_range) == ("yuv420p", 1, 1)
    width, height = picture.width, picture.height
    planes = np.asarray(picture.to_ndarray(), float).reshape(-1)
    luma = (planes[: width * height].reshape(height, width) - 16) / 219
    blue, red = (
        (half.reshape(height // 2, width // 2).repeat(2, 0).repeat(2, 1) - 128) / 224
        for half in np.split(planes[width * height :], 2)
    )
    colours = (luma + 1.5748 * red, luma - 0.1873 * blue - 0.4681 * red, luma + 1.8556 * blue)
    return (np.stack(colours, 2) * 255).round().clip(0, 255).astype(np.uint8)


def sidecar(directory: Path, video: Video) -> dict[str, Any]:
    """What stands beside a video."""
    found = json.loads((directory / f"{video.name}.json").read_text())
    assert isinstance(found, dict)
    return found  # pyright: ignore[reportUnknownVariableType]


def names(directory: Path) -> list[str]:
    """Every file below a directory."""
    return sorted(path.name for path in directory.rglob("*") if path.is_file())


def assert_colour(picture: NDArray[np.uint8], colour: Any) -> None:
    """Every pixel is of this colour, nearly."""
    assert np.abs(picture.astype(int) - colour).max() <= TOLERANCE


def test_each_frame_is_a_picture_of_its_colour_at_its_time(tmp_path: Path) -> None:
    """In order, and as far apart as they were shown."""
    colours = (RED, GREEN, BLUE, (200, 100, 50))
    video = recorded(tmp_path, *(frame((48, 64, 3), colour) for colour in colours))
    times, pictures = decoded(tmp_path, video)
    assert times == pytest.approx([0.0, 0.04, 0.08, 0.12])
    for picture, colour in zip(pictures, colours, strict=True):
        assert picture.shape == (48, 64, 3)
        assert_colour(picture, colour)


@pytest.mark.parametrize(
    ("shape", "colour", "shown"),
    [((48, 64), 130, (130, 130, 130)), ((48, 64, 4), (*GREEN, 9), GREEN), ((1, 1, 3), BLUE, BLUE)],
)
def test_gray_and_rgba_and_the_smallest_frame_are_shown(
    tmp_path: Path, shape: tuple[int, ...], colour: Any, shown: Any
) -> None:
    """What a ring takes, a video takes."""
    _, pictures = decoded(tmp_path, recorded(tmp_path, frame(shape, colour), frame(shape, colour)))
    assert_colour(pictures[1], shown)


def test_odd_sides_are_made_even_by_showing_the_edge_twice(tmp_path: Path) -> None:
    """The sidecar tells the frame's own size."""
    video = recorded(tmp_path, frame((33, 47, 3), RED))
    _, pictures = decoded(tmp_path, video)
    assert pictures[0].shape == (34, 48, 3)
    assert_colour(pictures[0], RED)
    assert (sidecar(tmp_path, video)["width"], sidecar(tmp_path, video)["height"]) == (47, 33)


def test_the_sidecar_says_whose_it_is_and_which_step_each_picture_shows(tmp_path: Path) -> None:
    """Without a record of the episode the return is the last frame's, and says so."""
    video = recorded(tmp_path, *(frame((16, 16, 3), RED) for _ in range(3)))
    assert sidecar(tmp_path, video) == {
        "stream": STREAM,
        "run": "run-1",
        "run_name": "walk",
        "worker": "w",
        "env_index": 0,
        "episode": 3,
        "part": 1,
        "tile": 0,
        "width": 16,
        "height": 16,
        "codec": "h264",
        "frames": 3,
        "ended_ns": 77,
        "is_whole": True,
        "episode_return": 1.5,
        "length": None,
        "outcome": None,
        "return_source": "frame",
        "step_seq": [2, 4, 6],
        "step": [1, 2, 3],
        "t_ns": [10**18 + number * FRAME_NS for number in (1, 2, 3)],
    }
    assert video == Video(EpisodeKey(STREAM, 0, 3), 1, video.size, 77, None)
    assert video.size == sum(path.stat().st_size for path in tmp_path.rglob("0-*"))


def test_a_result_stands_in_the_sidecar_early_or_late(tmp_path: Path) -> None:
    """Known before the end, or written into it afterwards."""
    result = Result(12.5, 40, "terminated")
    early = sidecar(tmp_path / "early", recorded(tmp_path / "early", frame((16, 16, 3), RED), result=result))
    video = recorded(tmp_path / "late", frame((16, 16, 3), RED))
    video_file.set_result(tmp_path / "late", video, result, is_whole=True)
    assert early == sidecar(tmp_path / "late", video)
    assert early["return_source"] == "bus"
    assert [early[key] for key in ("episode_return", "length", "outcome")] == [12.5, 40, "terminated"]


def test_a_result_brings_no_removed_video_back(tmp_path: Path) -> None:
    """Who removed it by hand does not find half of it again."""
    video = recorded(tmp_path, frame((16, 16, 3), RED))
    video_file.remove(tmp_path, video)
    video_file.set_result(tmp_path, video, Result(1.0, 1, "terminated"), is_whole=True)
    assert names(tmp_path) == []
    assert not (tmp_path / STREAM).exists()


def test_times_rise_whatever_the_hud_says(tmp_path: Path) -> None:
    """Two frames of one moment, or a clock that goes back, are two pictures."""
    video = opened(tmp_path, (16, 16, 3))
    for mono_ns, t_ns in ((5_000_000_000, 0), (5_000_000_000, 0), (1_000_000_000, 0), (0, 9), (0, 40_000_009)):
        video.add(hud(1, mono_ns=mono_ns, t_ns=t_ns), frame((16, 16, 3), RED))
    times, _ = decoded(tmp_path, video.finish(1, None, is_whole=True))
    assert len(times) == 5
    assert times == sorted(set(times))
    assert times[-1] - times[-2] == pytest.approx(0.04, abs=0.001)  # without a monotonic time the other one counts


def test_a_running_video_has_only_part_names(tmp_path: Path) -> None:
    """What has a name of its own is whole."""
    video = opened(tmp_path, (16, 16, 3))
    video.add(hud(1), frame((16, 16, 3), RED))
    assert names(tmp_path) == ["0-00000003.mp4.part"]
    video.discard()
    assert names(tmp_path) == []


def test_a_video_without_a_frame_is_refused(tmp_path: Path) -> None:
    """No player opens it."""
    video = opened(tmp_path, (16, 16, 3))
    with pytest.raises(ValueError, match="without a frame"):
        video.finish(1, None, is_whole=True)
    video.discard()


def test_sweep_removes_what_a_killed_recorder_left_and_nothing_else(tmp_path: Path) -> None:
    """Unfinished files and a sidecar whose video has no name yet; not a stranger's files."""
    video = recorded(tmp_path, frame((16, 16, 3), RED))
    folder = tmp_path / STREAM
    for name in ("0-00000004.mp4.part", "0-00000004.json.part", "0-00000004.json", "mine.json", "my.part"):
        (folder / name).write_text("x")
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "1-00000001.mp4.part").write_text("x")
    assert len(video_file.sweep(tmp_path)) == 4
    assert names(tmp_path) == ["0-00000003.json", "0-00000003.mp4", "mine.json", "my.part"]
    assert not (tmp_path / "other").exists()
    assert video_file.scan(tmp_path) == [video._replace(episode_return=0.5)]


def test_scan_finds_sizes_and_order_again(tmp_path: Path) -> None:
    """Oldest first, whatever the episodes' numbers; what has no readable sidecar is not ours to count."""
    made: list[Video] = []
    for part, ended_ns in ((1, 30), (2, 10), (3, 20)):
        video = opened(tmp_path, (16, 16, 3), part)
        video.add(hud(1), frame((16, 16, 3), RED))
        made.append(video.finish(ended_ns, Result(float(part), 1, "terminated"), is_whole=True))
    (tmp_path / STREAM / "0-00000009.json").write_text("{")
    (tmp_path / STREAM / "0-00000009.mp4").write_text("")
    assert video_file.scan(tmp_path) == [made[1], made[2], made[0]]
    assert video_file.scan(tmp_path / "nothing") == []


def test_the_disk_speaks_by_an_os_error(tmp_path: Path) -> None:
    """The encoder's own errors are not for whoever records."""
    (tmp_path / STREAM).write_text("a file where the directory should be")
    with pytest.raises(OSError, match=STREAM):
        opened(tmp_path, (16, 16, 3))


def test_without_pyav_the_error_names_the_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    """An import of a module that is None fails as that of a missing one does."""
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(VideoError, match=r'pip install "runlane\[video\]"') as caught:
        video_file.check_av()
    assert caught.value.exit_code == 1


def test_a_sidecar_is_read_as_it_was_written(tmp_path: Path) -> None:
    """The names of its fields are what others read it by."""
    video = recorded(tmp_path, frame((16, 16, 3), RED))
    assert set(sidecar(tmp_path, video)) == set(Sidecar.__struct_fields__)
