"""VideoFile: one episode's frames as a video, and the sidecar that says which record each picture shows.

Both are written under the name they get with `.part` behind it, and renamed when they are whole: the sidecar first,
so where there is a video there is its sidecar. The rest lets the recorder be killed at any moment: a `.part`, or a
sidecar alone, is a dead recorder's, and `sweep` removes it.
"""

import contextlib
import os
import re
from array import array
from collections.abc import Generator, Iterator
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from runlane.actors.video_rules import EpisodeKey, Video, name_of
from runlane.config.errors import VideoError
from runlane.transport.ring_layout import Geometry, Hud, RingInfo

if TYPE_CHECKING:
    from av import VideoCodecContext

VIDEO_DIR = "videos"  # below the data directory
VIDEO, SIDECAR, PART = ".mp4", ".json", ".part"
# One file ends after so many frames and the episode's next part begins: what grows with frames stays bounded, and so
# does what a killed recorder loses (11 minutes at 30 frames a second).
MAX_FRAMES = 20_000
# An encoder that looks ahead holds 40 frames of each worker; and one thread falls behind, which the ring allows,
# rather than take the trainer's cores. A key frame every 60 frames lets a player jump.
X264_OPTIONS = {"preset": "veryfast", "tune": "zerolatency", "crf": "23"}
KEY_FRAME_EVERY = 60
# A pause in an episode is shown as long as it was, but for one that a container cannot count.
MAX_PAUSE_NS = 3_600_000_000_000
_X264 = "libx264"
_TICKS = 90_000  # a second
_BT709 = 1  # in H.273, of primaries, transfer and matrix alike
_LIMITED = 1
_NAME = re.compile(r"\d+-\d{8,10}(-\d+)?\.(mp4|json)(\.part)?$")  # of all that is ours, as `name_of` makes it
_FORMATS = {1: "gray", 3: "rgb24", 4: "rgba"}

Pixels = NDArray[np.uint8]


class Result(NamedTuple):
    """How an episode ended, by its record on the RunBus."""

    episode_return: float
    length: int
    outcome: str

    @property
    def is_end(self) -> bool:
        """Whether the environment ended it; else a reset, or the end of the worker, cut it off."""
        return self.outcome != "abandoned"


class Sidecar(msgspec.Struct, frozen=True, kw_only=True):
    """What stands beside a video. The i-th of each list belongs to its i-th picture.

    `width` and `height` are the frame's; a video has even sides, so it may have a column or a row more. `is_whole`:
    the episode came to its end, and that was seen. `return_source` "frame" means that no record of the episode came,
    and `episode_return` is what the last frame's HUD said. `step_seq` 0 is a step that was not recorded.
    """

    stream: str
    run: str
    run_name: str
    worker: str
    env_index: int
    episode: int
    part: int
    tile: int
    width: int
    height: int
    codec: str
    frames: int
    ended_ns: int
    is_whole: bool
    episode_return: float | None
    length: int | None = None
    outcome: str | None = None
    return_source: Literal["bus", "frame"]
    step_seq: list[int]
    step: list[int]
    t_ns: list[int]


class _Known(msgspec.Struct, frozen=True):
    """What a recorder has to know of the videos of those before it; the lists are passed over."""

    env_index: int
    episode: int
    part: int
    ended_ns: int
    episode_return: float | None


def check_av() -> None:
    """Raise `VideoError` where PyAV is missing."""
    try:
        import av  # noqa: F401  # pyright: ignore[reportUnusedImport]
    except ImportError as error:
        raise VideoError(
            f'the recorder needs PyAV ({error}). Remedy: pip install "runlane[video]", or set recorder.enabled = false'
        ) from None


