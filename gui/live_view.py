"""LiveView: the page of the live wall, with the buttons over it. It shows whatever workers there are."""

import re
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

from PySide6.QtCore import QStandardPaths, Qt, QTimer, Signal
from PySide6.QtGui import QGuiApplication, QImage
from PySide6.QtWidgets import QHBoxLayout, QVBoxLayout, QWidget

from runlane.gui.controls_view import IconButton, Label, Segments
from runlane.gui.fast_lane_consumer import LaneState
from runlane.gui.fast_lane_tab import FastLaneTab
from runlane.gui.lane_wall import NONE, GridMode
from runlane.gui.presenters import LaneChoice, beside_their_run, lanes_of
from runlane.gui.tokens import Tokens
from runlane.transport.ring_files import FoundRing

NOTE_MS = 6000
TITLE = "Live wall"
_GRIDS: tuple[tuple[GridMode, str, str], ...] = (
    ("auto", "Auto", "As many tiles as there are agents"),
    ("1", "1", "One tile"),
    ("2x2", "2\u00d72", "Four tiles"),
    ("3x2", "3\u00d72", "Six tiles"),
    ("3x3", "3\u00d73", "Nine tiles"),
    ("4x4", "4\u00d74", "Sixteen tiles"),
)
_ENVS = (
    ("all", "All envs", "Show all environments of this worker together"),
    ("one", "One env", "Show one environment of this worker; again: the next"),
)


