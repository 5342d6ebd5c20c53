"""A backfill: an archive through the labeller's and the detector's own code, twice, and what there is to learn of it.

First with a flat week, which gives the profiles, the priors and V; then with them, which gives the baselines.
"""

from array import array
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from schemas.events import KeyType
from stacknorm.progress import Report, tell_nobody
from worker import codec
from worker.backfill.spread import fit_prior
from worker.backfill.week import Array, Hours, learn_week
from worker.backtest.archive import Labelled, Selection
from worker.backtest.course import Course
from worker.backtest.replay import Runs
from worker.backtest.run import WHOLE, Labelling, open_archive
from worker.engines import load_engine
from worker.errors import Misconfigured
from worker.feeds.jsonl import BadArchive
from worker.judging.intervals import count_interval
from worker.labeller import Engine
from worker.lives import fired_lives
from worker.primer import ArchiveSpan, KeyPrior, Primer, Volume
from worker.settings import EngineSettings, Settings
from worker.surge.baseline import HOUR_MS
from worker.surge.exposure import Profile
from worker.surge.keys import Key
from worker.surge.rules import Prior, Priors, Profiles, Rules


@dataclass(frozen=True, slots=True)
class Backfill:
    """What came of it.

    Attributes:
        primer: what was learned.
        rules: under which it was, without it.
        alerts_before: alerts of the archive with a flat week and the usual priors.
        alerts_after: those with what was learned.
        labelling: None where the events came labelled.
    """

    primer: Primer
    rules: Rules
    alerts_before: int
    alerts_after: int
    labelling: Labelling | None = None


def run_backfill(
    paths: Sequence[Path],
    settings: Settings,
    *,
    bundle: str | None = None,
    selection: Selection = WHOLE,
    cache: Path | None = None,
    make_engine: Callable[[EngineSettings], Engine] = load_engine,
    report: Report = tell_nobody,
) -> Backfill:
    """Learn from an archive; see `worker.backtest.run.run_backtest` for what is read and raised.

    Args:
        paths: the archive.
        settings: of the workers that are to be primed; a primer they have is left aside.
        bundle: that is to be primed, instead of the settings'.
        selection: what of the archive counts.
        cache: where labels are kept.
        make_engine: makes what labels.
        report: told how far it is.
    """
    now = datetime.now(UTC)
    if bundle is not None:
        settings = settings.model_copy(update={"engine": settings.engine.model_copy(update={"bundle": bundle})})
    with open_archive(paths, settings, now, selection=selection, cache=cache, make_engine=make_engine) as told:
        if bundle is not None and isinstance(told.archive, Labelled):
            raise Misconfigured("these events are labelled already; --bundle needs the news items they were made from")
        learned = learn(told.tell, told.partitions, settings.rules_without_primer, now, report)
        return replace(learned, labelling=told.labelling())


def learn(
    tell: Callable[[Report], Iterable[Runs]], partitions: int, rules: Rules, now: datetime, report: Report = tell_nobody
) -> Backfill:
    """Learn from an archive that can be told twice.

    Raises:
        BadArchive: it is too short, or nothing in it is negative.
    """
    clocks_ms: array[int] = array("q")
    flat = Course(rules, partitions, now)
    flat.follow(_note_clocks(tell(report), clocks_ms))
    if flat.first is None or flat.last is None:
        raise BadArchive(f"the stack could label none of the {flat.dead:,} items")
    if not flat.histories.negatives:
        raise BadArchive("no story of the archive is negative: there is nothing to learn")
    hours = Hours(clocks_ms, round(rules.max_silence_hours * HOUR_MS))
    profiles = _learn_profiles(flat, hours)
    learned = replace(rules, profiles=profiles, priors=_learn_priors(flat, hours, profiles, rules))
    shaped = Course(learned, partitions, now)
    shaped.follow(tell(lambda _, done, total: report("learning", done, total)))
    facts, stack = shaped.detector.facts(), shaped.detector.stack
    assert stack is not None
    if facts.learning:
        raise BadArchive(
            f"the archive has less than {rules.learning_days:g} days under the stack {stack.name} "
            f"{stack.digest[:12]} ({facts.exposure_days:.1f} in all, silences left out): too few to learn from"
        )
    primer = Primer(
        stack=stack,
        archive=ArchiveSpan(
            first=flat.first,
            last=flat.last,
            days=round(facts.exposure_days, 3),
            stories=flat.histories.stories,
            keyed_negatives=flat.histories.keyed_negatives,
        ),
        negatives_a_day=_propose_volume(flat, hours),
        priors={each: KeyPrior(mean_a_day=(p := learned.priors.of(each)).mean_a_day, a0=p.a0) for each in KeyType},
        profiles={each: profiles.of(each).weights for each in KeyType},
        baselines={name: _round(found) for name, found in sorted(shaped.detector.baselines().items())},
    )
    return Backfill(primer, rules, _count_alerts(flat), _count_alerts(shaped))


