"""What the RunBus router costs beside a proxy that only forwards: records per second, delay, CPU time.

A source sends batches of 256 step records, as fast as its receivers take them, in turn through the real router
(its own process, every subscriber with a queue and an account) and through a bare `zmq.proxy` that knows neither
(its own process, PULL to PUB). Both get the same frames from the same source; receivers count what has arrived.
Bursts come in pairs, one way beside the other, and what counts is the median of their ratios.

`router_ratio` is that ratio with one receiver; bar: 0.7. Three receivers have a process each. Ten are spread over
three processes: with ten processes on few cores the table would tell how the kernel shares them out. The delay is
measured with one receiver, at a fixed rate whatever the receiver does, in batches as a worker makes them. The cost
is the CPU time of all threads of the process in the middle, for each record and receiver.
Where other programs keep the cores busy there is no verdict. `--strict` makes anything but a bar that is met exit
code 1, `--quick` makes one short pair of each: to see that it runs.
"""

import argparse
import json
import statistics
import sys
from dataclasses import dataclass, field

from bus_rig import BATCH_RECORDS, MAX_PROCESSES, BusRig, Crowd, Found, running_bus
from measuring import Machine, percentile, print_table, verdict

BAR_RATIO = 0.7
WAYS = ("router", "bare")
RATES = (1_000, 10_000, 100_000)
BATCH_AGE_S = 0.02  # a worker sends what it has after so long, `session.batch_age_ms`
PERCENTILES = (50, 99)
Delay = tuple[str, int]  # way and records a second


@dataclass(frozen=True, slots=True)
class Plan:
    """How much of what. `batches` and `pairs` by the number of receivers."""

    batches: dict[int, int]
    pairs: dict[int, int]
    many: int
    many_bursts: int
    many_batches: int
    delay_rounds: int
    delay_s: float


FULL = Plan({1: 4_000, 3: 1_600, 10: 600}, {1: 15, 3: 11, 10: 11}, 100, 7, 80, 5, 2.0)
QUICK = Plan({1: 400, 3: 200, 10: 60}, {1: 2, 3: 1, 10: 1}, 100, 1, 8, 1, 0.4)


@dataclass(slots=True)
class Pairs:
    """Bursts of both ways to the same number of receivers."""

    bursts: dict[str, list[Found]] = field(default_factory=lambda: {way: list[Found]() for way in WAYS})
    dropped: int = 0

    @property
    def ratios(self) -> list[float]:
        """Rate through the router over the bare proxy's beside it."""
        return [
            router.records_s / bare.records_s
            for router, bare in zip(self.bursts["router"], self.bursts["bare"], strict=True)
        ]

    @property
    def ratio(self) -> float:
        """Their median."""
        return statistics.median(self.ratios)

    @property
    def cpu_ratio(self) -> float:
        """CPU time of all processes, bare way over router: median of the pairs. Other work moves it little."""
        return statistics.median(
            (bare.cpu_us + bare.ends_us) / (router.cpu_us + router.ends_us)
            for router, bare in zip(self.bursts["router"], self.bursts["bare"], strict=True)
        )

    def rate(self, way: str) -> float:
        """Median of the bursts."""
        return statistics.median(found.records_s for found in self.bursts[way])

    def cpu_us(self, way: str) -> float:
        """Median of the bursts."""
        return statistics.median(found.cpu_us for found in self.bursts[way])

    def ends_us(self, way: str) -> float:
        """Median of the bursts."""
        return statistics.median(found.ends_us for found in self.bursts[way])

    def lost(self, way: str) -> int:
        """Records that were sent and did not arrive, over all receivers and bursts."""
        return sum(found.lost for found in self.bursts[way])


def measure(rig: BusRig, plan: Plan) -> tuple[dict[int, Pairs], dict[Delay, list[Found]]]:
    """Bursts to every number of receivers; with one receiver also at every fixed rate."""
    found: dict[int, Pairs] = {}
    delays: dict[Delay, list[Found]] = {}
    for receivers, batches in plan.batches.items():
        with rig.crowd("router", receivers) as router, rig.crowd("bare", receivers) as bare:
            found[receivers] = measure_pairs(rig, router, bare, batches, plan.pairs[receivers])
            if receivers == 1:
                delays = measure_delay(rig, router, bare, plan)
    return found, delays


