"""What can be done to a run, as a menu and behind the buttons of its panel; each dangerous thing asks first."""

from PySide6.QtCore import QUrl
from PySide6.QtGui import QDesktopServices, QGuiApplication
from PySide6.QtWidgets import QMenu, QWidget

from runlane.gui import icons
from runlane.gui.confirm_view import ConfirmDialog, confirm
from runlane.gui.run_actions import RunActions
from runlane.gui.run_entry import RunEntry
from runlane.gui.run_text import count_text
from runlane.gui.tokens import Tokens


def ask_stop(parent: QWidget, actions: RunActions, entry: RunEntry) -> ConfirmDialog:
    """Stop a run, after a question."""
    lines = ["Its workers get SIGINT, as by Ctrl-C, and end by themselves. Everything they logged is kept."]
    return confirm(parent, f"Stop {entry.title}?", lines, "Stop", lambda: actions.stop(entry.run))


def ask_kill(parent: QWidget, actions: RunActions, entry: RunEntry) -> ConfirmDialog:
    """Kill a run, after a question."""
    lines = [
        "Its workers get SIGKILL and end at once: a checkpoint that is being written may be lost.",
        "Every step whose log call returned is kept.",
    ]
    return confirm(parent, f"Kill {entry.title}?", lines, "Kill", lambda: actions.kill(entry.run))


def ask_delete(parent: QWidget, actions: RunActions, entry: RunEntry) -> ConfirmDialog:
    """Delete a run, after a question."""
    lost = f"{count_text(entry.steps)} steps, {count_text(entry.episodes)} episodes, their metrics, logs and videos"
    lines = [f"{lost} go for good. There is no way back.", f"Run {entry.run}"]
    return confirm(parent, f"Delete {entry.title}?", lines, "Delete for good", lambda: actions.delete(entry.run))


def copy_text(text: str) -> None:
    """Put a text on the clipboard."""
    QGuiApplication.clipboard().setText(text)


def open_data_folder(actions: RunActions, run: str) -> None:
    """Show the graph's data directory in the desktop's file manager; says so when there is none."""
    if not QDesktopServices.openUrl(QUrl.fromLocalFile(str(actions.data_dir))):
        actions.said.emit(run, f"no program here opens folders; the data lies in {actions.data_dir}", "warn")


def run_menu(parent: QWidget, actions: RunActions, entry: RunEntry, tokens: Tokens) -> QMenu:
    """The context menu of a run. What cannot be done to it now is greyed."""
    menu = QMenu(parent)
    ended = not entry.is_alive
    items = (
        ("copy", "Copy id", lambda: copy_text(entry.run), True),
        ("tag", "Copy name", lambda: copy_text(entry.title), bool(entry.name)),
        ("folder", "Open data folder", lambda: open_data_folder(actions, entry.run), True),
        None,
        ("stop", "Stop…", lambda: ask_stop(parent, actions, entry), entry.is_alive),
        ("kill", "Kill…", lambda: ask_kill(parent, actions, entry), entry.is_alive),
        None,
        ("delete", "Delete…", lambda: ask_delete(parent, actions, entry), ended),
    )
    for item in items:
        if item is None:
            menu.addSeparator()
            continue
        icon_name, text, action, is_enabled = item
        made = menu.addAction(icons.icon(icon_name, tokens.text if is_enabled else tokens.faint), text)
        made.triggered.connect(lambda _checked=False, action=action: action())
        made.setEnabled(is_enabled)
    return menu
