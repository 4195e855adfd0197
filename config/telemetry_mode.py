"""What a running worker tells, and to whom: three modes, which a person may switch while it trains."""

from enum import StrEnum


class TelemetryMode(StrEnum):
    """Which of its two lanes a worker uses. `docs/reference/terms.md` repeats the labels and descriptions."""

    FAST_LANE_ONLY = "fast_lane_only"
    DUAL_PATH = "dual_path"
    DURABLE_ONLY = "durable_only"

    @property
    def label(self) -> str:
        """What a person chooses from."""
        return _WORDS[self][0]

    @property
    def description(self) -> str:
        """What it means, in one sentence."""
        return _WORDS[self][1]


_WORDS = {
    TelemetryMode.FAST_LANE_ONLY: (
        "Fast Lane Only (skip durable telemetry)",
        "Frames are shown; records are not kept, but counted exactly and told as drops.",
    ),
    TelemetryMode.DUAL_PATH: ("Dual Path (UI + Durable)", "Frames are shown to viewers, and every record is kept."),
    TelemetryMode.DURABLE_ONLY: (
        "Durable Only (headless)",
        "Every record is kept; nothing is rendered, whoever watches.",
    ),
}
