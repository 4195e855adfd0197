"""AlertRules: what is told, once, and when again."""

import math
from dataclasses import replace

import pytest

from runlane.gui.alert_rules import KEPT_ALERTS, REPEAT_S, AlertRules
from runlane.gui.health_figures import GraphFigures, JournalFigures, ProcessFigures, QueueFigures, StoreFigures

ROUTER = ProcessFigures(name="router", kind="router", state="running", pid=10)
QUEUE = QueueFigures(name="gui", overflow="drop_oldest", max_queue=100, state="live")
JOURNAL = JournalFigures(worker="worker", run="r1")
GRAPH = GraphFigures(state="running", pid=1, processes=(ROUTER,), queues=(QUEUE,))


def texts(rules: AlertRules) -> list[str]:
    return [alert.text for alert in rules.alerts]


def queue_of(depth: int = 0, dropped: int = 0, missing: int = 0) -> GraphFigures:
    """A graph whose one queue holds `depth` records; `missing` are nowhere in its account."""
    reasons = {"oldest": dropped} if dropped else {}
    queue = replace(QUEUE, depth=depth, published=depth + dropped + missing, dropped=reasons)
    return replace(GRAPH, queues=(queue,))


def test_a_healthy_graph_says_nothing() -> None:
    """However long it is looked at."""
    rules = AlertRules()
    for second in range(100):
        rules.on_graph(GRAPH, float(second))
    assert texts(rules) == []
    assert (rules.unseen, rules.warnings) == (0, 0)


def test_a_restart_is_told_with_both_pids() -> None:
    """One that came before we looked is not."""
    rules = AlertRules()
    rules.on_graph(replace(GRAPH, processes=(replace(ROUTER, restarts=3),)), 0.0)
    assert texts(rules) == []
    rules.on_graph(replace(GRAPH, processes=(replace(ROUTER, restarts=4, pid=11),)), 1.0)
    assert texts(rules) == ["router restarted · pid 10 → 11"]


def test_a_queue_that_trembles_at_its_mark_is_one_line() -> None:
    """Over 50 % is told; it counts as over until it is below 40 %."""
    rules = AlertRules()
    for second, depth in enumerate((49, 50, 49, 51, 45, 50)):
        rules.on_graph(queue_of(depth), float(second))
    assert texts(rules) == ["gui queue over 50%"]
    assert rules.alerts[0].count == 1
    rules.on_graph(queue_of(10), 7.0)
    assert rules.warnings == 0


def test_what_comes_back_soon_counts_and_later_is_a_line_of_its_own() -> None:
    """The limit of a key's lines is one in `REPEAT_S`."""
    rules = AlertRules()
    for second in (0.0, 10.0, 20.0):
        rules.on_graph(queue_of(60), second)
        rules.on_graph(queue_of(0), second + 1)
    assert [alert.count for alert in rules.alerts] == [3]
    rules.on_graph(queue_of(60), 21.0 + REPEAT_S)
    assert [alert.count for alert in rules.alerts] == [3, 1]


def test_drops_are_told_as_they_begin() -> None:
    """With their reasons; those from before we looked do not begin now."""
    rules = AlertRules()
    rules.on_graph(queue_of(dropped=5), 0.0)
    assert texts(rules) == []
    rules.on_graph(queue_of(dropped=9), 1.0)
    rules.on_graph(queue_of(dropped=12), 2.0)
    assert texts(rules) == ["gui drops records (oldest)"]
    assert rules.alerts[0].count == 1


def test_an_open_account_is_bad() -> None:
    """published = delivered + dropped + queued, always."""
    rules = AlertRules()
    rules.on_graph(queue_of(missing=1), 0.0)
    assert [(alert.level, alert.text) for alert in rules.alerts] == [("bad", "gui account is open")]


def test_a_run_is_told_once_whoever_speaks_of_it() -> None:
    """Worker and proxy both say how it ended."""
    rules = AlertRules()
    rules.on_run("r1", "worker", "ppo", "running", 0.0)
    rules.on_run("r1", "worker", "ppo", "finished", 1.0)
    rules.on_run("r1", "worker", "ppo", "finished", 1.1, 0)
    assert [(alert.level, alert.text, alert.run) for alert in rules.alerts] == [
        ("good", "ppo · started", "r1"),
        ("good", "ppo · finished", "r1"),
    ]


def test_a_worker_that_dies_is_told_with_its_exit_code() -> None:
    """And the run as failed."""
    rules = AlertRules()
    rules.on_run("r1", "worker", "dqn", "killed", 0.0, 137)
    assert texts(rules) == ["dqn · worker exit 137", "dqn · killed"]
    assert {alert.level for alert in rules.alerts} == {"bad"}


def test_a_thousand_nan_are_one_line() -> None:
    """With their count."""
    rules = AlertRules()
    for number in range(1_000):
        rules.on_not_finite("r1", "ppo", "loss", math.nan, number / 100)
    assert [(alert.text, alert.count) for alert in rules.alerts] == [("ppo · loss is NaN", 1_000)]
    rules.on_not_finite("r1", "ppo", "return", math.inf, 11.0)
    assert texts(rules)[-1] == "ppo · return is infinite"


def test_a_stalled_worker_is_told_until_it_goes_on() -> None:
    """Its proxy says so twice a second."""
    rules = AlertRules()
    stalled = replace(GRAPH, journals=(replace(JOURNAL, is_stalled=True),))
    for second in range(10):
        rules.on_graph(stalled, second / 2)
    assert [(alert.text, alert.count, alert.run) for alert in rules.alerts] == [("worker · stalled", 1, "r1")]
    rules.on_graph(replace(GRAPH, journals=(JOURNAL,)), 6.0)
    assert rules.warnings == 0


