"""Columns of the live tables, and the filter that is typed above them. No Qt: rows in, texts and masks out.

reward>0 run:ppo episode=12 truncated        every word must hold; a word without a column is looked for in all texts
"""

import operator
import re
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from runlane.gui.column_ring import OUTCOMES, Rows
from runlane.gui.figures import clock_of_ns, short_number, whole_number
from runlane.transport.records import ABSENT, HUMAN, IS_RESET, TERMINATED, TRUNCATED

Mask = NDArray[np.bool_]
Value = int | float | str | None

_FLAGS = (
    (TERMINATED, "terminated"),
    (TRUNCATED, "truncated"),
    (IS_RESET, "reset"),
    (HUMAN, "human"),
    (ABSENT, "absent"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Column:
    """One column over a field of the rows. With `names` the field is a code, which stands for a text.

    `painted` is that text as it is shown, where more is said there than is searched and exported.
    """

    key: str
    title: str
    width: int  # device-independent pixels
    field: str
    tip: str = ""
    names: Callable[[int], str] | None = None
    painted: Callable[[int], str] | None = None
    text: Callable[[float], str] = short_number
    tone: Callable[[float], str] | None = None  # name of a token: the colour
    is_shown: bool = True
    is_faint: bool = False
    size_field: str = ""  # how many items the value has; of several the first is shown

    @property
    def is_text(self) -> bool:
        """Whether it is left-aligned, and compared as text."""
        return self.names is not None

    def texts(self, rows: Rows) -> list[str]:
        """What is painted, one per row."""
        values = rows[self.field].tolist()
        names = self.painted or self.names
        if names is not None:
            return [names(value) for value in values]
        texts = [self.text(value) for value in values]
        if self.size_field:
            sizes = rows[self.size_field].tolist()
            texts = [f"{text} …({size})" if size > 1 else text for text, size in zip(texts, sizes, strict=True)]
        return texts

    def tones(self, rows: Rows) -> list[str]:
        """Tokens to paint them in; empty for none of its own."""
        if self.tone is None:
            return []
        return [self.tone(value) for value in rows[self.field].tolist()]

    def exported(self, rows: Rows) -> list[Value]:
        """Values for a file: numbers as they are, None for NaN."""
        values = rows[self.field].tolist()
        if self.names is not None:
            return [self.names(value) for value in values]
        return [None if value != value else value for value in values]  # NaN differs from itself

    def sort_keys(self, rows: Rows) -> NDArray[np.float64]:
        """Numbers in whose order the rows sort; NaN stands for nothing."""
        values = rows[self.field]
        if self.names is None:
            return values.astype(np.float64)
        codes, where = np.unique(values, return_inverse=True)
        names = [self.names(code).casefold() for code in codes.tolist()]
        rank = {name: number for number, name in enumerate(sorted(set(names)))}
        return np.array([rank[name] for name in names], np.float64)[where] if names else np.zeros(0)

    def having(self, rows: Rows, wanted: Callable[[str], bool]) -> Mask:
        """Rows whose text is wanted; each text is looked at once."""
        codes, where = np.unique(rows[self.field], return_inverse=True)
        found = [wanted(text) for text in (map(self.names or str, codes.tolist()))]
        return np.array(found, np.bool_)[where] if found else np.zeros(0, np.bool_)


Names = Callable[[int], str]


def step_columns(run: Names, run_id: Names, worker: Names, painted_run: Names | None = None) -> list[Column]:
    """Columns of the steps; the functions name a row's source."""
    return [
        Column(key="seq", title="seq", width=88, field="seq", text=_whole, is_faint=True, tip="Place in the stream"),
        Column(key="time", title="time", width=116, field="t_ns", text=_clock, is_faint=True, tip="Local time"),
        *_who(run, run_id, worker, painted_run),
        Column(key="env", title="env", width=52, field="env_index", text=_whole, tip="Environment of the worker"),
        Column(key="episode", title="episode", width=78, field="episode", text=_whole),
        Column(key="step", title="step", width=64, field="step", text=_whole, tip="Step of the episode; 0 is a reset"),
        Column(key="action", title="action", width=92, field="action", size_field="action_size"),
        Column(key="reward", title="reward", width=80, field="reward", text=_signed, tone=_good_or_bad),
        Column(key="return", title="return", width=80, field="return", tip="Sum of rewards so far in the episode"),
        Column(key="done", title="done", width=110, field="flags", names=_flag_names),
    ]


def episode_columns(run: Names, run_id: Names, worker: Names, painted_run: Names | None = None) -> list[Column]:
    """Columns of the episodes."""
    return [
        Column(key="seq", title="seq", width=88, field="seq", text=_whole, is_faint=True, is_shown=False),
        Column(key="time", title="ended", width=116, field="t_ns", text=_clock, is_faint=True, tip="Local time"),
        *_who(run, run_id, worker, painted_run),
        Column(key="env", title="env", width=52, field="env_index", text=_whole, tip="Environment of the worker"),
        Column(key="episode", title="episode", width=78, field="episode", text=_whole),
        Column(key="return", title="return", width=92, field="return", tone=_good_or_bad),
        Column(key="length", title="length", width=78, field="length", text=_whole, tip="Steps"),
        Column(key="duration", title="seconds", width=80, field="duration_s"),
        Column(key="outcome", title="outcome", width=110, field="outcome", names=_outcome_name),
    ]


def _who(run: Names, run_id: Names, worker: Names, painted_run: Names | None) -> list[Column]:
    return [
        Column(key="run", title="run", width=150, field="source", names=run, painted=painted_run),
        Column(key="run_id", title="run id", width=220, field="source", names=run_id, is_shown=False),
        Column(key="worker", title="worker", width=110, field="source", names=worker, is_shown=False),
    ]


def _whole(value: float) -> str:
    return whole_number(int(value))


def _clock(value: float) -> str:
    return clock_of_ns(int(value))


def _signed(value: float) -> str:
    return f"+{short_number(value)}" if value > 0 else short_number(value)


def _good_or_bad(value: float) -> str:
    return "good" if value > 0 else "bad" if value < 0 else ""


def _flag_names(flags: int) -> str:
    return " ".join(name for bit, name in _FLAGS if flags & bit)


def _outcome_name(code: int) -> str:
    return OUTCOMES[code] if code < len(OUTCOMES) else ""


# ---- the filter ----

_WORD = re.compile(r'(?:[^\s"]|"[^"]*"?)+')
_CONDITION = re.compile(r"^([A-Za-z_]+)(>=|<=|!=|=|>|<|:)(.+)$")
_COMPARE = {
    ">": operator.gt,
    "<": operator.lt,
    ">=": operator.ge,
    "<=": operator.le,
    "=": operator.eq,
    "!=": operator.ne,
}


@dataclass(frozen=True, slots=True)
class RowFilter:
    """What was typed, understood as far as it could be. `problem` says what could not; those words are left out."""

    tests: tuple[Callable[[Rows], Mask], ...] = ()
    problem: str = ""

    def __bool__(self) -> bool:
        return bool(self.tests)

    def mask(self, rows: Rows) -> Mask:
        """Rows for which every word holds."""
        found = np.ones(len(rows), np.bool_)
        for test in self.tests:
            found &= test(rows)
        return found


@dataclass(slots=True)
class _Words:
    columns: Sequence[Column]
    problems: list[str] = field(default_factory=list[str])

    def test(self, word: str) -> Callable[[Rows], Mask] | None:
        condition = _CONDITION.match(word.replace('"', ""))
        if condition is None:
            return self._anywhere(word.replace('"', "").casefold())
        key, sign, wanted = condition.groups()
        column = next((column for column in self.columns if column.key == key.lower()), None)
        if column is None:
            known = ", ".join(column.key for column in self.columns)
            self.problems.append(f"no column {key!r}; there are {known}")
            return None
        return self._text(column, sign, wanted) if column.is_text else self._number(column, sign, wanted)

    def _anywhere(self, wanted: str) -> Callable[[Rows], Mask]:
        texts = [column for column in self.columns if column.is_text]

        def test(rows: Rows) -> Mask:
            found = np.zeros(len(rows), np.bool_)
            for column in texts:
                found |= column.having(rows, lambda text: wanted in text.casefold())
            return found

        return test

    def _text(self, column: Column, sign: str, wanted: str) -> Callable[[Rows], Mask] | None:
        folded = wanted.casefold()
        if sign == ":":
            return lambda rows: column.having(rows, lambda text: folded in text.casefold())
        if sign in ("=", "!="):
            is_equal = sign == "="
            return lambda rows: column.having(rows, lambda text: (text.casefold() == folded) == is_equal)
        self.problems.append(f"{column.key} is text; write {column.key}:{wanted} or {column.key}={wanted}")
        return None

    def _number(self, column: Column, sign: str, wanted: str) -> Callable[[Rows], Mask] | None:
        try:
            number = _instant(wanted) if column.field == "t_ns" and ":" in wanted else float(wanted)
        except ValueError:
            self.problems.append(f"{wanted!r} in {column.key} is no number")
            return None
        compare = _COMPARE["=" if sign == ":" else sign]

        def test(rows: Rows) -> Mask:
            found: Mask = compare(rows[column.field], number)
            return found

        return test


def _instant(text: str) -> float:
    """`12:41` or `12:41:07` of today, in nanoseconds since 1970."""
    form = "%H:%M:%S" if text.count(":") == 2 else "%H:%M"
    day = time.localtime()
    clock = time.strptime(text, form)
    seconds = time.mktime((day.tm_year, day.tm_mon, day.tm_mday, clock.tm_hour, clock.tm_min, clock.tm_sec, 0, 0, -1))
    return seconds * 1e9


def parse_filter(text: str, columns: Sequence[Column]) -> RowFilter:
    """Understand what was typed; never raises."""
    words = _Words(columns)
    tests = [test for word in _WORD.findall(text) if (test := words.test(word)) is not None]
    return RowFilter(tuple(tests), "; ".join(words.problems))