class LiveView(QWidget):
    """Header and wall. Lanes come as their rings are found, and go when their place is taken, or long after the end."""

    selected_lane = Signal(str, str)
    """Run and worker of the tile that somebody went to or clicked."""
    _saved = Signal(object, str, bool)
    snapshot_taken = Signal(object, str)
    """QImage, and where it was saved; empty where that failed."""

    def __init__(
        self,
        run_dir: Path,
        tokens: Tokens,
        max_fps: float,
        parent: QWidget | None = None,
        *,
        pictures: Path | None = None,
    ) -> None:
        """`max_fps` bounds what is asked of each worker. Snapshots go to `pictures`; None: to the user's pictures."""
        super().__init__(parent)
        self.setObjectName("liveView")
        self._tokens, self._pictures = tokens, pictures
        self._lanes: list[LaneChoice] = []
        self._savers: list[threading.Thread] = []
        self._saved.connect(self._on_saved)
        self._env = 0
        self.tab = FastLaneTab(run_dir, tokens, max_fps=max_fps, parent=self)
        self._title = Label(TITLE, "title")
        self._note = Label("", "caption", is_elided=True)
        self._note_timer = QTimer(self, singleShot=True, interval=NOTE_MS)
        self._note_timer.timeout.connect(self._forget_note)
        self._envs = Segments(_ENVS, "Environments of the selected worker", self)
        self._grids = Segments(_GRIDS, "Grid", self)
        self._pause = IconButton("pause", "Hold the pictures (Space)", tokens, self)
        self._snap = IconButton("camera", "Keep the picture of the selected tile (S)", tokens, self)
        self._full = IconButton("full", "Show the selected tile alone (Enter)", tokens, self)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.setSpacing(8)
        layout.addLayout(self._header())
        layout.addWidget(self.tab, 1)
        self._connect()
        self._set_state()

    def _header(self) -> QHBoxLayout:
        row = QHBoxLayout()
        row.setSpacing(8)
        row.addWidget(self._title)
        row.addWidget(self._note, 1)
        for widget in (self._envs, self._grids, self._pause, self._snap, self._full):
            row.addWidget(widget)
        self._grids.choose("auto")
        for button in (self._pause, self._full):
            button.setCheckable(True)
        return row

    def _connect(self) -> None:
        self._envs.chosen.connect(self._on_env)
        self._grids.chosen.connect(self._on_grid)
        self._pause.toggled.connect(self._on_pause)
        self._snap.clicked.connect(self.take_snapshot)
        self._full.clicked.connect(self._on_full)
        self.tab.rings_found.connect(self._on_rings)
        self.tab.selected.connect(self._on_selected)
        self.tab.chosen.connect(self._on_chosen)
        self.tab.promoted.connect(self._on_promoted)
        self.tab.paused.connect(self._pause.setChecked)
        self.tab.snapshot_taken.connect(self._on_snapshot)

    # ---- what is shown ----

    @property
    def current(self) -> int:
        """Index of the tile the keyboard is on."""
        return self.tab.wall.current_index

    @property
    def lanes(self) -> list[LaneChoice]:
        """What is shown, in order."""
        return list(self._lanes)

    def set_grid(self, mode: GridMode) -> None:
        """Another grid, and no tile at full size."""
        self._grids.choose(mode)
        self.tab.promote(None)
        self.tab.set_grid(mode)

    def set_tokens(self, tokens: Tokens) -> None:
        """Another look; what the style sheet paints has it already."""
        self._tokens = tokens
        self.tab.set_tokens(tokens)
        for button in (self._pause, self._snap, self._full):
            button.set_tokens(tokens)

    def figures(self) -> dict[str, Any]:
        """As of `FastLaneTab.figures`."""
        return self.tab.figures()

    def snapshot_of(self, run: str) -> bool:
        """Keep the next picture of a run's lane; False where there is no such lane, or it shows nothing."""
        for index, lane in enumerate(self._lanes):
            tile = self.tab.wall.tiles[index]
            if lane.run == run and tile.consumer.is_attached and not tile.is_dark:
                self.select(*lane.key)
                consumer = tile.consumer
                consumer.frame_ready.connect(self._on_next_frame, Qt.ConnectionType.SingleShotConnection)
                return True
        return False

    def _on_next_frame(self, image: QImage, _shown: object) -> None:
        self._on_snapshot(image)

    def take_snapshot(self) -> QImage | None:
        """Save the picture of the selected tile, put it on the clipboard and say so; None before its first frame."""
        return self.tab.snapshot(self.current)

    def set_active(self, is_active: bool) -> None:
        """Whether this page is in front: without, no leases."""
        self.tab.set_active(is_active)

    def select(self, run: str, worker: str) -> bool:
        """Put the keyboard on the tile of a lane, as another page chose it; False when it is not on the wall."""
        for index, lane in enumerate(self._lanes):
            if lane.key == (run, worker):
                self.tab.wall.select(index)
                return True
        return False

    def describe(self, subtitle_of: Callable[[str], str], is_dark: Callable[[str], bool]) -> None:
        """Say under each name what `subtitle_of` the run says, where it says anything: rings know no environment.

        `is_dark` says which runs render nothing at all, so that nobody waits for their frames.
        """
        lanes = [replace(lane, subtitle=subtitle_of(lane.run) or lane.subtitle) for lane in self._lanes]
        if lanes != self._lanes:
            self._lanes = lanes
            self.tab.set_lanes(lanes)
        for tile in self.tab.wall.tiles:
            tile.is_dark = is_dark(tile.choice.run)

    def cleanup(self) -> None:
        """Stop, and give everything back. Again: nothing."""
        self._note_timer.stop()
        self.tab.cleanup()
        for saver in self._savers:
            saver.join()
        self._savers = []

    def _on_grid(self, mode: str) -> None:
        self.set_grid(cast("GridMode", mode))

    def _on_env(self, key: str) -> None:
        self._show_env(0 if key == "all" else self._env + 1)

    def _on_full(self, is_checked: bool) -> None:
        self.tab.promote(self.current if is_checked else None)

    def _on_pause(self, is_checked: bool) -> None:
        self.tab.set_paused(is_checked)
        self._pause.set_icon("play" if is_checked else "pause", self._tokens)

    def _on_rings(self, rings: list[FoundRing]) -> None:
        found = list({lane.key: lane for lane in lanes_of(ring.info for ring in rings)}.values())
        self._lanes = merged(self._lanes, found, self._ended())
        self.tab.set_lanes(self._lanes)
        self._set_state()

    def _ended(self) -> set[tuple[str, str]]:
        now_ns = time.monotonic_ns()
        return {tile.choice.key for tile in self.tab.wall.tiles if tile.consumer.state(now_ns) is LaneState.ENDED}

    def _on_selected(self, _index: int) -> None:
        self._env = 0
        self._set_state()

    def _on_chosen(self, index: int) -> None:
        if index < len(self._lanes):
            self.selected_lane.emit(*self._lanes[index].key)

    def _on_promoted(self, index: int) -> None:
        self._full.setChecked(index != NONE)
        self._title.show_text(self._lanes[index].name if 0 <= index < len(self._lanes) else TITLE)

    def _on_snapshot(self, image: QImage) -> None:
        lane = self._lanes[self.current] if self.current < len(self._lanes) else None
        name = re.sub(r"[^\w.-]+", "_", "snapshot" if lane is None else lane.name)
        path = self._picture_dir() / f"{name}-{time.strftime('%Y%m%d-%H%M%S')}.png"
        QGuiApplication.clipboard().setImage(image)
        # To compress a large picture takes a tenth of a second; the event loop has none to give.
        saver = threading.Thread(target=self._save, args=(image, path), name="runlane-picture", daemon=True)
        self._savers = [running for running in self._savers if running.is_alive()] + [saver]
        saver.start()

    def _save(self, image: QImage, path: Path) -> None:
        """In a thread of its own."""
        self._saved.emit(image, str(path), image.save(str(path)))

    def _on_saved(self, image: QImage, path: str, is_saved: bool) -> None:
        self._note.show_text(f"Saved {path}" if is_saved else f"On the clipboard; {path} could not be written")
        self._note_timer.start()
        self.snapshot_taken.emit(image, path if is_saved else "")

    def _picture_dir(self) -> Path:
        known = QStandardPaths.writableLocation(QStandardPaths.StandardLocation.PicturesLocation)
        found = self._pictures or Path(known)
        return found if found.is_dir() else Path.cwd()

    def _forget_note(self) -> None:
        self._note.show_text("")

    def show_next_env(self) -> None:
        """Of a vector environment, show the next of its environments alone; after the last one the first."""
        self._show_env(self._env + 1)

    def _show_env(self, tile: int) -> None:
        lane = self._lanes[self.current] if self.current < len(self._lanes) else None
        if lane is None:
            return
        self._env = 0 if tile == 0 else (tile - 1) % lane.env_count + 1
        self.tab.promote_env(self.current, self._env)
        self._set_state()

    def _set_state(self) -> None:
        lane = self._lanes[self.current] if self.current < len(self._lanes) else None
        for button in (self._pause, self._snap, self._full):
            button.setEnabled(lane is not None)
        self._envs.setVisible(lane is not None and lane.env_count > 1)
        self._envs.choose("one" if self._env else "all")


def merged(shown: list[LaneChoice], found: list[LaneChoice], ended: set[tuple[str, str]]) -> list[LaneChoice]:
    """The lanes to show next: each keeps its place, a restarted worker takes its old one, the ended go for others.

    `shown` are there now, `found` have a ring; those without one stay, to say that they are missed, until they have
    `ended` and others are there.
    """
    present = {lane.key: lane for lane in found}
    new = [lane for lane in found if lane.key not in {old.key for old in shown}]
    lanes: list[LaneChoice] = []
    for old in shown:
        if old.key in present:
            lanes.append(present[old.key])
            continue
        heir = next((lane for lane in new if lane.title == old.title and lane.worker == old.worker), None)
        if heir is not None:
            new.remove(heir)
            lanes.append(heir)
        elif old.key not in ended or not found:
            lanes.append(old)
    return beside_their_run(lanes, new)
