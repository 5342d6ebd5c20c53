"""What a backfill learns: the week, priors, baselines and V; and what that is worth."""

from functools import cache
from random import Random

import numpy as np
import pytest

from schemas.events import KeyType
from surge_streams import DAY_SECONDS, STACK, WALL, at, event, stream
from test_detector import Log, busy, split
from tests.daily_cycle import AMPLITUDE, Cycle, cycle, learn_from, usual
from worker.backfill.spread import fit_prior
from worker.backfill.week import Hours, learn_week
from worker.backfill.words import describe_week, draw_week
from worker.detector import Detector, Position, detect
from worker.feeds.jsonl import BadArchive
from worker.surge.exposure import FLAT, HOUR_MS, HOURS, MONDAY_MS, WHOLE
from worker.surge.rules import Prior, Rules

WATCHED = Rules(budget_a_day=200)
"""1 % of the negative stories instead of 0.01 %, so that there is something to count."""


@cache
def small() -> Cycle:
    return Cycle(seed=1, symbols=4, days_before=14, days_after=5, rules=WATCHED)


# The week


def hourly(days: int, rate, seed: int = 0) -> tuple[Hours, np.ndarray]:
    """Poisson counts of the hours of some days; ``rate`` takes the hour of the week."""
    hours = Hours([MONDAY_MS, MONDAY_MS + days * 24 * HOUR_MS - 1], 10**12)
    drawn = np.random.default_rng(seed).poisson([rate(hour % HOURS) for hour in range(days * 24)])
    return hours, drawn.astype(float)


def test_a_daily_cycle_is_recovered():
    week = learn_week(*hourly(28, lambda hour: 20 * usual(hour % 24)))
    assert max(abs(weight / WHOLE - usual(hour % 24)) for hour, weight in enumerate(week.weights)) < 0.2


def test_quiet_weekends_are_recovered_and_their_hours_are_not_those_of_working_days():
    def rate(hour: int) -> float:
        return 4.0 if hour >= 120 else 20 * usual(hour % 24)

    week = learn_week(*hourly(56, rate))
    mean = sum(map(rate, range(HOURS))) / HOURS
    assert max(abs(weight / WHOLE - rate(hour) / mean) for hour, weight in enumerate(week.weights)) < 0.35
    assert describe_week(week.weights).startswith("busy on working days: 19-05 h; quiet on working days: 07-17 h; ")
    assert "quiet days: Sat, Sun" in describe_week(week.weights)


@pytest.mark.parametrize("seed", range(5))
def test_a_flat_week_stays_flat(seed):
    weights = np.asarray(learn_week(*hourly(56, lambda _: 5.0, seed)).weights)
    assert np.abs(weights / WHOLE - 1).max() < 0.1


def test_a_thin_archive_gives_a_flat_week():
    assert learn_week(*hourly(3, lambda hour: 20 * usual(hour % 24))) == FLAT
    thin = learn_week(*hourly(14, lambda hour: 0.02 * usual(hour % 24)))
    assert np.abs(np.asarray(thin.weights) / WHOLE - 1).max() < 0.5


def test_a_burst_is_no_habit():
    hours, counts = hourly(28, lambda _: 5.0)
    counts[200:206] += 300
    weights = np.asarray(learn_week(hours, counts).weights)
    assert np.abs(weights / WHOLE - 1).max() < 0.3


def test_hours_of_silence_are_not_looked_at():
    hours = Hours([MONDAY_MS, MONDAY_MS + 3 * HOUR_MS, MONDAY_MS + 48 * HOUR_MS, MONDAY_MS + 49 * HOUR_MS], 6 * HOUR_MS)
    assert hours.seen.tolist() == [1.0] * 9 + [0.0] * 39 + [1.0, 0.0]
    assert hours.count([MONDAY_MS + 1, MONDAY_MS + 48 * HOUR_MS])[[0, 48]].tolist() == [1.0, 1.0]