def _note_clocks(units: Iterable[Runs], clocks_ms: "array[int]") -> Iterator[Runs]:
    for runs in units:
        clocks_ms.extend(codec.to_ms(event.clock) for run in runs.values() for event in run.events)
        yield runs


def _count_alerts(course: Course) -> int:
    return len(fired_lives(course.alerts))


def _round(baseline: tuple[float, float, float]) -> tuple[float, float, float]:
    negatives, clusters, days = (round(amount, 6) for amount in baseline)
    return negatives, clusters, days


def _negatives_of(course: Course, key_type: KeyType) -> "list[array[int]]":
    histories = course.histories.by_key
    return [history.negatives_ms for name, history in histories.items() if Key.parse(name).type is key_type]


def _hourly(course: Course, hours: Hours, key_type: KeyType | None = None) -> Array:
    """Negative stories of each hour, over the keys of a type or all keys."""
    total = np.zeros(len(hours.seen))
    for each in KeyType if key_type is None else (key_type,):
        for clocks_ms in _negatives_of(course, each):
            total += hours.count(clocks_ms)
    return total


def _learn_profiles(course: Course, hours: Hours) -> Profiles:
    """The market's, and those of the others where they are known to differ from it."""
    market = learn_week(hours, _hourly(course, hours, KeyType.market))
    others = {
        each.name: learn_week(hours, _hourly(course, hours, each), market) for each in KeyType if each.name != "market"
    }
    return Profiles(market=market, **others)


def _learn_priors(course: Course, hours: Hours, profiles: Profiles, rules: Rules) -> Priors:
    return Priors(**{each.name: _learn_prior(course, hours, profiles.of(each), each, rules) for each in KeyType})


def _learn_prior(course: Course, hours: Hours, profile: Profile, key_type: KeyType, rules: Rules) -> Prior:
    """From the stories of each key after the one that made it known, as its baseline counts them."""
    still_to_come = hours.days_to_come(profile)
    stories, days = [], []
    for name, history in course.histories.by_key.items():
        if Key.parse(name).type is key_type:
            first_ms = history.stories_ms[0]
            stories.append(sum(clock_ms > first_ms for clock_ms in history.negatives_ms))
            days.append(still_to_come[hours.place_of(first_ms)])
    return fit_prior(stories, days, rules.priors.of(key_type))


def _propose_volume(course: Course, hours: Hours) -> Volume:
    """V, and an interval that is as much wider than Poisson's as days differ more than by chance."""
    days = float(hours.seen.sum()) / 24
    stories = course.histories.keyed_negatives
    of_day, heard = hours.by_day(_hourly(course, hours)), hours.by_day(hours.seen) / 24
    whole = heard > 0.9
    spread = max(1.0, float(of_day[whole].var(ddof=1) / of_day[whole].mean())) if whole.sum() > 2 else 1.0
    low, high = (end * spread / days for end in count_interval(round(stories / spread)))
    return Volume(proposed=_digits(stories / days), low=_digits(low), high=_digits(high))


def _digits(amount: float) -> float:
    """Three of them: more would say more than is known."""
    return float(f"{amount:.3g}")
