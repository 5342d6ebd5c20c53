"""A cascade stops where it may, and its exact mode never changes a label."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stacknorm.bundle import CascadeSpec, Manifest, StageSpec, StageTask, load_bundle, save_manifest
from stacknorm.engine import Engine
from stacknorm.errors import BundleError
from stacknorm.pooling.calibrate import Temperature
from stacknorm.pooling.cascade import is_settled
from stacknorm.pooling.pool import PowerPool
from tiny_bases import WORDS, member_spec, write_base, write_stack

seeds = st.integers(0, 2**32 - 1)


@given(seeds, st.integers(1, 3))
def test_a_settled_label_is_the_whole_pools_whatever_the_others_say(seed: int, run: int) -> None:
    random = np.random.default_rng(seed)
    members = random.dirichlet(np.full(3, 0.3), size=(4, 200))
    weights = tuple(random.dirichlet(np.ones(4)).tolist())
    partly = members.copy()
    partly[run:] = np.nan
    settled = is_settled(partly, weights)
    early = np.nansum(np.asarray(weights)[:, None, None] * partly, axis=0).argmax(axis=1)
    whole = PowerPool(weights=weights)(members).argmax(axis=1)
    assert (early[settled] == whole[settled]).all()


def test_everything_is_settled_once_all_members_have_spoken_and_nothing_before_any_has() -> None:
    members = np.array([[[0.6, 0.4]], [[0.1, 0.9]]])
    assert is_settled(members, (0.5, 0.5)).tolist() == [True]
    assert is_settled(np.full_like(members, np.nan), (0.5, 0.5)).tolist() == [False]


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two members on different bases; the first has most of the weight."""
    root = tmp_path_factory.mktemp("cascade")
    bases = write_base(root / "small", "bert"), write_base(root / "large", "roberta", seed=5)
    members = [member_spec(root / "bundle", name, base) for name, base in zip(("small", "large"), bases, strict=True)]
    bundle = write_stack(root / "bundle", members)
    edit(bundle, bundle, None, pool=PowerPool(weights=(0.7, 0.3)))
    return bundle


def edit(source: Path, out: Path, cascade: CascadeSpec | None, **task: object) -> Path:
    manifest = load_bundle(source).manifest
    spec = manifest.tasks["sentiment"].model_copy(update=task)
    changed = manifest.model_copy(update={"tasks": {"sentiment": spec}, "cascade": cascade})
    save_manifest(out, Manifest.model_validate_json(changed.model_dump_json()))
    return out


EXACT = CascadeSpec(mode="exact", stages=(StageSpec(members=("small",)), StageSpec(members=("large",))))
GIVEN = [" ".join(WORDS[n : n + 1 + n % 4]) for n in range(len(WORDS))]


def test_an_exact_cascade_gives_the_labels_of_the_whole_stack_and_spares_some_texts(stack: Path) -> None:
    whole = Engine.load(edit(stack, stack, EXACT), precision="fp32", form="width").predict(GIVEN)
    cascade = Engine.load(stack, precision="fp32")
    found = cascade.predict(GIVEN)
    assert cascade.form == "cascade"
    assert [p.tasks["sentiment"].label for p in found] == [p.tasks["sentiment"].label for p in whole]
    assert {p.stage for p in found} == {1, 2}
    assert not any(p.degraded for p in found)


@pytest.mark.parametrize(("stop_above", "stages"), [(0.0, {1}), (1.0, {2})])
def test_a_bounded_cascade_stops_at_its_confidence(stack: Path, stop_above: float, stages: set[int]) -> None:
    part = StageTask(pool=PowerPool(weights=(1.0,)), calibrator=Temperature(temperature=2.0), stop_above=stop_above)
    bounded = CascadeSpec(
        mode="bounded", stages=(StageSpec(members=("small",), tasks={"sentiment": part}), StageSpec(members=("large",)))
    )
    engine = Engine.load(edit(stack, stack, bounded), precision="fp32")
    found = engine.predict(GIVEN)
    assert {p.stage for p in found} == stages
    whole = Engine.load(stack, precision="fp32", form="width").predict(GIVEN)
    assert (found == [replace(prediction, stage=2) for prediction in whole]) is (stages == {2})


def test_a_cascade_is_another_stack_than_its_width(stack: Path) -> None:
    edit(stack, stack, EXACT)
    cascade, width = Engine.load(stack), Engine.load(stack, form="width")
    assert cascade.identity.name == "tiny/cascade"
    assert cascade.identity.digest != width.identity.digest


def test_an_exact_cascade_refuses_a_pool_it_cannot_bound(stack: Path) -> None:
    edit(stack, stack, EXACT, pool=PowerPool(weights=(0.7, 0.3), exponent=0))
    with pytest.raises(BundleError, match="an exact cascade needs a linear pool"):
        Engine.load(stack)


def test_a_bundle_without_a_cascade_says_so(stack: Path) -> None:
    edit(stack, stack, None)
    with pytest.raises(BundleError, match="bundle tiny has no cascade"):
        Engine.load(stack, form="cascade")
