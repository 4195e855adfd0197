"""Figures of a run as people read them: short, with a unit, a dash where nothing is known. No Qt."""

import math
import time

UNKNOWN = "—"
NOT_KEPT = "not kept"  # in place of a rate of records, where Fast Lane Only makes none
_SCALES = ((1e12, "T"), (1e9, "G"), (1e6, "M"))
GROUPED_FROM = 10_000


def count_text(count: float | None) -> str:
    """A count: `8`, `2 184`, `57 344`, `6.3 M`."""
    if count is None:
        return UNKNOWN
    for scale, letter in _SCALES:
        if count >= scale:
            return f"{count / scale:.3g} {letter}"
    return f"{count:,.0f}".replace(",", " ")


def rate_text(per_s: float | None) -> str:
    """A rate without its unit: whole numbers from 10 on."""
    if per_s is None or not math.isfinite(per_s):
        return UNKNOWN
    return f"{per_s:.1f}" if 0 < per_s < 10 else count_text(round(per_s))


def return_text(value: float | None) -> str:
    """A return: four figures, no exponent where there is room without one."""
    if value is None or math.isnan(value):
        return UNKNOWN
    if math.isinf(value):
        return "∞" if value > 0 else "-∞"
    size = abs(value)
    if size >= GROUPED_FROM:
        return ("-" if value < 0 else "") + count_text(size)
    return f"{value:.2f}" if size < 10 else f"{value:.1f}"


def reward_text(value: float | None) -> str:
    """A reward, with its sign."""
    if value is None or math.isnan(value):
        return UNKNOWN
    return f"{value:+.2f}" if abs(value) < GROUPED_FROM else f"{value:+.3g}"


def duration_text(seconds: float | None) -> str:
    """A time span: `850 ms`, `12 s`, `28 min`, `3 h 20 min`, `2 d 4 h`."""
    if seconds is None or not math.isfinite(seconds):
        return UNKNOWN
    if seconds < 1:
        return f"{1000 * max(0.0, seconds):.0f} ms"
    if seconds < 120:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    if minutes < 120:
        return f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    if hours < 48:
        return f"{hours} h {minutes} min" if minutes else f"{hours} h"
    days, hours = divmod(hours, 24)
    return f"{days} d {hours} h" if hours else f"{days} d"


def moment_text(t_ns: int | None) -> str:
    """A moment in this machine's time zone."""
    if not t_ns:
        return UNKNOWN
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(t_ns / 1e9))


def size_text(size_bytes: float) -> str:
    """Bytes as people say them."""
    for unit, factor in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if size_bytes >= factor:
            amount = size_bytes / factor
            return f"{amount:.2f} {unit}" if amount < 10 else f"{amount:,.0f} {unit}"
    return f"{size_bytes:.0f} B"