def test_half_the_step_rate_is_told() -> None:
    """Means of five seconds, once the worker is warm."""
    rules = AlertRules()
    records = 0
    for second in range(60):
        records += 1_000 if second < 30 else 400
        rules.on_graph(replace(GRAPH, journals=(replace(JOURNAL, records_in=records),)), float(second))
    assert len(rules.alerts) == 1
    assert texts(rules)[0].startswith("worker · step rate -")


def test_a_lane_is_silent_only_while_it_is_watched() -> None:
    """A wall that is closed holds no warning."""
    rules = AlertRules()
    for quarter in range(10):
        rules.on_lanes([("ppo", max(0.2, quarter / 4 - 0.5))], quarter / 4)
    assert texts(rules) == ["ppo · lane silent"]
    assert rules.warnings == 1
    rules.on_lanes([], 2.5)
    assert rules.warnings == 0


def test_a_lane_is_not_silent_before_it_was_watched_for_a_while() -> None:
    """As when a window opens under load; nor after this window itself stood still, which hears nobody."""
    rules = AlertRules()
    rules.on_lanes([("cart-2", 1.9)], 0.0)
    rules.on_lanes([("cart-2", 1.9)], 0.25)
    rules.on_lanes([("cart-2", 4.0)], 4.0)
    assert texts(rules) == []
    for quarter in range(1, 9):
        rules.on_lanes([("cart-2", 4.0 + quarter / 4)], 4.0 + quarter / 4)
    assert texts(rules) == ["cart-2 · lane silent"]


def test_records_that_are_not_kept_are_no_lower_step_rate() -> None:
    """In Fast Lane Only none come; after it the rate is measured anew."""
    rules = AlertRules()
    records = 0
    for second in range(120):
        is_unkept = 30 <= second < 60
        records += 1 if is_unkept else 1_000 if second < 30 else 400
        modes = ("fast_lane_only",) if is_unkept else ("dual_path",)
        journal = replace(JOURNAL, records_in=records, modes=modes)
        rules.on_graph(replace(GRAPH, journals=(journal,)), float(second))
    assert texts(rules) == []
    for second in range(120, 130):
        rules.on_graph(replace(GRAPH, journals=(replace(JOURNAL, records_in=records, modes=("dual_path",)),)), second)
    assert texts(rules) == ["worker · step rate -100%"]


def test_no_rate_is_judged_in_fast_lane_only() -> None:
    """Whatever else such a worker records, it says nothing of its steps."""
    rules = AlertRules()
    records = 0
    for second in range(60):
        records += 1_000 if second < 30 else 10
        journal = replace(JOURNAL, records_in=records, modes=("fast_lane_only",))
        rules.on_graph(replace(GRAPH, journals=(journal,)), float(second))
    assert texts(rules) == []


def test_a_switch_ends_what_was_said_of_the_rate() -> None:
    """The warning does not go on in a mode in which nothing is measured."""
    rules = AlertRules()
    records = 0
    for second in range(40):
        records += 1_000 if second < 30 else 0
        journal = replace(JOURNAL, records_in=records, modes=("dual_path",))
        rules.on_graph(replace(GRAPH, journals=(journal,)), float(second))
    assert rules.warnings == 1
    journal = replace(JOURNAL, records_in=records, modes=("fast_lane_only",))
    rules.on_graph(replace(GRAPH, journals=(journal,)), 40.0)
    assert rules.warnings == 0


def test_no_graph_is_told_and_what_its_workers_did_is_forgotten() -> None:
    """Nobody stalls in a graph that is not there."""
    rules = AlertRules()
    rules.on_graph(replace(GRAPH, journals=(replace(JOURNAL, is_stalled=True),)), 0.0)
    rules.on_graph(GraphFigures(), 1.0)
    assert rules.warnings == 1
    assert texts(rules)[-1] == "no graph answers: start one with `runlane up`"


@pytest.mark.parametrize(
    ("graph", "text"),
    [
        (replace(GRAPH, is_blocked=True, blocked_by=("db_writer",)), "ingress waits for db_writer"),
        (replace(GRAPH, store=StoreFigures(failed_attempts=2)), "commits fail: nothing is acked meanwhile"),
        (replace(GRAPH, queues=(replace(QUEUE, state="stalled"),)), "gui takes nothing"),
        (replace(GRAPH, processes=(replace(ROUTER, state="ended", exit_code=1),)), "router · exit 1"),
        (replace(GRAPH, journals=(replace(JOURNAL, damaged=1),)), "worker · journal damaged"),
    ],
)
def test_each_condition_has_its_line(graph: GraphFigures, text: str) -> None:
    """As it begins."""
    rules = AlertRules()
    rules.on_graph(GRAPH, 0.0)
    rules.on_graph(graph, 1.0)
    assert texts(rules) == [text]


def test_the_bell_counts_what_nobody_has_seen_and_the_list_is_bounded() -> None:
    """Until somebody looks."""
    rules = AlertRules()
    for number in range(5_000):
        rules.tell(f"key {number}", "idle", "x", 0.0)
    assert len(rules.alerts) == rules.unseen == KEPT_ALERTS
    rules.mark_seen()
    assert rules.unseen == 0
