"""LaneWall: which tiles a live wall has, which of them can be seen, and what the keyboard does to them. No widgets."""

import math
from collections.abc import Sequence
from typing import Literal, cast

from PySide6.QtCore import Property, QObject, Signal, Slot

from runlane.gui.lane_tile import LaneTile
from runlane.gui.presenters import LaneChoice

GridMode = Literal["auto", "1", "2x2", "3x2", "3x3", "4x4"]
GRIDS: dict[GridMode, tuple[int, int]] = {
    "auto": (0, 0),
    "1": (1, 1),
    "2x2": (2, 2),
    "3x2": (3, 2),
    "3x3": (3, 3),
    "4x4": (4, 4),
}
MAX_TILES = 16  # of a page
NONE = -1
FULL_RATE_HZ = 60.0
MANY_RATE_HZ = 30.0  # asked for each of more than nine
MANY = 9


def grid_shape(mode: GridMode, lanes: int) -> tuple[int, int]:
    """Columns and rows of a page. `auto` takes as few as hold the lanes, wider than high."""
    if mode != "auto":
        return GRIDS[mode]
    count = min(max(lanes, 1), MAX_TILES)
    columns = math.ceil(math.sqrt(count))
    return columns, math.ceil(count / columns)


class LaneWall(QObject):
    """The model behind `FastLaneView.qml`. Indices are into `tiles`; -1 is none. For the window's thread."""

    tiles_changed = Signal()
    layout_changed = Signal()
    current_changed = Signal()
    chosen = Signal(int)
    """Index of the tile that somebody went to or clicked; `current` also changes by itself as tiles come and go."""
    promoted_changed = Signal()
    paused_changed = Signal()
    visible_changed = Signal()
    snapshot_wanted = Signal(int)
    hovered = Signal(int)

    def __init__(self, parent: QObject | None = None, *, max_fps: float = FULL_RATE_HZ) -> None:
        """`max_fps` bounds what is asked of each worker."""
        super().__init__(parent)
        self._max_fps = max_fps
        self._tiles: list[LaneTile] = []
        self._mode: GridMode = "auto"
        self.current_index = 0
        """The tile the keyboard acts on. To be changed by `select`, as the others by their own."""
        self.promoted_index = NONE
        self.is_paused = False

    # ---- from Python ----

    @property
    def tiles(self) -> Sequence[LaneTile]:
        """All tiles, seen or not."""
        return self._tiles

    @property
    def current_tile(self) -> LaneTile | None:
        """The one the keyboard acts on."""
        return self._tiles[self.current_index] if self.current_index < len(self._tiles) else None

    @property
    def mode(self) -> GridMode:
        """The grid that was chosen."""
        return self._mode

    def set_lanes(self, lanes: Sequence[LaneChoice]) -> None:
        """Show these. A lane that was there keeps its tile, its picture and its counts."""
        known = {tile.choice.key: tile for tile in self._tiles}
        current = self.current_tile
        promoted = self._tiles[self.promoted_index] if self.promoted_index != NONE else None
        tiles: list[LaneTile] = []
        for lane in lanes:
            tile = known.pop(lane.key, None)
            if tile is None:
                tile = LaneTile(lane, self)
                tile.consumer.set_paused(self.is_paused)
            elif tile.choice != lane:
                tile.choice = lane
                tile.choice_changed.emit()
            tiles.append(tile)
        if tiles == self._tiles:
            return
        self._tiles = tiles
        self.current_index = (
            tiles.index(current) if current in tiles else min(self.current_index, max(0, len(tiles) - 1))
        )
        self.promoted_index = tiles.index(promoted) if promoted in tiles else NONE
        self.tiles_changed.emit()
        for changed in (self.layout_changed, self.current_changed, self.promoted_changed, self.visible_changed):
            changed.emit()
        for tile in known.values():
            tile.consumer.stop()
            tile.deleteLater()

    def set_mode(self, mode: GridMode) -> None:
        """Another grid. Raises `ValueError` for one there is not."""
        if mode not in GRIDS:
            raise ValueError(f"grid mode {mode!r}: choose one of {', '.join(GRIDS)}")
        if mode != self._mode:
            self._mode = mode
            self.layout_changed.emit()
            self.visible_changed.emit()

    def set_paused(self, is_paused: bool) -> None:
        """Hold all pictures, or let them go on."""
        if is_paused == self.is_paused:
            return
        self.is_paused = is_paused
        for tile in self._tiles:
            tile.consumer.set_paused(is_paused)
        self.paused_changed.emit()
        self.visible_changed.emit()

    def is_seen(self, index: int) -> bool:
        """Whether a tile is on the page."""
        if self.promoted_index != NONE:
            return index == self.promoted_index
        return self.first_index() <= index < self.first_index() + self._cells()

    def rate_hz(self) -> float:
        """What is asked of each worker that is seen."""
        seen = 1 if self.promoted_index != NONE else min(self._cells(), len(self._tiles))
        return min(self._max_fps, FULL_RATE_HZ if seen <= MANY else MANY_RATE_HZ)

    def shape(self) -> tuple[int, int]:
        """Columns and rows."""
        return grid_shape(self._mode, len(self._tiles))

    def _cells(self) -> int:
        columns, rows = self.shape()
        return columns * rows

    def first_index(self) -> int:
        """The first tile of the page."""
        return self.current_index // self._cells() * self._cells()

    # ---- for QML ----

    def _get_tiles(self) -> list[QObject]:
        return cast("list[QObject]", self._tiles)

    qmlTiles = Property(list, _get_tiles, notify=tiles_changed)  # noqa: N815  a name in QML
    columns = Property(int, lambda self: self.shape()[0], notify=layout_changed)
    rows = Property(int, lambda self: self.shape()[1], notify=layout_changed)
    first = Property(int, lambda self: self.first_index(), notify=layout_changed)
    current = Property(int, lambda self: self.current_index, notify=current_changed)
    promoted = Property(int, lambda self: self.promoted_index, notify=promoted_changed)
    paused = Property(bool, lambda self: self.is_paused, notify=paused_changed)

    @Slot(int)
    def select(self, index: int) -> None:
        """Put the keyboard on a tile; the page follows."""
        if not 0 <= index < len(self._tiles):
            return
        self.chosen.emit(index)
        if index == self.current_index:
            return
        first = self.first_index()
        self.current_index = index
        self.current_changed.emit()
        if self.first_index() != first:
            self.layout_changed.emit()
        if self.promoted_index != NONE:
            self.promote(index)
        elif self.first_index() != first:
            self.visible_changed.emit()

    @Slot(int, int)
    def move(self, right: int, down: int) -> None:
        """An arrow key: to the tile beside, or beneath; at full size to the next one."""
        columns = 1 if self.promoted_index != NONE else self.shape()[0]
        self.select(min(max(0, self.current_index + right + down * columns), max(0, len(self._tiles) - 1)))

    @Slot(int)
    def promote(self, index: int) -> None:
        """Show one tile at full size, and none of the others; -1: the grid again."""
        index = index if 0 <= index < len(self._tiles) else NONE
        if index == self.promoted_index:
            return
        self.promoted_index = index
        if index != NONE and index != self.current_index:
            self.current_index = index
            self.current_changed.emit()
            self.layout_changed.emit()
        self.promoted_changed.emit()
        self.visible_changed.emit()

    @Slot()
    def toggle(self) -> None:
        """Enter: to full size, and back."""
        self.promote(NONE if self.promoted_index != NONE else self.current_index)

    @Slot()
    def pause(self) -> None:
        """Space."""
        self.set_paused(not self.is_paused)

    @Slot()
    def snap(self) -> None:
        """S."""
        if self._tiles:
            self.snapshot_wanted.emit(self.current_index)

    @Slot(int)
    def hover(self, index: int) -> None:
        """The pointer is over a tile; -1: over none."""
        self.hovered.emit(index)
