"""write_report: what a worker has counted by itself, for whoever compares it with what is stored."""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from runlane.config.names import ENV_WORKER_REPORT


def write_report(counted: Mapping[str, Any]) -> None:
    """Write the counts as JSON to the file `RUNLANE_WORKER_REPORT` names, whole or not at all; nothing without one."""
    if name := os.environ.get(ENV_WORKER_REPORT):
        partial = Path(f"{name}.{os.getpid()}.tmp")
        partial.write_text(json.dumps(counted) + "\n", encoding="utf-8")
        partial.replace(name)
