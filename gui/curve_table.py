"""What `runlane curve` prints: a run's returns as one block chart and a short table."""

import math
import time
from collections.abc import Sequence
from typing import Any

from rich.text import Text

from runlane.gui.block_chart import block_chart
from runlane.gui.long_table import print_table
from runlane.gui.tables import console

CHART_ROWS = 8
LABEL_COLUMNS = 12


def print_curve(curve: dict[str, Any], stretches: Sequence[dict[str, Any]]) -> None:
    """Print the curve's mean returns as a picture, and its coarser `stretches` as rows."""
    out = console()
    title = f"{curve['run']}  {curve['name']}  {curve['state']}  {curve['episodes']:,} episodes"
    out.print(Text(title))  # as text: a name may hold brackets
    points: list[dict[str, Any]] = curve["points"]
    means = [math.nan if point["mean_return"] is None else float(point["mean_return"]) for point in points]
    lines, least, greatest = block_chart(means, max(1, min(out.width, 120) - LABEL_COLUMNS - 1), CHART_ROWS)
    if not lines or not lines[0]:
        out.print("no episode with a return yet")
        return
    labels = {0: f"{greatest:.6g}", len(lines) - 1: f"{least:.6g}"}
    for number, line in enumerate(lines):
        out.print(Text(f"{labels.get(number, ''):>{LABEL_COLUMNS}} {line}"), no_wrap=True)
    rows = [
        [
            f"{point['first_episode']:,} - {point['first_episode'] + point['episodes'] - 1:,}",
            f"{point['steps']:,}",
            *(_return(point[key]) for key in ("min_return", "mean_return", "max_return")),
            time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(point["last_t_ns"] / 1e9)),
        ]
        for point in stretches
    ]
    print_table(out, ("episodes", "steps", "least", "mean return", "greatest", "until"), rows)


def _return(value: float | None) -> str:
    return "-" if value is None else f"{value:.6g}"
