"""FastLaneItem: the picture of one lane in a Qt Quick scene. It fetches the newest frame in the moment it is painted.

The node is the scene graph's own (`createImageNode`), which heeds its filter in the software renderer too, where a
`QSGSimpleTextureNode` does not. It owns its texture: otherwise memory grows by a frame with every frame.
"""

import time
from typing import cast

from PySide6.QtCore import Property, QObject, QRectF, Signal
from PySide6.QtGui import QImage
from PySide6.QtQml import qmlRegisterType
from PySide6.QtQuick import QQuickItem, QQuickWindow, QSGImageNode, QSGNode, QSGTexture
from shiboken6 import Shiboken

from runlane.gui.lane_tile import LaneTile

MODULE = "Runlane"
CRISP = 2.0  # from this magnification on, pixels stay squares


def fitted(frame_width: int, frame_height: int, width: float, height: float) -> QRectF:
    """Where a frame lies in an item: as large as can be, its shape kept, centred, on whole pixels."""
    scale = min(width / frame_width, height / frame_height)
    shown_width, shown_height = max(1, round(frame_width * scale)), max(1, round(frame_height * scale))
    return QRectF(int((width - shown_width) / 2), int((height - shown_height) / 2), shown_width, shown_height)


class FastLaneItem(QQuickItem):
    """Draws `lane`, a `LaneTile`, letterboxed. Nothing is drawn before its first frame."""

    lane_changed = Signal()

    def __init__(self, parent: QQuickItem | None = None) -> None:
        """As QML makes it."""
        super().__init__(parent)
        self.setFlag(QQuickItem.Flag.ItemHasContents, True)
        self._tile: LaneTile | None = None
        self._image: QImage | None = None  # what the texture was made of: kept until the next
        self._is_dirty = True

    def _get_lane(self) -> QObject | None:
        return self._tile

    def _set_lane(self, lane: QObject | None) -> None:
        if lane is self._tile:
            return
        if self._tile is not None:
            self._tile.paint_wanted.disconnect(self.update)
        self._tile = lane if isinstance(lane, LaneTile) else None
        if self._tile is not None:
            self._tile.paint_wanted.connect(self.update)
        self._is_dirty = True
        self.lane_changed.emit()
        self.update()

    lane = Property(QObject, _get_lane, _set_lane, notify=lane_changed)

    def updatePaintNode(self, old: QSGNode | None, _data: QQuickItem.UpdatePaintNodeData) -> QSGNode | None:  # type: ignore[override]  # noqa: N802
        """Fetch, and make a texture of what is new. Qt calls it, with the window's thread held."""
        tile, window = self._tile, self.window()
        if tile is None or self.width() < 1 or self.height() < 1:
            return old
        is_new = tile.consumer.fetch(time.monotonic_ns())
        image = tile.consumer.image
        if image is None:
            return old
        if old is None:
            node = window.createImageNode()
            node.setOwnsTexture(True)
            is_new = True
        else:
            node = _image_node(old)
        if is_new or self._is_dirty or image is not self._image:
            self._put(node, window, image)
        self._place(node, image, window.effectiveDevicePixelRatio())
        return cast("QSGNode", node)

    def _put(self, node: QSGImageNode, window: QQuickWindow, image: QImage) -> None:
        option = QQuickWindow.CreateTextureOption
        opaque = option(0) if image.hasAlphaChannel() else option.TextureIsOpaque
        texture = window.createTextureFromImage(image, opaque)
        node.setTexture(texture)
        _forget(texture)
        node.markDirty(QSGNode.DirtyStateBit.DirtyMaterial)
        self._image, self._is_dirty = image, False

    def _place(self, node: QSGImageNode, image: QImage, ratio: float) -> None:
        rect = fitted(image.width(), image.height(), self.width(), self.height())
        if node.rect() != rect:
            node.setRect(rect)
        source = QRectF(0, 0, image.width(), image.height())
        if node.sourceRect() != source:
            node.setSourceRect(source)
        scale = rect.width() * ratio / image.width()
        is_plain = scale >= CRISP or scale == 1.0
        filtering = QSGTexture.Filtering.Nearest if is_plain else QSGTexture.Filtering.Linear
        if node.filtering() != filtering:
            node.setFiltering(filtering)


def _image_node(node: QSGNode) -> QSGImageNode:
    """The node as what it is. No wrapper of it is kept from one paint to the next.

    Qt deletes nodes without telling Python, and what comes to lie at their address next, as a window, would be taken
    for them.
    """
    (address,) = Shiboken.getCppPointer(node)
    Shiboken.invalidate(node)
    return cast("QSGImageNode", Shiboken.wrapInstance(address, QSGImageNode))


def _forget(texture: QSGTexture) -> None:
    """Let go of what Python knows of a texture: it is the node's, which deletes it.

    PySide makes it a child of the window's Python object and never takes it off: 250 bytes more with every frame.
    """
    texture.setParent(None)
    Shiboken.invalidate(texture)


def register_item() -> None:
    """Make `FastLaneItem` known to QML as `Runlane 1.0`. Again: nothing new."""
    if not _types:
        _types.append(qmlRegisterType(FastLaneItem, MODULE, 1, 0, _qml_name("FastLaneItem")))


def _qml_name(name: str) -> bytes:
    """PySide's stubs ask for bytes, and PySide for a string."""
    return cast("bytes", name)


_types: list[int] = []
