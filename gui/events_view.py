"""EventsCard: what happened since the window was opened, newest first. A click goes to the run it is about."""

import time
from typing import Any

from PySide6.QtCore import QAbstractListModel, QModelIndex, QPersistentModelIndex, QPointF, QRect, QSize, Qt
from PySide6.QtGui import QColor, QPainter
from PySide6.QtWidgets import QListView, QStackedWidget, QStyle, QStyledItemDelegate, QStyleOptionViewItem, QWidget

from runlane.gui.alert_rules import Alert
from runlane.gui.controls_view import Card, Label
from runlane.gui.health_model import wall_of
from runlane.gui.live_telemetry_controller import LiveTelemetryController
from runlane.gui.tokens import Tokens

ROW_HEIGHT = 24
LEAST_ROWS = 4
SHOW_S = 0.25
ALERT_ROLE = Qt.ItemDataRole.UserRole

_Index = QModelIndex | QPersistentModelIndex


def alert_text(alert: Alert) -> str:
    """What a line says; how often, where it was more than once."""
    return alert.text + (f" \u00d7{alert.count}" if alert.count > 1 else "")


class _Alerts(QAbstractListModel):
    """Newest first. `now_s` goes with wall-clock times, which are made when a line is first shown."""

    def __init__(self, parent: QWidget) -> None:
        super().__init__(parent)
        self.alerts: list[tuple[Alert, str]] = []
        self._times: dict[int, str] = {}

    def show(self, alerts: list[Alert], now_s: float) -> None:
        times = {id(alert): self._times.get(id(alert)) or _clock(wall_of(alert.at_s, now_s)) for alert in alerts}
        self.beginResetModel()
        self._times = times
        self.alerts = [(alert, times[id(alert)]) for alert in reversed(alerts)]
        self.endResetModel()

    def rowCount(self, parent: _Index = QModelIndex()) -> int:  # noqa: B008, N802  Qt's
        return 0 if parent.isValid() else len(self.alerts)

    def data(self, index: _Index, role: int = Qt.ItemDataRole.DisplayRole) -> Any:
        alert, clock = self.alerts[index.row()]
        if role == ALERT_ROLE:
            return alert, clock
        if role in (
            Qt.ItemDataRole.DisplayRole,
            Qt.ItemDataRole.ToolTipRole,
            Qt.ItemDataRole.AccessibleTextRole,
        ):
            return f"{clock} {alert_text(alert)}"
        return None


class _AlertDelegate(QStyledItemDelegate):
    """Time, a dot in the colour of its level, text."""

    def __init__(self, tokens: Tokens, parent: QWidget) -> None:
        super().__init__(parent)
        self.tokens = tokens

    def sizeHint(self, option: QStyleOptionViewItem, index: _Index) -> QSize:  # noqa: ARG002, N802  Qt's name
        return QSize(120, ROW_HEIGHT)

    def paint(self, painter: QPainter, option: QStyleOptionViewItem, index: _Index) -> None:
        alert, clock = index.data(ALERT_ROLE)
        tokens, box = self.tokens, QRect(option.rect)
        state: QStyle.StateFlag = option.state
        painter.save()
        if state & (QStyle.StateFlag.State_Selected | QStyle.StateFlag.State_MouseOver) and alert.run:
            painter.setPen(Qt.PenStyle.NoPen)
            painter.setBrush(QColor(tokens.raised))
            painter.drawRoundedRect(box.adjusted(-2, 1, 2, -1), 6, 6)
        painter.setFont(option.font)
        metrics = painter.fontMetrics()
        width = metrics.horizontalAdvance("00:00:00")
        painter.setPen(QColor(tokens.faint))
        painter.drawText(box, Qt.AlignmentFlag.AlignVCenter, clock)
        painter.setRenderHint(QPainter.RenderHint.Antialiasing)
        painter.setPen(Qt.PenStyle.NoPen)
        painter.setBrush(QColor(tokens.faint if alert.level == "idle" else getattr(tokens, alert.level)))
        painter.drawEllipse(QPointF(box.left() + width + 12, box.center().y() + 1), 4, 4)
        text = box.adjusted(width + 24, 0, 0, 0)
        painter.setPen(QColor(tokens.text))
        shown = metrics.elidedText(alert_text(alert), Qt.TextElideMode.ElideRight, text.width())
        painter.drawText(text, Qt.AlignmentFlag.AlignVCenter, shown)
        painter.restore()


class EventsCard(Card):
    """Shows the model's alerts. `unseen` are those since `mark_seen`, for the bell."""

    def __init__(self, controller: LiveTelemetryController, tokens: Tokens, parent: QWidget | None = None) -> None:
        super().__init__("Events", parent)
        self._controller = controller
        self._rules = controller.health.alerts
        self._revision = -1
        self._next_s = 0.0
        self._count = Label("", "caption")
        self.header.addWidget(self._count)
        self._alerts = _Alerts(self)
        self._delegate = _AlertDelegate(tokens, self)
        self.list = QListView()
        self.list.setModel(self._alerts)
        self.list.setItemDelegate(self._delegate)
        self.list.setUniformItemSizes(True)
        self.list.setMouseTracking(True)
        self.list.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        self.list.setMinimumHeight(LEAST_ROWS * ROW_HEIGHT)
        self.list.setAccessibleName("Events, newest first")
        self.list.activated.connect(self._open)
        self.list.clicked.connect(self._open)
        empty = Label("Nothing has happened since this window was opened.", "muted")
        empty.setWordWrap(True)
        empty.setAlignment(Qt.AlignmentFlag.AlignTop)
        self._stack = QStackedWidget()
        self._stack.addWidget(empty)
        self._stack.addWidget(self.list)
        self.body.addWidget(self._stack, 1)
        controller.ticked.connect(self._on_tick)

    @property
    def unseen(self) -> int:
        """Alerts since somebody last looked."""
        return self._rules.unseen

    @property
    def texts(self) -> list[str]:
        """What is shown, newest first."""
        return [alert_text(alert) for alert, _ in self._alerts.alerts]

    def mark_seen(self) -> None:
        """Somebody has looked."""
        self._rules.mark_seen()
        self._show_count()

    def set_tokens(self, tokens: Tokens) -> None:
        """Draw in the colours of a scheme."""
        self._delegate.tokens = tokens
        self.list.viewport().update()

    def show_alerts(self, now_s: float) -> None:
        """Show what the rules hold, if it has changed."""
        if self._rules.revision == self._revision:
            return
        self._revision = self._rules.revision
        place = self.list.verticalScrollBar().value()
        self._alerts.show(list(self._rules.alerts), now_s)
        self.list.verticalScrollBar().setValue(place)
        self._stack.setCurrentIndex(1 if self._alerts.alerts else 0)
        self._show_count()

    def _on_tick(self, now_s: float) -> None:
        if self.isVisible() and now_s >= self._next_s:
            self._next_s = now_s + SHOW_S
            self.show_alerts(now_s)

    def _show_count(self) -> None:
        self._count.show_text(f"{self.unseen} new" if self.unseen else "", "warn" if self.unseen else "")

    def _open(self, index: QModelIndex) -> None:
        alert, _ = index.data(ALERT_ROLE)
        self.mark_seen()
        if alert.run:
            self._controller.select(alert.run)


def _clock(wall_s: float) -> str:
    return time.strftime("%H:%M:%S", time.localtime(wall_s))
