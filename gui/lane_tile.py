"""LaneTile: what one tile of the live wall says, as strings that QML binds to. They change a few times a second."""

import math

from PySide6.QtCore import Property, QObject, Signal

from runlane.gui.fast_lane_consumer import FastLaneConsumer, LaneState
from runlane.gui.presenters import LaneChoice
from runlane.transport.ring_layout import Hud

NOTHING = "-"
GOOD_MS = 50.0  # a picture not older than this is live to the eye
LATE_MS = 500.0
_TONES = {
    LaneState.WAITING: "faint",
    LaneState.LIVE: "good",
    LaneState.PAUSED: "accent",
    LaneState.STALLED: "warn",
    LaneState.RECONNECTING: "warn",
    LaneState.ENDED: "faint",
}


def reward_text(value: float) -> str:
    """A reward with its sign, as +1.00."""
    return "0.00" if value == 0 else _number(value, f"{value:+.2f}", f"{value:+.2e}")


def return_text(value: float) -> str:
    """A return in about four figures."""
    return _number(value, f"{value:.2f}" if abs(value) < 10 else f"{value:.1f}", f"{value:.2e}")


def rate_text(value: float) -> str:
    """Steps a second, with thin spaces between thousands."""
    plain = (
        f"{value:.1f}" if abs(value) < 10 else f"{value:,.0f}".replace(",", "\u2009") if math.isfinite(value) else ""
    )
    return _number(value, plain, f"{value:.2e}")


def age_text(age_ms: float) -> str:
    """Milliseconds, or seconds from a second on."""
    if age_ms < 1000:
        return f"{age_ms:.0f} ms"
    return f"{age_ms / 1000:.1f} s" if age_ms < 100_000 else f"{age_ms / 60_000:.0f} min"


def _number(value: float, plain: str, short: str) -> str:
    if not math.isfinite(value):
        return "nan" if math.isnan(value) else "∞" if value > 0 else "-∞"
    return plain if abs(value) < 1e6 else short


def banner_text(state: LaneState, silent_ns: int) -> str:
    """What is written over the picture; nothing while all is well."""
    silence = (
        f"No frame for {age_text(max(silent_ns / 1e6, 1000.0)) if silent_ns >= 1e9 else f'{silent_ns / 1e9:.1f} s'}"
    )
    match state:
        case LaneState.STALLED:
            return f"{silence} · the worker sends none"
        case LaneState.RECONNECTING:
            return f"{silence} · reconnecting"
        case LaneState.ENDED:
            return f"Ended · last frame {age_text(silent_ns / 1e6)} ago"
        case _:
            return ""


class LaneTile(QObject):
    """One lane, its consumer, and the strings of its tile. For the window's thread."""

    changed = Signal()
    choice_changed = Signal()
    paint_wanted = Signal()

    def __init__(self, choice: LaneChoice, parent: QObject | None = None, *, rate_hz: float = 60.0) -> None:
        """The consumer is not started: a tile watches nothing by itself."""
        super().__init__(parent)
        self.choice = choice
        self.consumer = FastLaneConsumer(self, rate_hz=rate_hz)
        self.is_dark = False  # its worker was told to render nothing
        self.paint_age_ms: float | None = None  # of the frame painted last, when it was painted
        self.painted: Hud | None = None  # that frame's
        self.said: dict[str, str] = dict.fromkeys(
            ("state", "tone", "age", "ageTone", "reward", "rewardTone", "rolling", "rate", "episode", "banner"), ""
        )
        """The strings, by their names in QML."""
        self.refresh(0)

    def refresh(self, now_ns: int) -> None:
        """Say what is so now; QML hears of it only when a string is another one."""
        consumer = self.consumer
        state = consumer.state(now_ns)
        said = {
            "state": state.value,
            "tone": _TONES[state],
            "banner": self._banner(state, now_ns),
            **_age(consumer.hud, self.paint_age_ms, now_ns, state),
            **_figures(consumer.hud),
        }
        if said != self.said:
            self.said = said
            self.changed.emit()

    def _banner(self, state: LaneState, now_ns: int) -> str:
        if self.is_dark and state in (LaneState.WAITING, LaneState.LIVE, LaneState.STALLED):
            return "Durable Only · nothing is rendered"
        if state is LaneState.WAITING:
            return "Waiting for the first frame" if self.consumer.is_attached else "No agent yet"
        return banner_text(state, self.consumer.silent_ns(now_ns))

    # ---- for QML ----

    def _text(self, key: str) -> str:
        return self.said[key]

    title = Property(str, lambda self: self.choice.title, notify=choice_changed)
    agent = Property(str, lambda self: self.choice.agent, notify=choice_changed)
    subtitle = Property(str, lambda self: self.choice.subtitle, notify=choice_changed)
    state = Property(str, lambda self: self._text("state"), notify=changed)
    tone = Property(str, lambda self: self._text("tone"), notify=changed)
    age = Property(str, lambda self: self._text("age"), notify=changed)
    ageTone = Property(str, lambda self: self._text("ageTone"), notify=changed)  # noqa: N815  a name in QML
    reward = Property(str, lambda self: self._text("reward"), notify=changed)
    rewardTone = Property(str, lambda self: self._text("rewardTone"), notify=changed)  # noqa: N815
    rolling = Property(str, lambda self: self._text("rolling"), notify=changed)
    rate = Property(str, lambda self: self._text("rate"), notify=changed)
    episode = Property(str, lambda self: self._text("episode"), notify=changed)
    banner = Property(str, lambda self: self._text("banner"), notify=changed)


def _age(hud: Hud | None, paint_age_ms: float | None, now_ns: int, state: LaneState) -> dict[str, str]:
    """The age of the picture: as it was painted, while pictures keep coming; else as it stands there now."""
    if hud is None:
        return {"age": "", "ageTone": "faint"}
    standing_ms = (now_ns - hud.mono_ns) / 1e6
    is_coming = state is LaneState.LIVE and standing_ms < LATE_MS and paint_age_ms is not None
    age_ms = paint_age_ms if is_coming and paint_age_ms is not None else standing_ms
    tone = "good" if age_ms <= GOOD_MS else "warn" if age_ms <= LATE_MS else "bad"
    if state in (LaneState.PAUSED, LaneState.ENDED):
        tone = "faint"
    return {"age": age_text(max(0.0, age_ms)), "ageTone": tone}


def _figures(hud: Hud | None) -> dict[str, str]:
    if hud is None:
        return {"reward": NOTHING, "rewardTone": "text", "rolling": NOTHING, "rate": NOTHING, "episode": NOTHING}
    return {
        "reward": reward_text(hud.last_reward),
        "rewardTone": "good" if hud.last_reward > 0 else "bad" if hud.last_reward < 0 else "text",
        "rolling": return_text(hud.rolling_return),
        "rate": rate_text(hud.step_rate_hz),
        "episode": f"{hud.episode:,}".replace(",", "\u2009"),
    }
