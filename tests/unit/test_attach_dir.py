"""What `runlane run` puts before a command's Pythons: made for the command, gone with it, swept after a kill."""

import os
from pathlib import Path

import pytest

from runlane.attach_dir import HOOK_FILE, PREFIX, AttachDir
from runlane.config import names
from runlane.config.settings import Settings
from runlane.transport.endpoint import make_run_dir
from runlane.workers import slot


def test_it_is_first_on_the_path_and_gone_after_the_command(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the user had on PYTHONPATH follows behind it."""
    monkeypatch.setenv("PYTHONPATH", "/mine")
    with AttachDir(settings, is_hooking=True) as attach_dir:
        found = attach_dir.variables()
        assert found["PYTHONPATH"].split(os.pathsep) == [str(attach_dir.path), "/mine"]
        assert "def install" in (attach_dir.path / HOOK_FILE).read_text("utf-8")
    assert not attach_dir.path.exists()


def test_without_hooking_the_path_is_left_alone(settings: Settings) -> None:
    """`--no-hook`: what attaches by itself is seen all the same."""
    with AttachDir(settings, is_hooking=False) as attach_dir:
        assert "PYTHONPATH" not in attach_dir.variables()
        assert not (attach_dir.path / HOOK_FILE).exists()


def test_what_a_killed_launcher_left_is_swept_and_what_a_living_one_has_is_not(settings: Settings) -> None:
    """By the pid in the name."""
    parent = make_run_dir(settings)
    left = parent / f"{PREFIX}{2**22 + 1}-x"
    held = parent / f"{PREFIX}{os.getpid()}-y"
    for path in (left, held):
        path.mkdir()
    with AttachDir(settings, is_hooking=True):
        assert not left.exists()
        assert held.exists()
    held.rmdir()


def test_a_slot_is_handed_out_once(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    """In order, and the launcher sees that something is recorded."""
    with AttachDir(settings, is_hooking=True) as attach_dir:
        monkeypatch.setenv(names.ENV_ATTACH_DIR, str(attach_dir.path))
        assert not attach_dir.is_attached()
        assert [slot.claim_slot() for _ in range(3)] == [0, 1, 2]
        assert attach_dir.is_attached()


def test_a_session_by_hand_is_seen_too(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    """Twice in one process is once."""
    with AttachDir(settings, is_hooking=False) as attach_dir:
        monkeypatch.setenv(names.ENV_ATTACH_DIR, str(attach_dir.path))
        slot.note_attached()
        slot.note_attached()
        assert attach_dir.is_attached()


def test_without_a_launcher_a_process_counts_its_own_slots(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Also where the launcher has ended before its command."""
    monkeypatch.setattr(slot, "_own", set[int]())
    monkeypatch.setenv(names.ENV_ATTACH_DIR, str(tmp_path / "gone"))
    assert [slot.claim_slot(), slot.claim_slot()] == [0, 1]
