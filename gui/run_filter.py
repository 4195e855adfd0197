"""RunFilter: which runs the list shows: those of a group of states that a search finds. QtCore alone."""

from collections.abc import Callable

from PySide6.QtCore import QModelIndex, QObject, QPersistentModelIndex, QSortFilterProxyModel

from runlane.gui.run_entry import DONE, FAILED, RunEntry
from runlane.gui.run_model import RunModel
from runlane.transport.records import ALIVE

GROUPS: dict[str, frozenset[str]] = {"live": frozenset(ALIVE), "done": DONE, "failed": FAILED}
KEYS: dict[str, Callable[[RunEntry], str]] = {
    "state": lambda entry: entry.state,
    "env": lambda entry: entry.env_id,
    "algo": lambda entry: entry.algo,
    "name": lambda entry: entry.name,
    "id": lambda entry: entry.run,
    "host": lambda entry: entry.host,
    "tag": lambda entry: " ".join(entry.tags),
    "mode": lambda entry: entry.telemetry_mode,
}


class RunFilter(QSortFilterProxyModel):
    """Words are all to be found, anywhere; `state:failed`, `env:Pong` and so on look at one thing (`KEYS`)."""

    def __init__(self, model: RunModel, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self._model = model
        self._group: frozenset[str] | None = None
        self._words: list[tuple[str, str]] = []
        self.setSourceModel(model)

    def set_group(self, group: str) -> None:
        """`live`, `done`, `failed`; anything else is all."""
        wanted = GROUPS.get(group)
        if wanted != self._group:
            self.beginFilterChange()
            self._group = wanted
            self.endFilterChange(QSortFilterProxyModel.Direction.Rows)

    def set_text(self, text: str) -> None:
        """Search."""
        words = [_parsed(word) for word in text.lower().split()]
        if words != self._words:
            self.beginFilterChange()
            self._words = words
            self.endFilterChange(QSortFilterProxyModel.Direction.Rows)

    def accepts(self, entry: RunEntry) -> bool:
        """Whether this run is shown."""
        if self._group is not None and entry.state not in self._group:
            return False
        for key, word in self._words:
            if key:
                if word not in KEYS[key](entry).lower():
                    return False
            elif word not in entry.search_text and not entry.state.startswith(word):
                return False
        return True

    def filterAcceptsRow(  # noqa: N802  Qt's name
        self,
        source_row: int,
        source_parent: QModelIndex | QPersistentModelIndex,  # noqa: ARG002
    ) -> bool:
        """Qt asks this for every row that is new or has changed."""
        return self.accepts(self._model.at(source_row))

    def entry(self, row: int) -> RunEntry:
        """The run of a row of the filtered list."""
        return self._model.at(self.mapToSource(self.index(row, 0)).row())


def _parsed(word: str) -> tuple[str, str]:
    key, colon, value = word.partition(":")
    return (key, value) if colon and key in KEYS else ("", word)
