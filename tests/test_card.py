from pathlib import Path

import pytest

from stacknorm.bundle import (
    Bundle,
    CascadeReport,
    CascadeSpec,
    FittedOn,
    Interval,
    StageSpec,
    StageTask,
    WindowSpec,
    load_bundle,
)
from stacknorm.evaluation.card import describe_calibrator, describe_pool, render_card
from stacknorm.pooling.calibrate import (
    BetaCalibration,
    BetaCurve,
    Calibrator,
    Identity,
    IsotonicCalibration,
    IsotonicCurve,
    Temperature,
    VectorScaling,
)
from stacknorm.pooling.conformal import ClassConditional
from stacknorm.pooling.pool import LogisticPool, Pool, PowerPool, TrimmedPool, VotePool
from tiny_bases import write_tiny_bundle

VOICES = ("first", "second")
HALVES = (0.25, 0.75)


@pytest.mark.parametrize(
    ("pool", "words"),
    [
        (PowerPool(weights=HALVES), "linear pool (first 0.250, second 0.750)"),
        (PowerPool(weights=HALVES, exponent=0), "log pool (first 0.250, second 0.750)"),
        (PowerPool(weights=HALVES, exponent=0.3), "power mean of exponent 0.3 (first 0.250, second 0.750)"),
        (VotePool(weights=HALVES), "hard vote (first 0.250, second 0.750)"),
        (TrimmedPool(members=2, cut=0), "trimmed mean of 2 members without the 0 lowest and highest"),
        (
            LogisticPool(coefficients=(((1, 0), (0, 1)),) * 2, intercepts=(0, 0), fallback=PowerPool(weights=HALVES)),
            "stacked logistic regression of 10 numbers (where a member is missing: first 0.250, second 0.750)",
        ),
    ],
)
def test_every_pool_is_described_with_its_parameters(pool: Pool, words: str) -> None:
    assert describe_pool(pool, VOICES) == words


@pytest.mark.parametrize(
    ("calibrator", "words"),
    [
        (Identity(), "no calibrator"),
        (Temperature(temperature=1.25), "temperature 1.250"),
        (VectorScaling(scales=(1, 2), biases=(0.5, -1)), "vector scaling (up 1.000 +0.500, down 2.000 -1.000)"),
        (
            BetaCalibration(curves=(BetaCurve(a=1, b=2, c=0), BetaCurve(a=1, b=1, c=-0.5))),
            "beta calibration (a, b, c: up 1.000 2.000 +0.000, down 1.000 1.000 -0.500)",
        ),
        (
            IsotonicCalibration(curves=(IsotonicCurve(shares=(0.1, 0.9), calibrated=(0.2, 0.8)),) * 2),
            "isotonic calibration (knots: 2, 2)",
        ),
    ],
)
def test_every_calibrator_is_described_with_its_parameters(calibrator: Calibrator, words: str) -> None:
    assert describe_calibrator(calibrator, ("up", "down")) == words


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    return load_bundle(write_tiny_bundle(tmp_path))


def card(bundle: Bundle, task: dict[str, object], **changes: object) -> str:
    spec = bundle.manifest.tasks["sentiment"].model_copy(update=task)
    return render_card(
        Bundle(bundle.root, bundle.manifest.model_copy(update={"tasks": {"sentiment": spec}, **changes}))
    )


def test_a_stack_that_was_not_fitted_says_so_and_one_that_was_says_on_what(bundle: Bundle) -> None:
    assert "**Not calibrated**" in card(bundle, {"calibrated": False})
    fitted = card(bundle, {"fitted_on": FittedOn(file="mine.csv", sha256="ab" * 32, rows=1234)})
    assert "fitted on 1,234 rows of mine.csv (`abababababababab…`)" in fitted
    assert "**Not calibrated**" not in fitted


def test_temperatures_sets_and_windows_stand_on_the_card(bundle: Bundle) -> None:
    sets = ClassConditional(alpha=0.1, thresholds=(0.9, 0.8, 0.7))
    told = card(
        bundle,
        {"member_temperatures": (1.1, 0.9), "conformal": sets},
        windows=WindowSpec(overlap_tokens=4, max_windows=3),
    )
    assert "temperatures of their own (first 1.100, second 0.900)" in told
    assert "for 90% of every label" in told
    assert "negative 0.100, neutral 0.200, positive 0.300" in told
    assert "at most 3 windows of 16 tokens" in told


def test_a_cascade_tells_what_it_spares_and_keeps_or_that_nobody_measured(bundle: Bundle) -> None:
    early = StageTask(pool=PowerPool(weights=(1,)), calibrator=Identity(), stop_above=0.9)
    stages = (StageSpec(members=("first",), tasks={"sentiment": early}), StageSpec(members=("second",)))
    cascade = CascadeSpec(mode="bounded", stages=stages, max_loss=0.003)
    told = card(bundle, {}, cascade=cascade)
    assert "stage 1: first, sentiment stops at 0.900; stage 2: second" in told
    assert "an expected 0.30 points" in told
    assert "was not measured" in told
    kept = {"sentiment": Interval(value=-0.001, low=-0.004, high=0.002)}
    report = CascadeReport(texts=500, ended=(0.6, 0.4), kept=kept)
    told = card(bundle, {}, cascade=cascade.model_copy(update={"report": report}))
    assert "Of 500 texts no member was trained on, 60.0%, 40.0% ended at each stage" in told
    assert "less that of the whole stack: -0.10 (-0.40 to +0.20) points" in told


def test_the_packaged_card_is_that_of_its_manifest() -> None:
    finance = load_bundle("finance")
    told = render_card(finance)
    assert f"Stack digest `{finance.digest}`" in told
    assert "LoRA adapter and heads" in told
    assert "linear pool (mean-r16" in told
    assert told.count("\n## ") == 5
