"""All that is measured of the detector under some rules, spread over processes; the same input gives the same."""

from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from multiprocessing import get_context
from typing import Any

from schemas.events import StackRef
from stacknorm.progress import Report, tell_nobody
from worker.judging.chance import NEGATIVE_SHARE, Chance, pace_of, watch_calm
from worker.judging.jumps import Jump, try_jump
from worker.judging.reprints import Comparison, compare_copies
from worker.judging.resampling import MIN_DAYS, Days, Resampled, Watched, watch_resampled
from worker.judging.streams import KEYS_OF_A_STORY
from worker.surge.rules import Rules


@dataclass(frozen=True, slots=True)
class Plan:
    """How much is simulated.

    Attributes:
        calm_streams: without a surge.
        calm_alerts: false alerts that they should have by the budget, all together: the more, the surer.
        calm_stories: of them at most, all together.
        rates: negative stories a day of the symbols that surge.
        jumps: how many times as many they become.
        trials: of each jump, and streams with copies.
        resampled_streams: drawn from an archive.
        resampled_stories: of them at most, all together, if that leaves each `MIN_DAYS`.
    """

    calm_streams: int = 4
    calm_alerts: float = 40.0
    calm_stories: float = 600_000.0
    rates: tuple[float, ...] = (1, 10, 100)
    jumps: tuple[float, ...] = (4, 8, 16, 50)
    trials: int = 16
    resampled_streams: int = 40
    resampled_stories: float = 400_000.0


@dataclass(frozen=True, slots=True)
class Archive:
    """The stories of an archive, copies left out, by whole days; and the stack that labelled them."""

    days: Days
    stack: StackRef


@dataclass(frozen=True, slots=True)
class Judgement:
    """What was found; ``resampled`` is None without an archive, or where it is too short."""

    chance: Chance
    jumps: tuple[Jump, ...]
    copies: tuple[Comparison, ...]
    resampled: Resampled | None = None

    @property
    def met(self) -> bool:
        """Whether every bar is met."""
        return self.chance.met and all(jump.met for jump in self.jumps) and self.copies_met

    @property
    def copies_met(self) -> bool:
        """Whether copies changed no alert, and there were some."""
        return all(each.same for each in self.copies) and any(each.alerts for each in self.copies)


def judge(
    rules: Rules,
    archive: Archive | None = None,
    plan: Plan | None = None,
    *,
    processes: int = 1,
    report: Report = tell_nobody,
) -> Judgement:
    """Measure the detector under some rules.

    Args:
        rules: a user's.
        archive: its arrivals are drawn anew; without one, only made-up streams are looked at.
        plan: how much is done.
        processes: that do it; one is this one.
        report: told how far it is.
    """
    plan = plan or Plan()
    cells = [(rate, jump) for rate in plan.rates for jump in plan.jumps]
    parts: dict[str, list[Callable[[], Any]]] = {
        "jumps": [partial(try_jump, rules, *cell, seed) for cell in cells for seed in range(plan.trials)],
        "copies": [partial(compare_copies, rules, seed) for seed in range(plan.trials)],
        "resampled": [] if archive is None else _plan_resampled(rules, archive, plan),
        "calm": [partial(watch_calm, rules, _calm_days(rules, plan), seed) for seed in range(plan.calm_streams)],
    }
    found = iter(_carry_out([task for part in parts.values() for task in part], processes, report))
    trials, copies, resampled, calm = ([next(found) for _ in part] for part in parts.values())
    return Judgement(
        chance=Chance(
            alerts=sum(each.alerts for each in calm),
            keyed_negatives=sum(each.keyed_negatives for each in calm),
            negatives_a_day=rules.negatives_a_day,
            budget_a_day=rules.budget_a_day,
        ),
        jumps=tuple(
            Jump(
                *cell,
                tuple(trials[plan.trials * n : plan.trials * (n + 1)]),
                rules.budget_a_day / rules.negatives_a_day,
            )
            for n, cell in enumerate(cells)
        ),
        copies=tuple(copies),
        resampled=_summarise(resampled),
    )


def _calm_days(rules: Rules, plan: Plan) -> float:
    """Of each stream, beside those in which the detector learns."""
    pace = pace_of(rules)
    stories_a_day = pace / KEYS_OF_A_STORY / NEGATIVE_SHARE
    wanted = plan.calm_alerts / rules.budget_a_day * rules.negatives_a_day / pace
    return max(min(wanted, plan.calm_stories / stories_a_day) / plan.calm_streams, 0.1)


def _resampled_dates(archive: Archive, plan: Plan) -> int:
    """How many dates each stream has: those of the archive, or as many of them as there is time for."""
    stories_a_day = max(sum(map(len, archive.days.values())) / len(archive.days), 1)
    affordable = int(plan.resampled_stories / plan.resampled_streams / stories_a_day)
    return min(len(archive.days), max(affordable, MIN_DAYS))


def _plan_resampled(rules: Rules, archive: Archive, plan: Plan) -> list[Callable[[], Any]]:
    if len(archive.days) < MIN_DAYS:
        return []
    dates = _resampled_dates(archive, plan)
    return [
        partial(watch_resampled, rules, archive.days, dates, archive.stack, seed)
        for seed in range(plan.resampled_streams)
    ]


def _summarise(streams: Sequence[Watched]) -> Resampled | None:
    """Nothing where silences, in which exposure stands still, have left less than a day to watch."""
    return Resampled(tuple(streams)) if streams and min(stream.days for stream in streams) >= 1 else None


def _carry_out(tasks: Sequence[Callable[[], Any]], processes: int, report: Report) -> list[Any]:
    """What each task gives, in their order."""
    found = []
    if processes == 1:
        for done, task in enumerate(tasks, 1):
            found.append(task())
            report("judging", done, len(tasks))
        return found
    with ProcessPoolExecutor(processes, mp_context=get_context("spawn")) as pool:
        for done, one in enumerate(pool.map(_call, tasks), 1):
            found.append(one)
            report("judging", done, len(tasks))
    return found


def _call(task: Callable[[], Any]) -> Any:
    return task()