def measure_pairs(rig: BusRig, router: Crowd, bare: Crowd, batches: int, pairs: int) -> Pairs:
    """Bursts through either way, one beside the other; who begins changes from pair to pair. A first is not counted."""
    found = Pairs()
    for crowd in (router, bare):
        rig.burst(crowd, max(1, batches // 4))
    for number in range(pairs):
        for crowd in (router, bare) if number % 2 == 0 else (bare, router):
            found.bursts[crowd.way].append(rig.burst(crowd, batches))
    found.dropped = rig.dropped(router)
    return found


def measure_many(rig: BusRig, plan: Plan) -> Pairs:
    """Bursts to very many subscribers, of the router alone."""
    found = Pairs()
    with rig.crowd("router", plan.many) as crowd:
        rig.burst(crowd, max(1, plan.many_batches // 4))
        for _ in range(plan.many_bursts):
            found.bursts["router"].append(rig.burst(crowd, plan.many_batches))
        found.dropped = rig.dropped(crowd)
    return found


def measure_delay(rig: BusRig, router: Crowd, bare: Crowd, plan: Plan) -> dict[Delay, list[Found]]:
    """Bursts of every rate through either way, in turn."""
    found: dict[Delay, list[Found]] = {(way, rate): [] for rate in RATES for way in WAYS}
    for number in range(plan.delay_rounds):
        for rate in RATES:
            records = min(BATCH_RECORDS, int(rate * BATCH_AGE_S))
            interval_s = records / rate
            batches = max(1, int(plan.delay_s / interval_s))
            for crowd in (router, bare) if number % 2 == 0 else (bare, router):
                found[crowd.way, rate].append(rig.burst(crowd, batches, records, interval_s))
    return found


def delay_us(bursts: list[Found], percent: int) -> float:
    """Median over bursts of a percentile: a core that was taken away once spoils one burst, and not the figure."""
    return statistics.median(percentile(found.latencies_us, percent) for found in bursts)


def print_rates(found: dict[int, Pairs], many: Pairs, plan: Plan) -> None:
    """Rates, ratios, losses and costs."""
    rows: list[list[str]] = []
    for receivers, pairs in found.items():
        ratios = pairs.ratios
        for way in WAYS:
            is_router = way == "router"
            rows.append(
                [
                    f"{receivers}, {way}",
                    f"{pairs.rate(way):,.0f}",
                    f"{pairs.ratio:.3f}" if is_router else "",
                    f"{min(ratios):.3f}-{max(ratios):.3f}" if is_router else "",
                    f"{pairs.lost(way):,}",
                    f"{pairs.dropped:,}" if is_router else "",
                    f"{pairs.cpu_us(way):.3f}",
                    f"{pairs.ends_us(way):.3f}",
                ]
            )
    cost = [f"{many.cpu_us('router'):.3f}", f"{many.ends_us('router'):.3f}"]
    told = [f"{many.rate('router'):,.0f}", "", "", f"{many.lost('router'):,}", f"{many.dropped:,}"]
    rows.append([f"{plan.many}, router", *told, *cost])
    print_table(["receivers", "records/s", "ratio", "min-max", "lost", "dropped", "CPU µs/record", "at the ends"], rows)


def print_delays(found: dict[Delay, list[Found]]) -> None:
    """Delay of every rate and way, and how late the source was itself."""
    rows: list[list[str]] = []
    for (way, rate), bursts in found.items():
        shown = [f"{delay_us(bursts, percent):,.0f}" for percent in PERCENTILES]
        worst_us = max(max(burst.latencies_us) for burst in bursts)
        batches = sum(len(burst.latencies_us) for burst in bursts)
        late_us = statistics.median(burst.late_us for burst in bursts)
        rows.append([f"{rate:,}/s, {way}", *shown, f"{worst_us:,.0f}", f"{batches:,}", f"{late_us:,.0f}"])
    print_table(["delay, µs", "p50", "p99", "max", "batches", "source late, p99"], rows)


def figures_of(
    found: dict[int, Pairs], many: Pairs, delays: dict[Delay, list[Found]], plan: Plan
) -> dict[str, float | bool | None]:
    """Of the closing line."""
    figures: dict[str, float | bool | None] = {
        "router_ratio": round(found[1].ratio, 4),
        "router_ratio_3": round(found[3].ratio, 4),
        "router_ratio_10": round(found[10].ratio, 4),
        "router_cpu_ratio": round(found[1].cpu_ratio, 4),
        "records_per_s": round(found[1].rate("router")),
        "records_per_s_3": round(found[3].rate("router")),
        "records_per_s_10": round(found[10].rate("router")),
        "bare_records_per_s": round(found[1].rate("bare")),
        "dropped": sum(pairs.dropped for pairs in (*found.values(), many)),
        "lost": sum(pairs.lost("router") for pairs in (*found.values(), many)),
    }
    for (way, rate), bursts in delays.items():
        for percent in PERCENTILES:
            key = f"{way}_p{percent}_us_{rate // 1_000}k"
            figures[key] = round(delay_us(bursts, percent))
    for receivers in (1, 10):
        figures[f"router_us_per_record_{receivers}"] = round(found[receivers].cpu_us("router"), 4)
        figures[f"router_ends_us_per_record_{receivers}"] = round(found[receivers].ends_us("router"), 4)
        figures[f"bare_ends_us_per_record_{receivers}"] = round(found[receivers].ends_us("bare"), 4)
        figures[f"bare_us_per_record_{receivers}"] = round(found[receivers].cpu_us("bare"), 4)
    figures[f"router_us_per_record_{plan.many}"] = round(many.cpu_us("router"), 4)
    return figures


def main() -> None:
    """Print the tables, the bar, and the closing JSON line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="one short pair of each, in some 20 s")
    parser.add_argument("--strict", action="store_true", help="exit code 1 when the bar is missed")
    chosen = parser.parse_args()
    plan = QUICK if chosen.quick else FULL
    machine = Machine()
    with running_bus() as rig:
        found, delays = measure(rig, plan)
        many = measure_many(rig, plan)
    print(f"batches of {BATCH_RECORDS} step records; receivers in at most {MAX_PROCESSES} processes")
    print_rates(found, many, plan)
    print_delays(delays)
    ratios = found[1].ratios
    is_met = found[1].ratio >= BAR_RATIO if machine.is_quiet else None
    spread = f"{min(ratios):.3f} to {max(ratios):.3f}"
    print(f"bar: ratio {found[1].ratio:.3f} ({spread}) of {BAR_RATIO}: {verdict(is_met)}")
    print(f"CPU time of all processes, bare over router, one receiver: {found[1].cpu_ratio:.3f}")
    print(machine.line())
    figures = {**figures_of(found, many, delays, plan), "router_is_within_bar": is_met}
    print(json.dumps({**figures, **machine.figures()}))
    if chosen.strict and not is_met:
        sys.exit(1)


if __name__ == "__main__":
    main()
