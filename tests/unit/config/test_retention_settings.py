"""Retention is off by default, and takes only what may go."""

import pytest

from runlane.config.errors import SettingsError
from runlane.config.load import load
from runlane.config.names import KINDS, RETENTION_CLASSES
from runlane.config.settings import RetentionSettings


def test_nothing_is_removed_by_default() -> None:
    """Keeping is the promise: a limit is something a person sets."""
    assert not load(environment={}).retention.is_on


@pytest.mark.parametrize("limit", ["max_runs=3", "max_age_days=0.5", "max_bytes=1048576"])
def test_any_limit_switches_it_on(limit: str) -> None:
    """One is enough."""
    assert load(environment={}, arguments=[f"retention.{limit}"]).retention.is_on


@pytest.mark.parametrize("kind", sorted({*KINDS, "frame"} - {*RETENTION_CLASSES}))
def test_what_must_stay_cannot_be_named(kind: str) -> None:
    """Episodes, run states and drops are no classes; the error names value and remedy."""
    with pytest.raises(SettingsError) as caught:
        load(environment={}, arguments=[f'retention.classes=["step", "{kind}"]'])
    assert caught.value.key == "retention.classes"
    assert caught.value.value == ["step", kind]
    assert "choose from step, info, log, metric" in caught.value.remedy


def test_a_class_is_named_once() -> None:
    """Its place in the order would be unclear."""
    with pytest.raises(SettingsError, match="twice"):
        RetentionSettings(classes=["log", "step", "log"])


def test_an_age_without_classes_is_refused() -> None:
    """It would promise room and make none; a size without classes takes whole runs."""
    with pytest.raises(SettingsError, match="max_age_days = 3: would take nothing"):
        RetentionSettings(max_age_days=3, classes=[])
    assert RetentionSettings(max_bytes=1 << 20, classes=[]).is_on


@pytest.mark.parametrize("text", ["max_runs=0", "max_runs=-1", "max_age_days=0", "max_bytes=1000", "max_bytes='1 GB'"])
def test_a_limit_of_nothing_is_refused(text: str) -> None:
    """Also a size below that of an empty database, and a size with a unit."""
    with pytest.raises(SettingsError) as caught:
        load(environment={}, arguments=[f"retention.{text}"])
    assert caught.value.key == f"retention.{text.partition('=')[0]}"
