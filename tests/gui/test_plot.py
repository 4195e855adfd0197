"""Plots: decimation keeps spikes, smoothing never hides the raw line, a zoom reaches raw rows."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PySide6.QtCore import Qt
from PySide6.QtGui import QColor
from PySide6.QtTest import QTest
from pytestqt.qtbot import QtBot

from runlane.gui.controls_view import Label
from runlane.gui.figures import axis_number, clock_text, short_number, whole_number
from runlane.gui.plot_lines import Line, band_of, coarser, ema, group_name, raw_line, smooth_line
from runlane.gui.plot_view import PlotChoices, PlotCurve, PlotView
from runlane.gui.series import Envelope, Floats, Series
from runlane.gui.telemetry_history import RawRows
from runlane.gui.telemetry_model import RETURN, SeriesKey
from runlane.gui.tokens import DARK, LIGHT


def series_of(values: Floats, points: int = 2048) -> Series:
    series = Series(points)
    x = np.arange(1.0, len(values) + 1)
    series.add(values, x, x, x)
    return series


def curve_of(series: Series, run: str = "run-1", color: str = DARK.series[0], group: str = "g") -> PlotCurve:
    return PlotCurve(SeriesKey(run, "w", RETURN), run, color, series, group)


def shown(qtbot: QtBot, *curves: PlotCurve, choices: PlotChoices | None = None) -> PlotView:
    plot = PlotView("Episode return", DARK)
    qtbot.addWidget(plot)
    plot.resize(500, 260)
    plot.show()
    plot.show_curves(curves, choices or PlotChoices())
    plot.refresh()
    return plot


# ---- lines ----


@given(st.integers(1, 6000), st.integers(2, 300), st.integers(0, 10**6))
def test_a_line_has_two_points_per_pixel_and_every_spike(count: int, pixels: int, seed: int) -> None:
    """Greatest and least survive, whatever is merged."""
    values = np.random.default_rng(seed).normal(size=count)
    values[seed % count] = 1e9
    line = raw_line(series_of(values).envelope(), "step", None, pixels)
    assert len(line.x) <= 2 * pixels
    assert np.nanmax(line.y) == 1e9
    assert np.nanmin(line.y) == values.min()
    assert (np.diff(line.x) >= 0).all()


def test_few_values_are_drawn_as_they_are() -> None:
    """One point each, at its place on the axis that is chosen."""
    line = raw_line(series_of(np.array([3.0, 1.0, 2.0])).envelope(), "episode", None, 100)
    assert line.y.tolist() == [3.0, 1.0, 2.0]
    assert line.x.tolist() == [1.0, 2.0, 3.0]


@given(st.lists(st.floats(-1e3, 1e3) | st.just(float("nan")), min_size=1, max_size=300), st.floats(0.01, 0.99))
def test_smoothing_is_a_debiased_moving_average(values: list[float], weight: float) -> None:
    """As the plain loop has it; NaN is passed over."""
    total = share = 0.0
    expected: list[float] = []
    for value in values:
        is_known = value == value
        total, share = weight * total + (value if is_known else 0.0), weight * share + is_known
        expected.append(total / share if share else float("nan"))
    assert ema(np.array(values), weight) == pytest.approx(expected, nan_ok=True, abs=1e-6)


def test_zooming_does_not_change_the_smooth_line() -> None:
    """It is made of the whole curve, then cut."""
    envelope = series_of(np.random.default_rng(0).normal(size=500)).envelope()
    whole = smooth_line(envelope, "step", None, 4000, 0.9)
    part = smooth_line(envelope, "step", (200.0, 300.0), 4000, 0.9)
    assert np.array_equal(part.y, whole.y[198:301])


def test_merging_keeps_counts_means_and_extremes() -> None:
    """`coarser` of buckets with NaN among them."""
    values = np.arange(100.0)
    values[10:20] = np.nan
    found = coarser(series_of(values).envelope(), 10)
    assert found.count.tolist() == [10.0] * 10
    assert np.isnan(found.mean[1])
    assert found.mean[2] == 24.5
    assert found.high[-1] == 99.0


def test_a_band_is_mean_and_deviation_where_there_are_lines() -> None:
    """A seed that ended early counts as far as it came."""
    x = np.linspace(0, 10, 11)
    band = band_of([Line(x, x * 0 + 1), Line(x, x * 0 + 3), Line(x[:6], x[:6] * 0 + 5)])
    assert band.count == 3
    assert band.mean.y[0] == pytest.approx(3.0)
    assert band.mean.y[-1] == pytest.approx(2.0)
    assert band.high[-1] - band.mean.y[-1] == pytest.approx(1.0)


def test_seeds_at_the_end_of_a_name_make_a_group() -> None:
    """However the seed is marked. A name that is a number stays one."""
    names = ["ppo-s1", "ppo_s12", "ppo-seed1", "ppo_seed3", "ppo-seed=1", "ppo seed=2", "ppo-seed-1", "ppo#1", "ppo #2"]
    assert {group_name(name) for name in names} == {"ppo"}
    assert group_name("seed=1") == group_name("seed=2")
    assert group_name("17") == "17"
    assert group_name("line-walk") == "line-walk"


@pytest.mark.parametrize(
    "name",
    ["ppo-lr-0.001", "ppo-lr-0.01", "lr1e-3", "lr1e-4", "ppo-v2", "ppo-7", "ppo_2", "envs4", "atoms51", "ppo-steps1"],
)
def test_a_number_without_a_mark_is_no_seed(name: str) -> None:
    """Settings that differ are groups of their own: no band goes over them."""
    assert group_name(name) == name


def test_a_plot_says_how_many_records_it_missed(qtbot: QtBot) -> None:
    """And where they are; nothing while none are missing."""
    plot = PlotView("Return", DARK)
    qtbot.addWidget(plot)
    plot.show()
    plot.show_missed(12_340)
    assert plot.missed == f"{whole_number(12_340)} records missed"
    (label,) = [label for label in plot.findChildren(Label) if label.text() == plot.missed]
    assert label.isVisible()
    assert "database" in label.toolTip()
    plot.show_missed(0)
    assert not label.isVisible()


def test_numbers_are_short() -> None:
    """Ticks tell neighbours apart; figures have four digits."""
    assert [axis_number(value, 200_000.0) for value in (0.0, 200_000.0, 2_000_000.0)] == ["0", "200 k", "2 M"]
    assert [axis_number(value, 0.02) for value in (-0.02, 0.0, 0.24)] == ["-0.02", "0", "0.24"]
    assert axis_number(1_250_000.0, 250_000.0) == "1.25 M"
    assert [short_number(value) for value in (318.0, 0.041, 2184.0, 6.3e6, float("nan"))] == [
        "318",
        "0.041",
        "2 184",
        "6.3 M",
        "-",
    ]
    assert len(clock_text(1_700_000_000.0, 60.0)) == 5
    assert len(clock_text(1_700_000_000.0, 1.0)) == 8


# ---- the plot ----


@pytest.mark.parametrize("smoothing", [0.0, 0.6, 0.99])
def test_the_raw_line_is_never_hidden(qtbot: QtBot, smoothing: float) -> None:
    """Faint, below the smooth one, with every value; so too under a band."""
    values = np.random.default_rng(1).normal(size=120)
    for is_banded in (False, True):
        plot = shown(qtbot, curve_of(series_of(values)), choices=PlotChoices("step", smoothing, is_banded))
        faint = [(x, y) for x, y, is_faint in plot.canvas.lines() if is_faint]
        strong = [(x, y) for x, y, is_faint in plot.canvas.lines() if not is_faint]
        assert len(faint) == len(strong) == 1
        assert np.array_equal(faint[0][1], values)
        plot.cleanup()


def test_what_has_not_changed_is_not_drawn_again(qtbot: QtBot) -> None:
    """A new value is."""
    series = series_of(np.arange(10.0))
    plot = shown(qtbot, curve_of(series))
    assert not plot.refresh()
    series.add_one(99.0, 11, 11, 11)
    assert plot.refresh()
    assert plot.accessibleDescription().startswith("run-1")
    plot.cleanup()


def test_the_value_of_the_first_curve_is_at_the_title(qtbot: QtBot) -> None:
    """Of a plot without numbers nothing is claimed."""
    plot = shown(qtbot, curve_of(series_of(np.full(10, 318.0))), curve_of(series_of(np.zeros(3)), "run-2"))
    assert plot.accessibleDescription() == "run-1 318, run-2 0"
    plot.show_curves([], PlotChoices())
    plot.refresh()
    assert plot.note == "nothing yet"
    assert plot.canvas.lines() == []
    plot.cleanup()


def test_the_lines_have_the_colours_of_their_runs(qtbot: QtBot) -> None:
    """Pixels say so, in the dark and in the light."""
    for tokens in (DARK, LIGHT):
        plot = shown(qtbot, curve_of(series_of(np.arange(50.0)), color=tokens.series[1]))
        plot.set_tokens(tokens)
        plot.refresh()
        picture = plot.canvas.grab().toImage()
        wanted = QColor(tokens.series[1])
        places = ((x, y) for x in range(100, 400, 5) for y in range(picture.height()))
        assert min(_distance(picture.pixelColor(x, y), wanted) for x, y in places) < 30
        plot.cleanup()


def _distance(color: QColor, other: QColor) -> int:
    return abs(color.red() - other.red()) + abs(color.green() - other.green()) + abs(color.blue() - other.blue())


def test_a_zoom_is_told_once_it_has_settled_and_raw_rows_take_the_curves_place(qtbot: QtBot) -> None:
    """The note says where the rows are from; a reset brings the curve back."""
    series = series_of(np.random.default_rng(2).normal(size=5000), points=64)
    curve = curve_of(series)
    plot = shown(qtbot, curve)
    with qtbot.waitSignal(plot.zoomed, timeout=3000) as told:
        plot.zoom_to(1000.0, 1200.0)
    assert told.args == [1000.0, 1200.0]  # pyright: ignore[reportUnknownMemberType]
    assert plot.note.startswith("a point is")
    x = np.arange(1000.0, 1200.0)
    raw = Envelope(x * 0 + 1, x, x, x, x, x, x)
    plot.set_raw({curve.key: RawRows(raw, len(x), is_whole=True)})
    plot.refresh()
    assert plot.note == "200 rows of the store"
    assert len(plot.canvas.lines()[0][0]) == 200
    plot.reset_zoom()
    assert plot.range_x is None
    assert plot.note == ""
    plot.cleanup()


def test_the_keyboard_zooms_and_moves(qtbot: QtBot) -> None:
    """Plus, right, and Home for everything."""
    plot = shown(qtbot, curve_of(series_of(np.arange(100.0))))
    QTest.keyClick(plot, Qt.Key.Key_Plus)
    assert plot.range_x == pytest.approx((25.75, 75.25))
    QTest.keyClick(plot, Qt.Key.Key_Right)
    assert plot.range_x == pytest.approx((35.65, 85.15))
    QTest.keyClick(plot, Qt.Key.Key_Home)
    assert plot.range_x is None
    plot.cleanup()
