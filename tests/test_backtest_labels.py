"""Labels are kept, bit for bit, and the stack is asked only for what is not."""

from collections.abc import Sequence
from contextlib import closing
from dataclasses import replace
from datetime import date

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stacknorm.prediction import EntityPrediction, Prediction, Span, StackIdentity, TaskPrediction
from worker.backtest.label_store import KeptLabels, RememberingEngine, decode, encode, place_of
from worker.deterministic import DeterministicEngine
from worker.errors import Misconfigured
from worker.settings import EngineSettings

finite = st.floats(allow_nan=False, allow_infinity=False)
tasks = st.dictionaries(
    st.sampled_from(["sentiment", "topic"]),
    st.builds(
        TaskPrediction,
        label=st.text(max_size=5),
        probabilities=st.dictionaries(st.text(max_size=3), finite, max_size=3),
        entropy=finite,
        disagreement=finite,
        margin=finite,
        conformal_set=st.lists(st.sampled_from("ab"), max_size=2).map(tuple),
    ),
)
places = {"start": st.integers(0, 9), "end": st.integers(0, 9)}
entities = st.builds(EntityPrediction, scheme=st.just("symbol"), entity=st.just("A"), tasks=tasks, **places)
spans = st.builds(Span, label=st.just("x"), probability=finite, **places)


class Counting(DeterministicEngine):
    """Notes what it is asked; says all of it degraded if told so."""

    def __init__(self, *, degraded: bool = False) -> None:
        super().__init__()
        self.asked: list[str] = []
        self._dropped = ("member",) if degraded else ()

    def predict(self, texts: Sequence[str], *, days: Sequence[date] | None = None) -> list[Prediction]:
        self.asked += texts
        return [replace(said, dropped=self._dropped) for said in super().predict(texts, days=days)]


@given(
    st.builds(
        Prediction,
        tasks=tasks,
        entities=st.lists(entities, max_size=2).map(tuple),
        spans=st.dictionaries(st.just("t"), st.lists(spans, max_size=2).map(tuple)),
        abstained_because=st.none() | st.text(max_size=5),
    )
)
def test_a_prediction_survives_being_kept_bit_for_bit(prediction):
    assert decode(encode(prediction)) == prediction


def test_the_stack_is_asked_once_for_each_text_of_a_day(tmp_path):
    engine, days = Counting(), [date(2026, 3, 2)] * 3
    for texts in (["a", "b", "a"], ["b", "c", "b"]):
        with closing(KeptLabels(tmp_path / "deep" / "labels.sqlite")) as kept:
            said = RememberingEngine(engine, kept).predict(texts, days=days)
        assert said == DeterministicEngine().predict(texts)
    assert engine.asked == ["a", "b", "c"]


def test_a_name_may_mean_another_company_on_another_day(tmp_path):
    engine = Counting()
    with closing(KeptLabels(tmp_path / "labels.sqlite")) as kept:
        for day in (1, 2):
            RememberingEngine(engine, kept).predict(["a"], days=[date(2026, 3, day)])
    assert engine.asked == ["a", "a"]


def test_what_a_stack_says_without_a_member_is_not_kept(tmp_path):
    engine = Counting(degraded=True)
    with closing(KeptLabels(tmp_path / "labels.sqlite")) as kept:
        remembering = RememberingEngine(engine, kept)
        assert [said.degraded for said in remembering.predict(["a"]) + remembering.predict(["a"])] == [True, True]
    assert engine.asked == ["a", "a"]


def test_stacks_and_settings_that_label_otherwise_keep_apart(tmp_path):
    stack = StackIdentity("finance/cascade", "d" * 64)
    aliases = tmp_path / "aliases.json"
    aliases.write_text("{}")
    settings = EngineSettings()
    places = {
        place_of(tmp_path, stack, settings),
        place_of(tmp_path, replace(stack, digest="e" * 64), settings),
        place_of(tmp_path, stack, settings.model_copy(update={"precision": "fp32"})),
        place_of(tmp_path, stack, settings.model_copy(update={"language_guard": False})),
        place_of(tmp_path, stack, settings.model_copy(update={"aliases": aliases})),
    }
    assert len(places) == 5
    assert place_of(tmp_path, stack, settings.model_copy(update={"bundle": "elsewhere"})) in places


def test_a_file_that_keeps_no_labels_is_named(tmp_path):
    path = tmp_path / "labels.sqlite"
    path.write_text("something else, and long enough to be no empty file" * 10)
    with pytest.raises(Misconfigured, match=r"labels\.sqlite"):
        KeptLabels(path)
