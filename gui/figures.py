"""How numbers and times are written in plots and tables. No Qt."""

import math
import time

_UNITS = ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"))


def short_number(value: float) -> str:
    """At most four digits that matter: 0.041, 318, 2 184, 6.3 M, 1.2e-07; `-` for NaN."""
    size = abs(value)
    if math.isnan(value):
        return "-"
    if math.isinf(value):
        return "∞" if value > 0 else "-∞"
    if size >= 99_999.5:
        unit, letter = next(pair for pair in _UNITS if size >= pair[0])
        return f"{value / unit:.4g} {letter}" if size < 1e15 else f"{value:.2e}"
    if size >= 1000:
        return whole_number(round(value))
    return f"{value:.4g}" if size >= 1e-3 or not size else f"{value:.1e}"


def axis_number(value: float, spacing: float) -> str:
    """A tick: 400 k, 2 M, 0.25. Neighbours `spacing` apart are told apart."""
    size, spacing = abs(value), abs(spacing)
    if size < spacing * 1e-6:
        return "0"
    unit, letter = next((pair for pair in _UNITS if size >= pair[0]), (1.0, ""))
    if size < 10_000:
        unit, letter = 1.0, ""
    digits = max(0, -math.floor(math.log10(spacing / unit) + 1e-9)) if spacing else 0
    if spacing and abs(round(spacing / unit, digits) - spacing / unit) > 1e-9:  # as 0.25 is
        digits += 1
    if digits > 6:
        return f"{value:.3e}"
    text = f"{value / unit:,.{digits}f}".replace(",", " ")
    return f"{text.rstrip('0').rstrip('.') if digits else text} {letter}" if letter else text


def whole_number(value: int) -> str:
    """With gaps between thousands."""
    return f"{value:,}".replace(",", " ")


def clock_text(t_s: float, spacing_s: float = 60.0) -> str:
    """Local wall-clock time, as fine as marks so far apart need: 22 Nov, 12:41, 12:41:07, 12:41:07.25."""
    try:
        moment = time.localtime(t_s)
    except (OverflowError, ValueError, OSError):  # a foreign worker's clock may say anything
        return "-"
    if spacing_s >= 86_400:
        return time.strftime("%d %b", moment)
    text = time.strftime("%H:%M" if spacing_s >= 60 else "%H:%M:%S", moment)
    return text if spacing_s >= 1 else text + f"{t_s % 1:.3f}"[1:]


def clock_of_ns(t_ns: int) -> str:
    """Local time of day to the millisecond."""
    seconds, rest = divmod(t_ns, 1_000_000_000)
    text = clock_text(seconds, 1.0)
    return text if text == "-" else f"{text}.{rest // 1_000_000:03d}"
