"""Fixtures of the worker side."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from unit.workers.session_rig import SessionRig

from runlane.config.settings import Settings


@pytest.fixture
def rig(settings: Settings, short_dir: Path) -> Iterator[SessionRig]:
    """A receiver in a thread, and no session yet."""
    rig = SessionRig(settings, short_dir)
    yield rig
    rig.close()
