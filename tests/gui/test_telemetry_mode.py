"""The Telemetry Mode: one choice in two places, and a switch of the run that is selected and lives."""

from collections.abc import Iterator

import pytest
from PySide6.QtCore import Qt
from PySide6.QtTest import QTest
from PySide6.QtWidgets import QAbstractButton, QLabel, QPushButton, QRadioButton
from pytestqt.qtbot import QtBot
from run_rig import RigController, row, status_of

from runlane.config.errors import GraphError
from runlane.config.settings import Settings
from runlane.config.telemetry_mode import TelemetryMode
from runlane.gui.launch_form_view import LaunchFormView
from runlane.gui.telemetry_mode import (
    REFUSAL_S,
    SHORT,
    TOLD_S,
    TelemetryModeControl,
    TelemetryModeSelector,
    TelemetryModeState,
)
from runlane.gui.tokens import DARK

LIVE = row(1, state="running", ended_ns=None)


class FakeClient:
    """Notes what was asked, and refuses with a reason if it has one."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, str, TelemetryMode]] = []
        self.reason = ""
        self.refusing = {"a", "b"}

    def set_telemetry_mode(self, run: str, worker: str, mode: TelemetryMode) -> object:
        self.asked.append((run, worker, mode))
        if self.reason and worker in self.refusing:
            raise GraphError(self.reason)
        return object()


@pytest.fixture
def client() -> FakeClient:
    return FakeClient()


@pytest.fixture
def controller(qapp: object, settings: Settings, client: FakeClient) -> Iterator[RigController]:  # noqa: ARG001
    found = RigController(settings, client=client)
    yield found
    found.stop()


@pytest.fixture
def state(qapp: object) -> TelemetryModeState:  # noqa: ARG001
    return TelemetryModeState()


@pytest.fixture
def control(qtbot: QtBot, controller: RigController, state: TelemetryModeState) -> TelemetryModeControl:
    found = TelemetryModeControl(controller, DARK, state)
    qtbot.addWidget(found)
    found.show()
    return found


def watch(controller: RigController, mode: str = "dual_path") -> None:
    """Select a run that lives, with two workers in this mode."""
    controller.runs.set_rows([LIVE])
    controller.select("run000001")
    controller.tell_status(status_of(("run000001", "a", mode), ("run000001", "b", mode)))


def click(parent: TelemetryModeControl | LaunchFormView, mode: TelemetryMode) -> None:
    names = [f"Telemetry Mode: {text}" for text in (SHORT[mode], mode.label)]
    button = next(found for found in parent.findChildren(QAbstractButton) if found.accessibleName() in names)
    button.click()


def note(control: TelemetryModeControl) -> str:
    return control.note.whole_text


def test_the_default_keeps_everything(state: TelemetryModeState, control: TelemetryModeControl) -> None:
    """Dual path, until somebody chooses otherwise."""
    assert state.mode is TelemetryMode.DUAL_PATH
    assert control.selector.segments.key == "dual_path"


def test_form_and_control_panel_always_show_the_same_choice(
    qtbot: QtBot, controller: RigController, state: TelemetryModeState, control: TelemetryModeControl
) -> None:
    """One signal, whichever of them was clicked."""
    form = LaunchFormView(controller, DARK, state)
    qtbot.addWidget(form)
    form.show()
    told: list[str] = []
    state.telemetry_mode_changed.connect(told.append)
    click(form, TelemetryMode.DURABLE_ONLY)
    assert control.selector.segments.key == "durable_only"
    click(control, TelemetryMode.FAST_LANE_ONLY)
    assert form.telemetry.mode.key == "fast_lane_only"
    assert told == ["durable_only", "fast_lane_only"]
    form.cleanup()


def test_the_form_never_switches_a_running_worker(
    qtbot: QtBot, controller: RigController, state: TelemetryModeState, control: TelemetryModeControl
) -> None:
    """It is about the next run; the control says what is in force in this one."""
    watch(controller)
    form = LaunchFormView(controller, DARK, state)
    qtbot.addWidget(form)
    form.show()
    click(form, TelemetryMode.DURABLE_ONLY)
    assert controller.waiting == []
    assert note(control) == "this run: Dual Path"
    form.cleanup()


def test_a_click_switches_every_worker_of_the_selected_run(
    controller: RigController, client: FakeClient, control: TelemetryModeControl
) -> None:
    """Switching, then in force, and then what the proxies say themselves."""
    watch(controller)
    assert note(control) == "in force in this run"
    click(control, TelemetryMode.DURABLE_ONLY)
    assert note(control) == "switching…"
    controller.answer()
    assert [asked[1:] for asked in client.asked] == [
        ("a", TelemetryMode.DURABLE_ONLY),
        ("b", TelemetryMode.DURABLE_ONLY),
    ]
    assert note(control) == "in force in this run"
    controller.ticked.emit(TOLD_S + 1)
    controller.tell_status(status_of(("run000001", "a", "dual_path")))
    assert note(control) == "this run: Dual Path"


def test_a_refusal_tells_its_reason_for_a_while(
    controller: RigController, client: FakeClient, control: TelemetryModeControl
) -> None:
    """Then again what is in force."""
    client.reason = "the worker did not answer"
    watch(controller)
    controller.ticked.emit(50.0)
    click(control, TelemetryMode.DURABLE_ONLY)
    controller.answer()
    told = "a: the worker did not answer; b: the worker did not answer; 0 of 2 workers were told"
    assert note(control) == f"refused: {told}"
    controller.ticked.emit(50.0 + REFUSAL_S + 1)
    assert note(control) == "this run: Dual Path"


def test_without_a_living_run_it_is_the_choice_for_the_next(
    controller: RigController, state: TelemetryModeState, control: TelemetryModeControl
) -> None:
    """Nobody is asked."""
    controller.runs.set_rows([row(1)])
    controller.select("run000001")
    click(control, TelemetryMode.DURABLE_ONLY)
    assert (state.mode, controller.waiting, note(control)) == (TelemetryMode.DURABLE_ONLY, [], "for the next run")


def test_segments_explain_themselves(qtbot: QtBot, state: TelemetryModeState) -> None:
    """Whole labels and descriptions of the terms page, also for who cannot see them."""
    selector = TelemetryModeSelector(state)
    qtbot.addWidget(selector)
    tips = [button.toolTip() for button in selector.findChildren(QPushButton)]
    assert tips == [f"{mode.label}\n{mode.description}" for mode in TelemetryMode]
    assert "Dual Path (UI + Durable)" in selector.accessibleDescription()


def test_no_other_mode_can_be_chosen(state: TelemetryModeState) -> None:
    """A misspelt one is an error."""
    with pytest.raises(ValueError, match="sideways"):
        state.choose("sideways")


def test_a_switch_that_is_undone_at_once_is_asked_both_times(
    controller: RigController, client: FakeClient, control: TelemetryModeControl
) -> None:
    """The last heartbeat may still tell the mode from before the first switch."""
    watch(controller)
    click(control, TelemetryMode.FAST_LANE_ONLY)
    controller.answer()
    click(control, TelemetryMode.DUAL_PATH)
    controller.answer()
    assert [asked[2] for asked in client.asked if asked[1] == "a"] == [
        TelemetryMode.FAST_LANE_ONLY,
        TelemetryMode.DUAL_PATH,
    ]
    assert note(control) == "in force in this run"


def test_workers_in_different_modes_are_mixed_and_any_choice_asks_all(
    controller: RigController, client: FakeClient, control: TelemetryModeControl
) -> None:
    """Also the mode that one of them is in already."""
    watch(controller)
    controller.tell_status(status_of(("run000001", "a", "durable_only"), ("run000001", "b", "dual_path")))
    assert (note(control), control.note.property("state")) == ("this run: mixed", "warn")
    click(control, TelemetryMode.DUAL_PATH)
    controller.answer()
    assert client.asked == [
        ("run000001", "a", TelemetryMode.DUAL_PATH),
        ("run000001", "b", TelemetryMode.DUAL_PATH),
    ]


def test_one_refusal_does_not_stop_the_others(
    controller: RigController, client: FakeClient, control: TelemetryModeControl
) -> None:
    """Who refused, why, and how many took it up."""
    client.reason, client.refusing = "its journal is full", {"a"}
    watch(controller)
    click(control, TelemetryMode.DURABLE_ONLY)
    controller.answer()
    assert [asked[1] for asked in client.asked] == ["a", "b"]
    assert note(control) == "refused: a: its journal is full; 1 of 2 workers were told"


def test_the_form_shows_the_whole_labels_and_what_each_means(
    qtbot: QtBot, controller: RigController, state: TelemetryModeState
) -> None:
    """One radio button each, with its description below; chosen by keyboard, too."""
    form = LaunchFormView(controller, DARK, state)
    qtbot.addWidget(form)
    form.show()
    options = form.telemetry.mode
    assert [button.text() for button in options.findChildren(QRadioButton)] == [
        "Fast Lane Only (skip durable telemetry)",
        "Dual Path (UI + Durable)",
        "Durable Only (headless)",
    ]
    assert [label.text() for label in options.findChildren(QLabel)] == [mode.description for mode in TelemetryMode]
    dual, durable = options.buttons["dual_path"], options.buttons["durable_only"]
    form.activateWindow()
    dual.setFocus()
    qtbot.waitUntil(dual.hasFocus, timeout=3_000)
    QTest.keyClick(dual, Qt.Key.Key_Down)
    assert durable.isChecked()
    assert (state.mode, options.key) == (TelemetryMode.DURABLE_ONLY, "durable_only")
    form.cleanup()