class VideoFile:
    """A video that grows. Errors of the encoder or the disk are `OSError` or `ValueError`; then `discard` it."""

    def __init__(self, directory: Path, key: EpisodeKey, part: int, info: RingInfo, first: Hud, size: Geometry) -> None:
        """Make the file; `directory` is the one of all videos, `first` the first frame's HUD, for its tile."""
        import av

        self.key, self.part = key, part
        self.info, self.geometry, self.tile = info, size, first.tile
        self._stem = str(directory / name_of(key, part))
        self._path = Path(self._stem + VIDEO + PART)
        self._path.parent.mkdir(parents=True, exist_ok=True)
        with _as_os_error(self._path):
            self._container: Any = av.open(str(self._path), "w", format="mp4")
        try:
            self._stream, self.codec = self._add_stream(size)
        except BaseException:
            self.discard()
            raise
        self._seqs, self._steps, self._times = array("Q"), array("Q"), array("q")
        self._last: Hud | None = None
        self._elapsed_ns = 0
        self._pts = -1
        # An encoder of half as many colours as pixels wants even sides: the last column and row are shown twice.
        sides = (size.height + size.height % 2, size.width + size.width % 2)
        self._padded: Pixels | None = None
        if sides != (size.height, size.width):
            self._padded = np.empty((*sides, *size.shape[2:]), np.uint8)

    def _add_stream(self, size: Geometry) -> tuple[Any, str]:
        stream: Any = self._container.add_stream(_encoder(), rate=30)  # frames have times of their own
        stream.width, stream.height = size.width + size.width % 2, size.height + size.height % 2
        stream.pix_fmt = "yuv420p"
        stream.time_base = Fraction(1, _TICKS)
        context: VideoCodecContext = stream.codec_context
        context.time_base = Fraction(1, _TICKS)
        context.gop_size = KEY_FRAME_EVERY
        context.thread_count = 1
        # Players take an unmarked video for BT.601 or BT.709 by its size.
        context.colorspace = context.color_primaries = context.color_trc = _BT709
        context.color_range = _LIMITED
        if context.name == _X264:
            context.options = dict(X264_OPTIONS)
        else:
            context.bit_rate = size.width * size.height * 8
        return stream, context.codec.canonical_name

    @property
    def name(self) -> str:
        """Its place below the directory of all videos, without a suffix."""
        return name_of(self.key, self.part)

    @property
    def frames(self) -> int:
        """Frames so far."""
        return len(self._seqs)

    def add(self, hud: Hud, pixels: Pixels) -> None:
        """Encode a frame of the shape of `geometry`; nothing is kept of `pixels`."""
        from av import VideoFrame
        from av.video.reformatter import ColorRange, Colorspace

        frame = VideoFrame.from_ndarray(self._even(pixels), format=_FORMATS[self.geometry.channels])
        frame = frame.reformat(
            format="yuv420p", dst_colorspace=Colorspace.ITU709, dst_color_range=ColorRange.MPEG, interpolation="AREA"
        )
        frame.pts, frame.time_base = self._advance(hud), Fraction(1, _TICKS)
        self._mux(frame)
        self._seqs.append(hud.step_seq)
        self._steps.append(hud.step)
        self._times.append(hud.t_ns)
        self._last = hud

    def _mux(self, frame: Any) -> None:
        with _as_os_error(self._path):
            self._container.mux(self._stream.encode(frame))

    def _even(self, pixels: Pixels) -> Pixels:
        if self._padded is None:
            return pixels
        height, width = pixels.shape[:2]
        self._padded[:height, :width] = pixels
        self._padded[height:, :width] = pixels[-1:]
        self._padded[:, width:] = self._padded[:, width - 1 : width]
        return self._padded

    def _advance(self, hud: Hud) -> int:
        """The frame's time in the video. It rises, whatever the HUD says."""
        if self._last is not None:
            is_monotonic = bool(hud.mono_ns and self._last.mono_ns)
            passed_ns = hud.mono_ns - self._last.mono_ns if is_monotonic else hud.t_ns - self._last.t_ns
            self._elapsed_ns += min(max(passed_ns, 0), MAX_PAUSE_NS)
        self._pts = max(self._pts + 1, self._elapsed_ns * _TICKS // 1_000_000_000)
        return self._pts

    def finish(self, wall_ns: int, result: Result | None, *, is_whole: bool) -> Video:
        """Write the end, give both files their names. The return is settled only by a `result`."""
        last = self._last
        if last is None:
            raise ValueError("a video without a frame")
        self._mux(None)
        self._close()
        sidecar = Sidecar(
            stream=self.info.stream,
            run=self.info.run,
            run_name=self.info.run_name,
            worker=self.info.worker,
            env_index=self.key.env_index,
            episode=self.key.episode,
            part=self.part,
            tile=self.tile,
            width=self.geometry.width,
            height=self.geometry.height,
            codec=self.codec,
            frames=self.frames,
            ended_ns=wall_ns,
            is_whole=is_whole,
            episode_return=last.episode_return if result is None else result.episode_return,
            length=None if result is None else result.length,
            outcome=None if result is None else result.outcome,
            return_source="frame" if result is None else "bus",
            step_seq=self._seqs.tolist(),
            step=self._steps.tolist(),
            t_ns=self._times.tolist(),
        )
        size = _write_sidecar(self._stem, sidecar) + self._path.stat().st_size
        self._path.replace(self._stem + VIDEO)
        return Video(self.key, self.part, size, wall_ns, None if result is None else result.episode_return)

    @property
    def last_return(self) -> float:
        """Return of the episode at the last frame, as its HUD said."""
        return 0.0 if self._last is None else self._last.episode_return

    def discard(self) -> None:
        """Remove what there is of it; also after an error of any other call."""
        with contextlib.suppress(Exception):  # a container that could not be written cannot be ended either
            self._close()
        with contextlib.suppress(OSError):
            self._path.unlink(missing_ok=True)
            Path(self._stem + SIDECAR + PART).unlink(missing_ok=True)

    def _close(self) -> None:
        container, self._container = self._container, None
        if container is not None:
            with _as_os_error(self._path):
                container.close()


def _encoder() -> str:
    """The best encoder that this build of PyAV has."""
    from av.codec import Codec
    from av.codec.codec import UnknownCodecError

    try:
        Codec(_X264, "w")
    except UnknownCodecError:
        return "mpeg4"
    return _X264


@contextlib.contextmanager
def _as_os_error(path: Path) -> Generator[None]:
    """FFmpeg's errors are a tree of their own; whoever records need not know it."""
    from av.error import FFmpegError

    try:
        yield
    except FFmpegError as error:
        raise OSError(f"{path.name}: {error}") from None


def _write_sidecar(stem: str, sidecar: Sidecar) -> int:
    data = msgspec.json.encode(sidecar)
    part = Path(stem + SIDECAR + PART)
    part.write_bytes(data)
    part.replace(stem + SIDECAR)
    return len(data)


# ---- finished ones ---------------------------------------------------------------------------------------


def set_result(directory: Path, video: Video, result: Result, *, is_whole: bool) -> None:
    """Write into a finished video's sidecar what its episode's record says. One that is gone stays gone."""
    stem = str(directory / video.name)
    try:
        sidecar = msgspec.json.decode(Path(stem + SIDECAR).read_bytes(), type=Sidecar)
    except (OSError, msgspec.DecodeError):
        return
    changed = msgspec.structs.replace(
        sidecar,
        episode_return=result.episode_return,
        length=result.length,
        outcome=result.outcome,
        return_source="bus",
        is_whole=is_whole,
    )
    with contextlib.suppress(OSError):
        _write_sidecar(stem, changed)


def remove(directory: Path, video: Video) -> None:
    """Remove a pair, the video first: a sidecar alone is swept. With the last one its stream's directory goes."""
    stem = directory / video.name
    for suffix in (VIDEO, SIDECAR):
        Path(f"{stem}{suffix}").unlink(missing_ok=True)
    with contextlib.suppress(OSError):
        stem.parent.rmdir()


def is_ours(name: str) -> bool:
    """Whether a file of a stream's directory has the name of a video, or of a sidecar, finished or not."""
    return _NAME.match(name) is not None


def sweep(directory: Path) -> list[str]:
    """Remove what a killed recorder has left; returns the names. For the one recorder of the directory."""
    removed: list[str] = []
    for folder in _folders(directory):
        for path in sorted(folder.iterdir()):
            if not is_ours(path.name):
                continue
            is_alone = path.suffix == SIDECAR and not path.with_suffix(VIDEO).exists()
            if is_alone or path.suffix == PART:
                with contextlib.suppress(OSError):  # not ours to remove; recording goes on beside it
                    path.unlink(missing_ok=True)
                    removed.append(f"{folder.name}/{path.name}")
        with contextlib.suppress(OSError):
            folder.rmdir()
    return removed


def scan(directory: Path) -> list[Video]:
    """The finished videos, oldest first. What has no readable sidecar is not ours to count, or to remove."""
    found: list[Video] = []
    for folder in _folders(directory):
        for path in folder.glob(f"*{SIDECAR}"):
            with contextlib.suppress(OSError, msgspec.DecodeError):
                data = path.read_bytes()
                known = msgspec.json.decode(data, type=_Known)
                size = len(data) + path.with_suffix(VIDEO).stat().st_size
                key = EpisodeKey(folder.name, known.env_index, known.episode)
                # NaN has no word in JSON; a return that is not waited for any more is one.
                settled = float("nan") if known.episode_return is None else known.episode_return
                video = Video(key, known.part, size, known.ended_ns, settled)
                if path.stem == video.name.rpartition("/")[2]:
                    found.append(video)
    return sorted(found, key=lambda video: (video.ended_ns, video.name))


def _folders(directory: Path) -> Iterator[Path]:
    try:
        yield from sorted(path for path in directory.iterdir() if path.is_dir() and os.access(path, os.R_OK | os.X_OK))
    except FileNotFoundError:
        return
