"""One line per event: time, level, log id, then `key=value` facts. The id comes from `config/log_ids.py`."""

import logging
import sys
import time

from runlane.config.log_ids import LogId

_LOGGER = logging.getLogger("runlane")
_FAST_LANE = "FASTLANE_"  # their lines carry a mark that is the same for every worker and every viewer


class _Formatter(logging.Formatter):
    """UTC time to the millisecond, process name, level, message."""

    def __init__(self, process: str) -> None:
        super().__init__(f"%(asctime)s.%(msecs)03dZ %(levelname)-7s {process} %(message)s", "%Y-%m-%dT%H:%M:%S")
        self.converter = time.gmtime


def configure_log(process: str, level: str) -> None:
    """Send runlane's log lines to standard error, marked with the name of this process."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Formatter(process))
    _LOGGER.handlers[:] = [handler]
    _LOGGER.setLevel(level)
    _LOGGER.propagate = False


def show_fast_lane_log() -> None:
    """Write the fast lane's lines to standard error in a process whose log nobody has configured, as a worker's."""
    if not _LOGGER.handlers:
        add_fast_lane_log("worker")


def add_fast_lane_log(process: str) -> None:
    """Write the fast lane's lines to standard error, also in a process whose log tells warnings alone."""
    for other in _LOGGER.handlers:
        other.setLevel(max(other.level, _LOGGER.getEffectiveLevel()))
        other.addFilter(lambda record: not record.getMessage().startswith(_FAST_LANE))
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Formatter(process))
    handler.addFilter(lambda record: record.getMessage().startswith(_FAST_LANE))
    _LOGGER.addHandler(handler)
    if _LOGGER.getEffectiveLevel() > logging.INFO:
        _LOGGER.setLevel(logging.INFO)


def log_event(log_id: LogId, **facts: object) -> None:
    """Write one line under `log_id`. Facts are short; a text with spaces is quoted."""
    if _LOGGER.isEnabledFor(log_id.level):
        shown = " ".join(f"{key}={_shown(value)}" for key, value in facts.items())
        if log_id.name.startswith(_FAST_LANE):
            shown = f"[FASTLANE] {shown}"
        _LOGGER.log(log_id.level, "%s %s", log_id.name, shown)


def _shown(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.6g}"
    text = str(value)
    return repr(text) if any(mark in text for mark in " \n\r\t'\"") or not text else text
