"""`python -m tests.judge`: the detector under the rules as they come, on streams whose truth is known.

What a back-test's `--judge` measures under a user's rules, with more trials, and one thing more. Daily cycle: 80 % more
by day and less by night; false alerts a day with a primer of the weeks before, and without.
"""

import os
import sys
from argparse import ArgumentParser
from dataclasses import replace

from rich.progress import Progress

from stacknorm.progress import draw_on
from tests.daily_cycle import Cycle
from worker.backtest.output import render_judgement, spell_verdict
from worker.console import err, out
from worker.judging.chance import Chance
from worker.judging.judge import Plan, judge
from worker.surge.rules import Rules

RULES = Rules()
FULL = Plan(calm_streams=8, calm_alerts=80, trials=60)
QUICK = Plan(calm_streams=1, calm_alerts=1, trials=2, rates=(10,), jumps=(8, 50))
CYCLES, CYCLE_DAYS = 4, 14


def measure_cycle(cycles: int, days: float) -> tuple[Chance, Chance]:
    """With a primer, and without one: the same days of 20 symbols with 20 negative stories a day."""
    alerts_with = alerts_without = negatives = 0
    for seed in range(cycles):
        cycle = Cycle(seed, symbols=20, days_before=21, days_after=days, rules=RULES)
        alerts_with += len(cycle.alerts_with())
        alerts_without += len(cycle.alerts_without())
        negatives += cycle.keyed_negatives
    flat = Chance(alerts_without, negatives, RULES.negatives_a_day, RULES.budget_a_day)
    return replace(flat, alerts=alerts_with), flat


def main() -> None:
    """Print the table; exit status 1 where a bar is missed."""
    parser = ArgumentParser(prog="python -m tests.judge", description="The detector on streams whose truth is known.")
    parser.add_argument("--quick", action="store_true", help="a minute's worth, which shows that it runs")
    parser.add_argument("--trials", type=int, help=f"of each jump, and streams with copies (default {FULL.trials})")
    told = parser.parse_args()
    plan = QUICK if told.quick else FULL
    plan = replace(plan, trials=told.trials or plan.trials)
    with Progress(console=err, disable=not err.is_terminal) as progress:
        judgement = judge(RULES, plan=plan, processes=os.cpu_count() or 1, report=draw_on(progress))
    primed, flat = measure_cycle(*((1, 5) if told.quick else (CYCLES, CYCLE_DAYS)))
    cycle_met = primed.a_day.value <= RULES.budget_a_day < flat.a_day.low
    table = render_judgement(judgement)
    table.add_row(
        "daily cycle of 80 %, with a primer",
        f"{primed.a_day.value:.2f} ({primed.a_day.low:.2f} to {primed.a_day.high:.2f}), {primed.alerts} in all; "
        f"without {flat.a_day.value:.1f}, {flat.alerts}",
        f"{RULES.budget_a_day:g}",
        spell_verdict(met=cycle_met),
    )
    out.print(table)
    sys.exit(0 if judgement.met and cycle_met else 1)


if __name__ == "__main__":
    main()
