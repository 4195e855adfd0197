"""Who is late, and what is known of each."""

from runlane.actors.health import HealthTable
from runlane.transport.messages import Heartbeat

START_S = 15.0
TIMEOUT_S = 10.0


def _table(*names: str) -> HealthTable:
    table = HealthTable(START_S, TIMEOUT_S)
    for pid, name in enumerate(names, start=100):
        table.expect(name, pid, 0.0)
    return table


def _beat(name: str, pid: int = 100, **figures: int) -> Heartbeat:
    return Heartbeat(name=name, pid=pid, state="running", statistics=figures)


def test_a_process_has_start_s_for_its_first_heartbeat() -> None:
    """Starting may take longer than the time between two heartbeats."""
    table = _table("router")
    assert table.late(START_S - 0.1) == []
    assert table.late(START_S) == ["router"]


def test_each_heartbeat_buys_the_timeout() -> None:
    """After a heartbeat at 20 s the next may come until 30 s."""
    table = _table("router")
    assert table.record(_beat("router"), 12.0)
    assert table.record(_beat("router"), 20.0)
    assert table.late(29.9) == []
    assert table.late(30.0) == ["router"]


def test_one_silent_actor_does_not_make_others_late() -> None:
    """Lateness is per actor."""
    table = _table("router", "db_writer")
    table.record(_beat("router"), 14.0)
    assert table.late(16.0) == ["db_writer"]


def test_a_heartbeat_of_a_former_process_counts_for_nothing() -> None:
    """The pid must be that of the process now watched."""
    table = _table("router")
    table.expect("router", 200, 5.0)
    assert not table.record(_beat("router", pid=100), 6.0)
    assert table.age_s("router", 7.0) is None
    assert table.record(_beat("router", pid=200), 6.0)


def test_a_stranger_is_not_recorded() -> None:
    """A name nobody expects leaves no trace."""
    table = _table("router")
    assert not table.record(_beat("stranger"), 1.0)
    assert table.state("stranger") is None


def test_a_released_process_is_never_late_but_keeps_its_last_figures() -> None:
    """What ended is still shown, and no longer waited for."""
    table = _table("router")
    table.record(_beat("router", queued=3), 1.0)
    table.release("router")
    assert table.late(1_000.0) == []
    assert table.next_deadline_s() is None
    assert table.age_s("router", 2.0) is None
    assert table.statistics("router") == {"queued": 3}
    assert not table.record(_beat("router"), 3.0)


def test_expecting_again_forgets_the_figures_of_the_process_before() -> None:
    """A restarted actor starts with no figures."""
    table = _table("router")
    table.record(_beat("router", queued=3), 1.0)
    table.expect("router", 200, 2.0)
    assert table.statistics("router") == {}
    assert table.state("router") is None


def test_the_age_is_the_time_since_the_last_heartbeat() -> None:
    """It is None before the first."""
    table = _table("router")
    assert table.age_s("router", 1.0) is None
    table.record(_beat("router"), 2.0)
    assert table.age_s("router", 5.5) == 3.5


def test_a_pause_of_the_supervisor_makes_nobody_late() -> None:
    """Deadlines move by as much as the supervisor itself was stopped."""
    table = _table("router", "db_writer")
    table.record(_beat("router"), 1.0)
    table.postpone(60.0)
    assert table.late(70.9) == []
    assert table.late(71.0) == ["router"]


def test_the_next_deadline_is_the_earliest() -> None:
    """The supervisor may sleep until then."""
    table = _table("router", "db_writer")
    table.record(_beat("router"), 1.0)
    assert table.next_deadline_s() == 1.0 + TIMEOUT_S
    table.forget("router")
    assert table.next_deadline_s() == START_S
