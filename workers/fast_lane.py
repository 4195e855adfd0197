"""FastLane: what a session shows to viewers on its host, and only while one of them holds a lease.

A training loop pays for one look at the clock per step. Every 10 ms the leases are looked at; while one lives, a frame
is rendered when it is due, in the environment's own thread and before anything else happens to it. Nobody here waits,
and whatever goes wrong is counted, told once, and no matter of the training's.
"""

import atexit
import contextlib
import json
import os
import sys
import time
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from runlane.config import log_ids
from runlane.config.errors import FastLaneError
from runlane.config.settings import FastLaneSettings
from runlane.config.telemetry_mode import TelemetryMode
from runlane.transport.fast_lane_writer import FastLaneConfig, FastLaneWriter
from runlane.transport.held_ring import RingAsker
from runlane.transport.lease import Wanted
from runlane.transport.log import log_event
from runlane.transport.ring_files import metrics_path, sweep_rings
from runlane.transport.ring_layout import RingInfo
from runlane.workers.shown_step import Standing
from runlane.workers.tiling import as_pixels

LOOK_NS = 10_000_000
RATE_NS = 500_000_000
METRICS_NS = 2_000_000_000
TOLD_NS = 10_000_000_000
RETRY_NS = 5_000_000_000
NEVER_NS = (1 << 63) - 1

Render = Callable[[], Any]
_LANES: "weakref.WeakSet[FastLane]" = weakref.WeakSet()


class Shown(Protocol):
    """The part of a session that a fast lane asks."""

    @property
    def env_steps(self) -> int:
        """Environment steps made so far."""
        ...

    @property
    def can_show(self) -> bool:
        """Whether it is a stream of its own: not closed, and no forked child that has recorded nothing yet."""
        ...

    def ring_info(self) -> RingInfo:
        """Whose ring it is."""
        ...

    def standing(self, env_index: int) -> Standing:
        """Where an environment stands after its newest step."""
        ...

    def rolling_return(self) -> float:
        """Mean return of the newest episodes."""
        ...

    @property
    def telemetry_mode(self) -> TelemetryMode:
        """The mode in force."""
        ...


class NoFastLane:
    """Shows nothing: for a session that is not attached, or has the fast lane switched off."""

    next_ns = NEVER_NS
    wants_tile = 0

    def is_due(self, now_ns: int) -> bool:  # noqa: ARG002
        """Never."""
        return False

    def show(
        self,
        render: Render,
        reward: Any = 0.0,
        env_index: int = 0,
        *,
        tiles: int = 0,
    ) -> None:
        """Render nothing."""

    def offer(self, frame: Any, *, reward: float, env_index: int) -> None:
        """Take nothing."""

    def postpone(self) -> None:
        """Nothing was due."""

    def set_mode(self, mode: TelemetryMode) -> None:
        """Nothing is shown in any."""

    def close(self) -> None:
        """Nothing is open."""

    mark_forked = close


