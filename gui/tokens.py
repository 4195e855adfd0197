"""Every colour of the window, once for dark and once for light. No Qt: QML, style sheet and plots read it."""

from dataclasses import asdict, dataclass
from typing import Literal

Scheme = Literal["dark", "light"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Tokens:
    """One look. Colours are `#rrggbb`; `series` are the colours of runs in plots, in order."""

    scheme: Scheme
    window: str  # behind everything
    rail: str  # navigation, bars
    card: str
    raised: str  # buttons, fields, hovered rows
    stripe: str  # every other row of a table
    border: str
    strong_border: str
    text: str
    muted: str
    faint: str
    accent: str
    accent_text: str  # on the accent
    selected: str  # background of what is selected
    good: str
    warn: str
    bad: str
    human: str
    picture: str  # behind frames
    overlay: str  # behind text over a frame, with alpha as #aarrggbb
    grid: str  # lines of a plot
    series: tuple[str, ...]

    def as_qml(self) -> dict[str, object]:
        """The tokens as a map for QML, `series` as a list."""
        return {**asdict(self), "series": list(self.series)}


DARK = Tokens(
    scheme="dark",
    window="#0c1016",
    rail="#11161e",
    card="#171e28",
    raised="#1e2733",
    stripe="#1b2430",
    border="#263140",
    strong_border="#3a4859",
    text="#eef2f6",
    muted="#97a4b4",
    faint="#7d8a9a",
    accent="#4cb8ff",
    accent_text="#06121d",
    selected="#10324a",
    good="#3fb950",
    warn="#e3a414",
    bad="#f8564c",
    human="#b18cff",
    picture="#05070a",
    overlay="#b0080b10",
    grid="#222c39",
    series=("#4cb8ff", "#ffa94d", "#38d996", "#ff85b3", "#b794f6", "#f2dc4b", "#5eead4", "#ff7b72"),
)

LIGHT = Tokens(
    scheme="light",
    window="#f3f5f8",
    rail="#ffffff",
    card="#ffffff",
    raised="#eef2f6",
    stripe="#f6f8fa",
    border="#d9e0e8",
    strong_border="#b6c2cf",
    text="#17202b",
    muted="#556273",
    faint="#6a7686",
    accent="#0969c8",
    accent_text="#ffffff",
    selected="#dcedfb",
    good="#157a33",
    warn="#925f00",
    bad="#c9271c",
    human="#7040c9",
    picture="#0b0e13",
    overlay="#b0080b10",
    grid="#e5eaf0",
    series=("#0969c8", "#bb5a00", "#0b7f52", "#bf2a6b", "#6b3fc4", "#857000", "#0f766e", "#c9271c"),
)


def tokens_of(scheme: Scheme) -> Tokens:
    """The look of a scheme."""
    return DARK if scheme == "dark" else LIGHT
