"""`make chaos`: kill everything, at random, as often as asked, and compare what returned with what is stored.

Exit code 0 when every record that returned is stored exactly once and as it was, else 1.
"""

import argparse
import functools
import os
import signal
import sys
from pathlib import Path

from chaos.campaign import Campaign
from chaos.plan import VICTIMS
from chaos.report import json_line, markdown, table


def main() -> int:
    """Run the campaign that the options describe."""
    parser = argparse.ArgumentParser(prog="make chaos", description=__doc__)
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--seed", default=os.urandom(4).hex())
    parser.add_argument("--only", default=",".join(VICTIMS), help="victims, with commas: " + ", ".join(VICTIMS))
    parser.add_argument("--first-round", type=int, default=1, help="where to begin: to play one round again")
    parser.add_argument("--round-kills", type=int, default=25, help="kills between two verdicts")
    parser.add_argument("--rate", type=float, default=4_000.0, help="calls a second, bursts aside")
    parser.add_argument("--directory", type=Path, default=Path("/tmp"), help="where the arenas are made; a short path")
    parser.add_argument("--report", type=Path, help="write the result as Markdown")
    chosen = parser.parse_args()
    victims = tuple(chosen.only.split(","))
    unknown = set(victims) - set(VICTIMS)
    if unknown:
        parser.error(f"no victims: {', '.join(sorted(unknown))}")
    campaign = Campaign(
        seed=chosen.seed,
        kills=chosen.kills,
        victims=victims,
        first_round=chosen.first_round,
        round_kills=chosen.round_kills,
        rate=chosen.rate,
        say=functools.partial(print, flush=True),
    )
    print(f"seed {chosen.seed}", flush=True)
    signal.signal(signal.SIGTERM, lambda number, _frame: sys.exit(128 + number))  # so that the arena is swept
    is_exact = campaign.run(chosen.directory)
    print(table(campaign))
    for failure in campaign.failures:
        print(f"\nFAILED {failure}")
    if chosen.report is not None:
        chosen.report.write_text(markdown(campaign, chosen.directory), "utf-8")
    print(json_line(campaign))
    return 0 if is_exact else 1


if __name__ == "__main__":
    sys.exit(main())