class FastLane:
    """The ring of one session. For the environment's thread; times are monotonic nanoseconds.

    `next_ns` is when the next look is due: a loop compares it with the clock and calls nothing before. `wants_tile`
    is the environment, from 1, that a viewer has asked for alone; 0 for none.
    """

    __slots__ = ("__dict__", "__weakref__", "next_ns")  # read in every step: see `StreamWriter`

    def __init__(self, session: Shown, run_dir: Path, settings: FastLaneSettings) -> None:
        """Make the ring at the first look, so that viewers may ask for frames before there is one."""
        self.next_ns = 0 if settings.video_mode != "off" else NEVER_NS
        self.wants_tile = 0
        self.frames = self.errors = self.skipped = 0
        self._session, self.run_dir, self.settings = session, run_dir, settings
        self._writer: FastLaneWriter | RingAsker | None = None
        self._metrics_file: Path | None = None
        self._wanted: Wanted | None = None
        self._render_ns = self._due_ns = 0
        self._is_closed = self._is_off = False
        self._told_mode = session.telemetry_mode
        self._rate_hz = 0.0
        self._rate_since_ns = self._rate_steps = 0
        self._watched_steps = self._watched_since = 0  # steps made under a lease, and the count when it began
        self._fps = 0.0
        self._metrics_ns = self._told_ns = self._told_frames = 0
        self._fps_since_ns = self._fps_frames = 0
        _LANES.add(self)

    # ---- due ----

    def is_due(self, now_ns: int) -> bool:
        """Whether somebody wants a frame now. To be asked when `now_ns` has reached `next_ns`; sets the next one.

        Never raises: it is called inside a stranger's `env.step()`.
        """
        try:
            return self._look(now_ns)
        except Exception as error:
            self._fail("look", error, now_ns)
            return False

    def set_mode(self, mode: TelemetryMode) -> None:
        """The session is in this mode. Without UI nothing is rendered, whoever watches. From any thread.

        The next look takes it up, so that the figures are written by one thread alone.
        """
        self._is_off = mode is TelemetryMode.DURABLE_ONLY
        if not self._is_closed and self.settings.video_mode != "off":
            self.next_ns = 0

    def _rest(self, now_ns: int) -> None:
        """The mode is without UI: say so once, and look no more."""
        self.next_ns = NEVER_NS
        if not self._is_off:  # looked at after the store: it may have been switched on before it
            self.next_ns = 0
        if self._wanted is not None:
            self._wanted = None
            self._tell_watching(None, now_ns)
        self._tell_mode(now_ns)

    def _tell_mode(self, now_ns: int) -> None:
        mode = self._session.telemetry_mode
        if mode is not self._told_mode:
            self._told_mode = mode
            self._write_metrics(now_ns)

    def _look(self, now_ns: int) -> bool:
        if self._is_off:
            self._rest(now_ns)
            return False
        writer = self._writer or self._open(now_ns)
        if writer is None:
            return False
        wanted = writer.wanted(now_ns)
        self._measure(now_ns)
        self._tell_mode(now_ns)
        before, self._wanted = self._wanted, wanted
        if (wanted is None) != (before is None):
            self._tell_watching(wanted, now_ns)
        if wanted is None:
            self.next_ns = now_ns + LOOK_NS
            return False
        self.wants_tile = wanted.tile
        self._due_ns = now_ns
        if now_ns - self._metrics_ns >= METRICS_NS:
            self._write_metrics(now_ns)
        if now_ns - self._told_ns >= TOLD_NS:
            self._tell(now_ns)
        period_ns = int(1e9 / min(wanted.rate_hz, self.settings.max_fps))
        due_ns = self.next_ns + period_ns
        self.next_ns = due_ns if due_ns > now_ns else now_ns + period_ns  # what was missed is not made up for
        return True

    def _open(self, now_ns: int) -> FastLaneWriter | RingAsker | None:
        if self._is_closed or not self._session.can_show:
            self.next_ns = NEVER_NS if self._is_closed else 0
            return None
        try:
            if self.settings.only:  # there may be no graph whose processes sweep
                sweep_rings(self.run_dir)
            info = self._session.ring_info()
            self._writer = self._make_writer(info)
        except (FastLaneError, OSError) as error:
            self._fail("open", error, now_ns)
            return None
        atexit.register(self.close)  # a ring outlives nobody; one of a killed worker is swept by others
        util = sys.modules.get("multiprocessing.util")
        if util is not None:  # multiprocessing ends children without `atexit`
            util.Finalize(self, self.close, exitpriority=100)
        self._metrics_file = metrics_path(self.run_dir, info.run, self._writer.path.name)
        self._rate_since_ns, self._rate_steps = now_ns, self._session.env_steps
        self._write_metrics(now_ns)
        log_event(log_ids.FASTLANE_OPENED, ring=self._writer.path.name, run=info.run, worker=info.worker)
        return self._writer

    def _make_writer(self, info: RingInfo) -> FastLaneWriter | RingAsker:
        """The ring. Raises `FastLaneError` where it cannot be."""
        return FastLaneWriter(self.run_dir, info, FastLaneConfig(self.settings.slots))

    def _tell_watching(self, wanted: Wanted | None, now_ns: int) -> None:
        self._told_ns, self._told_frames = now_ns, self.frames
        self._fps_since_ns, self._fps_frames, self._fps = now_ns, self.frames, 0.0
        steps = self._session.env_steps
        if wanted is None:
            self._watched_steps += steps - self._watched_since
        self._watched_since = steps
        if wanted is None:
            log_event(log_ids.FASTLANE_UNWATCHED, frames=self.frames)
            self._write_metrics(now_ns)
        else:
            # Before our first render(): else pygame's SDL takes SIGTERM for itself, and who is watched cannot be ended.
            os.environ.setdefault("SDL_NO_SIGNAL_HANDLERS", "1")
            log_event(log_ids.FASTLANE_WATCHED, viewers=wanted.viewers, rate_hz=wanted.rate_hz)

    # ---- frames ----

    def offer(self, frame: Any, *, reward: float, env_index: int) -> None:
        """Show `frame`, an array or a function that makes one, if a viewer wants a frame now."""
        now_ns = time.monotonic_ns()
        if now_ns >= self.next_ns and self.is_due(now_ns):
            self.show(frame if callable(frame) else lambda: frame, reward=reward, env_index=env_index)

    def show(
        self,
        render: Render,
        reward: Any = 0.0,
        env_index: int = 0,
        *,
        tiles: int = 0,
    ) -> None:
        """Render a frame and publish it with the HUD of `env_index`. Only when `is_due` has just said so.

        `render` returns an array (height, width[, channels]) or None, when there is nothing to show. `tiles` is how
        many environments the frame shows, 0 for one. Never raises.
        """
        writer = self._writer
        if not isinstance(writer, FastLaneWriter):
            return
        started_ns = time.monotonic_ns()
        try:
            frame = render()
            if frame is None:
                self.skipped += 1
                return
            if self._is_off:  # by the flusher's thread, while we rendered
                return
            now_ns = time.monotonic_ns()
            standing = self._session.standing(env_index)
            hud = (
                standing.step_seq,
                time.time_ns(),
                now_ns,
                standing.place,
                env_index,
                tiles,
                float(reward),
                standing.episode_return,
                self._session.rolling_return(),
                self._rate_hz,
            )
            if frame.__class__ is not np.ndarray or frame.dtype != np.uint8 or not frame.flags.c_contiguous:
                frame = np.ascontiguousarray(as_pixels(frame))
            writer.publish(frame, hud)
            if writer.notes:
                log_event(log_ids.FASTLANE_SHORT_OF_MEMORY, slots=writer.metrics().slots, tried="; ".join(writer.notes))
                writer.notes.clear()
        except Exception as error:  # the environment's own renderer may raise anything
            self._fail("frame", error, self._due_ns)
            return
        self.frames += 1
        self._render_ns += now_ns - started_ns

    def postpone(self) -> None:
        """What was due can not be shown after this step; it is due at the next one."""
        if self.next_ns != NEVER_NS:
            self.next_ns = 0

    def _fail(self, where: str, error: Exception, now_ns: int) -> None:
        """Tell the first time, and try again in a while."""
        self.errors += 1
        self.next_ns = now_ns + RETRY_NS
        if self.errors == 1:
            log_event(log_ids.FASTLANE_WRITER_ERROR, where=where, error=f"{type(error).__name__}: {error}")

    # ---- figures ----

    def _measure(self, now_ns: int) -> None:
        passed_ns = now_ns - self._rate_since_ns
        if passed_ns >= RATE_NS:
            steps = self._session.env_steps
            self._rate_hz = (steps - self._rate_steps) * 1e9 / passed_ns
            self._rate_since_ns, self._rate_steps = now_ns, steps

    def _tell(self, now_ns: int) -> None:
        passed_s = (now_ns - self._told_ns) / 1e9
        figures = self.figures()
        log_event(
            log_ids.FASTLANE_WRITER_PUBLISH,
            frames=self.frames,
            bytes=figures["bytes"],
            fps=(self.frames - self._told_frames) / passed_s,
            render_ms=figures["render_ms"],
        )
        wanted = self._wanted
        depth = self.frames - wanted.seen if wanted is not None and wanted.seen else 0
        if wanted is not None and depth > max(self.settings.slots, wanted.rate_hz):
            log_event(log_ids.FASTLANE_QUEUE_DEPTH, depth=depth, viewers=wanted.viewers)
        self._told_ns, self._told_frames = now_ns, self.frames

    def figures(self) -> dict[str, Any]:
        """Figures so far; times in milliseconds, rates per second.

        A step without a frame was `unwatched`, or under a lease and before the next frame was due (`rate_capped`).
        """
        steps = self._session.env_steps
        watched = self._watched_steps + (steps - self._watched_since if self._wanted is not None else 0)
        found: dict[str, Any] = {
            "frames": self.frames,
            "telemetry_mode": self._session.telemetry_mode.value,
            "fps": self._fps,
            "skipped_unwatched": steps - watched,
            "skipped_rate_capped": max(0, watched - self.frames),
            "skipped_nothing_drawn": self.skipped,
            "errors": self.errors,
            "render_ms": self._render_ns / 1e6 / self.frames if self.frames else None,
            "step_rate_hz": self._rate_hz,
            "viewers": 0 if self._wanted is None else self._wanted.viewers,
            "rate_hz": 0.0 if self._wanted is None else self._wanted.rate_hz,
        }
        if self._writer is not None:
            metrics = self._writer.metrics()
            geometry = metrics.geometry
            found |= {
                "ring": self._writer.path.name,
                "bytes": metrics.bytes,
                "generation": metrics.generation,
                "slots": metrics.slots,
                "width": geometry.width if geometry else 0,
                "height": geometry.height if geometry else 0,
            }
        return found

    def _write_metrics(self, now_ns: int) -> None:
        """The figures for whoever scrapes them, whole or not at all. A full disk is no matter of ours."""
        self._metrics_ns = now_ns
        if now_ns > self._fps_since_ns:
            self._fps = (self.frames - self._fps_frames) * 1e9 / (now_ns - self._fps_since_ns)
            self._fps_since_ns, self._fps_frames = now_ns, self.frames
        if self._writer is None or self._metrics_file is None:
            return
        info = self._writer.info
        facts = {"run": info.run, "worker": info.worker, "stream": info.stream, "pid": os.getpid()}
        partial = self._metrics_file.with_name(f".{self._metrics_file.name}")
        with contextlib.suppress(OSError):
            partial.write_text(json.dumps({**facts, "t_ns": time.time_ns(), **self.figures()}) + "\n", "utf-8")
            partial.replace(self._metrics_file)

    # ---- the end ----

    def close(self) -> None:
        """Remove the ring. Again: nothing."""
        self._is_closed = True
        self.next_ns = NEVER_NS
        writer, self._writer = self._writer, None
        if writer is None:
            return
        writer.close()
        atexit.unregister(self.close)
        if self._metrics_file is not None:
            with contextlib.suppress(OSError):
                self._metrics_file.unlink(missing_ok=True)
        log_event(log_ids.FASTLANE_CLOSED, ring=writer.path.name, frames=self.frames)

    def mark_forked(self) -> None:
        """In a forked child: the ring is the parent's; ours is made at the next look."""
        writer, self._writer = self._writer, None
        if writer is not None:
            writer.forget()
            atexit.unregister(self.close)
        if self.next_ns != NEVER_NS:
            self.next_ns = 0
        self._wanted = None
        self.frames = self.errors = self.skipped = self._render_ns = 0


def _after_fork_in_child() -> None:
    for lane in list(_LANES):
        lane.mark_forked()


os.register_at_fork(after_in_child=_after_fork_in_child)