def test_the_picture_has_a_row_for_each_day_and_a_block_for_each_hour():
    rows = list(draw_week([WHOLE // 2] * 12 + [WHOLE] * 156))
    assert len(rows) == 8
    assert rows[1] == f"Mon  {'▄' * 12}{'█' * 12}"


# Priors


@pytest.mark.parametrize(("mean", "a0"), [(2.0, 0.8), (0.3, 2.0), (30.0, 1.0)])
def test_a_gamma_spread_between_keys_is_recovered(mean, a0):
    random = np.random.default_rng(3)
    days = random.uniform(5, 60, 1500)
    prior = fit_prior(random.poisson(random.gamma(a0, mean / a0, 1500) * days), days, Prior(1.0))
    assert prior.mean_a_day == pytest.approx(mean, rel=0.1)
    assert prior.a0 == pytest.approx(a0, rel=0.15)


def test_a_wider_spread_than_the_floor_gives_the_prior_of_the_busier_keys():
    random = np.random.default_rng(3)
    days = np.full(3000, 30.0)
    prior = fit_prior(random.poisson(random.gamma(0.1, 1 / 0.1, 3000) * days), days, Prior(1.0))
    assert prior.a0 == 0.5
    assert prior.mean_a_day > 1.5


def test_nothing_to_go_by_leaves_the_usual_prior():
    assert fit_prior([], [], Prior(7.0)) == Prior(7.0)
    assert fit_prior([0, 0], [10, 10], Prior(7.0)) == Prior(7.0)
    assert fit_prior([20, 40], [10, 10], Prior(7.0)) == Prior(3.0)


# All of it


def test_a_daily_cycle_fires_without_a_primer_and_is_within_the_budget_with_one():
    watched = small()
    budget = watched.keyed_negatives * WATCHED.budget_a_day / WATCHED.negatives_a_day
    without, with_primer = len(watched.alerts_without()), len(watched.alerts_with())
    assert with_primer <= 1.5 * budget < without, (without, with_primer, budget)


def test_what_is_proposed_is_what_the_archive_has():
    primer = small().learned.primer
    volume = primer.negatives_a_day
    assert volume.low < 4 * 20 * 4 < volume.high
    assert volume.low < volume.proposed < volume.high
    assert primer.archive.days == pytest.approx(14, abs=0.1)
    assert primer.stack == STACK
    assert (
        max(abs(weight / WHOLE - usual(hour)) for hour, weight in enumerate(primer.profiles[KeyType.market][:24])) < 0.4
    )
    assert AMPLITUDE == 0.8
    assert len(primer.baselines) == 1 + 4 + 5 + 4
    negatives, clusters, days = primer.baselines["entity:symbol:S1"]
    assert negatives / days == pytest.approx(20, rel=0.25)
    assert clusters / negatives == pytest.approx(2, rel=0.2)


def test_the_same_archive_gives_the_same_primer():
    assert learn_from(small().before, Rules()).primer.encode() == small().learned.primer.encode()


def test_a_primed_detector_fires_from_the_first_day_and_another_only_learns():
    watched = small()
    burst = [(15 * DAY_SECONDS + n * 60, {"symbols": ("S1",), "source": "abcd"[n % 4]}) for n in range(40)]
    day = stream([(14 * DAY_SECONDS + s, options) for s, options in cycle(Random(5), 4, 1.5)] + burst)
    rules = watched.learned.primer.apply(Rules())
    (alert,) = [a for a in detect(rules, day, emitted_at=WALL) if a.key == "symbol:S1" and a.revision == 1]
    assert alert.baseline.learning is False
    assert alert.baseline.a / alert.baseline.b == pytest.approx(20, rel=0.3)
    assert alert.provenance.rule_version == rules.version != Rules().version
    assert not detect(Rules(), day, emitted_at=WALL)


def test_under_another_stack_a_primed_detector_learns():
    watched = small()
    rules = watched.learned.primer.apply(Rules())
    for stack, learning in ((STACK, False), (STACK.model_copy(update={"digest": "d2"}), True)):
        detector = Detector(rules, 1)
        detector.begin({0: Position(0, 0)})
        detector.add_event(0, 0, event(0, 1.0, symbols=("S1",), stack=stack))
        detector.step(10, WALL)
        assert detector.learning is learning
        assert (detector.baselines()["entity:symbol:S1"][2] > 0) is not learning


def test_a_new_stack_takes_the_primer_only_if_it_is_of_it():
    rules = small().learned.primer.apply(Rules())
    other = STACK.model_copy(update={"digest": "d2"})
    detector = Detector(rules, 1)
    detector.begin({0: Position(0, 0)})
    for number, stack in enumerate((other, STACK)):
        detector.add_event(0, number, event(number, number * 2 * DAY_SECONDS, symbols=("S1",), stack=stack))
    detector.add_event(0, 2, event(2, 2 * DAY_SECONDS + 1, symbols=("NEW",)))
    while detector.step(1, WALL) is not None:
        pass
    assert not detector.learning
    baselines = detector.baselines()
    assert baselines["entity:symbol:S1"] == pytest.approx(small().learned.primer.baselines["entity:symbol:S1"])
    assert baselines["entity:symbol:NEW"] == (0.0, 0.0, 0.0)


def test_alerts_of_a_primed_detector_survive_restarts():
    rules = Rules(negatives_a_day=50, learning_days=2, max_frozen_hours=8)
    primed = learn_from([item for item in busy() if item.stack == STACK], rules).primer.apply(rules)
    parts = split(busy(), 2, Random(4))
    alerts, _ = Log(parts, Random(4)).run(0.2, primed)
    assert [a.to_json() for a in alerts] == [a.to_json() for a in detect(primed, *parts, emitted_at=WALL, run_out=True)]
    assert min(alert.detected_at for alert in alerts) < at(2 * DAY_SECONDS)


@pytest.mark.parametrize(
    ("items", "problem"),
    [
        (
            [(hour * 3600.0, {"negative": hour % 2 == 0}) for hour in range(40)],
            "less than 3 days under the stack test d1",
        ),
        ([(hour * 3600.0, {"negative": False}) for hour in range(100)], "no story of the archive is negative"),
    ],
)
def test_an_archive_that_teaches_nothing_is_refused(items, problem):
    with pytest.raises(BadArchive, match=problem):
        learn_from(stream(items), Rules())
