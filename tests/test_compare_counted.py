"""Bundles compared on tasks with any number of labels or spans a text; numbers counted by hand stand in comments."""

import json
from collections.abc import Callable
from datetime import UTC, datetime
from itertools import permutations
from pathlib import Path

import numpy as np
import pytest
import typer
from typer.testing import CliRunner

from stacknorm.bundle import TaskSpec, load_bundle, save_manifest
from stacknorm.commands.compare import compare
from stacknorm.engine import Engine
from stacknorm.errors import DataError
from stacknorm.evaluation.compare_counted import (
    CountedMatch,
    Finding,
    compare_counted,
    count_apart,
    furthest_apart,
    match_counts,
)
from stacknorm.evaluation.compare_sentences import spell_verdict
from stacknorm.evaluation.counted import CountedSheet, Found, compare_counts, find_all
from stacknorm.evaluation.page import render_comparison
from stacknorm.evaluation.trial import Question
from stacknorm.pooling.calibrate import Identity
from stacknorm.pooling.pool import mean_pool
from stacknorm.spans.score import count_spans
from test_evaluation_page import Reader
from test_reading import KINDS, add_heads
from test_reading import LABELS as TASK_LABELS
from tiny_bases import WORDS, member_spec, write_base, write_stack

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
LABELS = ("company", "place")
app = typer.Typer()
app.command()(compare)
runner = CliRunner()


def found(*spans: tuple[int, int, str]) -> Found:
    return frozenset(spans)


TEXTS = ("Acme rises", "Acme in Rome", "Oil up today", "Rom falls")
TRUTH = (found((0, 4, "company")), found((0, 4, "company"), (8, 12, "place")), found(), found((0, 3, "place")))
FIRST = (
    found((0, 4, "company")),
    found((0, 4, "company")),
    found((0, 3, "company"), (4, 6, "company"), (7, 12, "place")),
    found((0, 2, "place")),
)
SECOND = (TRUTH[0], TRUTH[1], found(), found((0, 3, "company")))


def match(first: tuple[Found, ...], second: tuple[Found, ...], truth: tuple[Found, ...]) -> CountedMatch:
    counts = [count_spans(one, truth, LABELS) for one in (first, second)]
    return match_counts(*counts, count_apart(first, second), LABELS)


def test_scores_of_both_are_those_counted_by_hand() -> None:
    made = match(FIRST, SECOND, TRUTH)
    # A: 2 found, 4 wrongly found, 2 missed. B: 3 found, 1 wrongly found, 1 missed.
    assert {name: one.value for name, one in made.first.items()} == pytest.approx(
        {"precision": 2 / 6, "recall": 2 / 4, "micro_f1": 4 / 10, "macro_f1": (4 / 6 + 0) / 2}, abs=1e-5
    )
    assert {name: one.value for name, one in made.second.items()} == pytest.approx(
        {"precision": 3 / 4, "recall": 3 / 4, "micro_f1": 6 / 8, "macro_f1": (4 / 5 + 2 / 3) / 2}, abs=1e-5
    )
    assert made.paired.micro_f1.value == pytest.approx(0.75 - 0.4)
    assert all(one.low <= one.value <= one.high for side in (made.first, made.second) for one in side.values())


def test_each_label_tells_how_often_it_is_true_and_given_the_shift_and_both_f1() -> None:
    company, place = match(FIRST, SECOND, TRUTH).rates
    assert (company.label, company.true, company.first, company.second) == ("company", 2 / 4, 4 / 4, 3 / 4)
    assert (place.label, place.true, place.first, place.second) == ("place", 2 / 4, 2 / 4, 1 / 4)
    assert (company.difference.value, place.difference.value) == (-0.25, -0.25)
    made = match(FIRST, SECOND, TRUTH)
    assert [one.f1.value for one in made.first_labels] == pytest.approx([4 / 6, 0], abs=1e-5)
    assert [one.f1.value for one in made.second_labels] == pytest.approx([4 / 5, 2 / 3], abs=1e-5)
    assert [(one.true, one.given) for one in made.second_labels] == [(2, 3), (2, 1)]


def test_texts_of_two_are_drawn_together() -> None:
    # A draw of two texts holds one of them twice with probability 1/4 each, so the interval ends at what each alone
    # gives: on the first text 1 against 4/5, on the second nothing against nothing. Drawn apart it would be -1 to 4/5.
    truth = (found((0, 1, "company"), (1, 2, "company")), found((0, 1, "company"), (1, 2, "company")))
    first = (truth[0], found())
    second = (truth[0] | found((2, 3, "place")), found())
    difference = compare_counts(*(count_spans(one, truth, LABELS) for one in (second, first))).micro_f1
    assert (difference.value, difference.low, difference.high) == pytest.approx((4 / 7 - 4 / 6, -1 / 5, 0), abs=1e-5)


@pytest.mark.parametrize(
    ("wrong_in", "verdict"), [((0, 30), "better"), ((30, 0), "worse"), ((30, 30), "undecided"), ((1, 0), "undecided")]
)
def test_the_verdict_is_that_of_the_interval(wrong_in: tuple[int, int], verdict: str) -> None:
    truth = (found((0, 4, "company"), (8, 12, "place")),) * 40
    mine, other = ((found((0, 4, "company")),) * wrong + truth[wrong:] for wrong in wrong_in)
    made = match(other, mine, truth)
    assert made.paired.verdict == verdict
    told = {"better": "B is better than A", "worse": "B is worse than A", "undecided": "B cannot be told apart from A"}
    assert spell_verdict("B", "A", made.paired).startswith(told[verdict])


def test_systems_that_answered_other_texts_are_not_compared() -> None:
    ours, theirs = count_spans(FIRST, TRUTH, LABELS), count_spans(FIRST, TRUTH[::-1], LABELS)
    for other in (theirs, ours[1:]):
        with pytest.raises(DataError, match="the same texts and labels"):
            compare_counts(ours, other)


def test_texts_the_two_are_furthest_apart_on_come_first_and_agreements_never() -> None:
    assert count_apart(FIRST, SECOND).tolist() == [0, 1, 3, 2]
    assert match(FIRST, SECOND, TRUTH).disagreeing == 3
    widest, middle, least = furthest_apart(TEXTS, TRUTH, FIRST, SECOND, 5)
    assert [one.apart for one in (widest, middle, least)] == [3, 2, 1]
    assert (widest.text, widest.truth, widest.second) == ("Oil up today", (), ())
    assert widest.first == (
        Finding("company", 0, 3, "Oil"),
        Finding("company", 4, 6, "up"),
        Finding("place", 7, 12, "today"),
    )
    assert (middle.truth, middle.first) == ((Finding("place", 0, 3, "Rom"),), (Finding("place", 0, 2, "Ro"),))
    assert [one.text for one in furthest_apart(TEXTS, TRUTH, FIRST, SECOND, 1)] == ["Oil up today"]


def write_kinds(root: Path, member: str) -> Path:
    """A bundle of one member that answers a task of every kind; another name, another opinion."""
    spec = member_spec(root, member, write_base(root / "base"))
    write_stack(root, [spec])
    before = load_bundle(root).manifest
    tasks = {
        task: TaskSpec(kind=KINDS[task], labels=labels, pool=mean_pool(1), calibrator=Identity(), best_member=member)
        for task, labels in TASK_LABELS.items()
    }
    changed = {"name": member, "members": (add_heads(root, spec),), "tasks": {**before.tasks, **tasks}}
    save_manifest(root, before.model_copy(update=changed))
    return root


@pytest.fixture(scope="module")
def bundles(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    root = tmp_path_factory.mktemp("counted")
    return str(write_kinds(root / "a", "ten")), str(write_kinds(root / "b", "eleventh"))


Says = tuple[tuple[str, ...], tuple[Found, ...], tuple[Found, ...]]


@pytest.fixture(scope="module")
def said(bundles: tuple[str, str]) -> Callable[[str], Says]:
    """Texts, and what either bundle finds in them for a task; asked once."""
    texts = ("<i>oil</i> & gold rises", *(" ".join(words) for words in permutations(WORDS[:8], 2)))
    engines = [Engine.load(bundle, language_guard=False) for bundle in bundles]
    sheet = CountedSheet(texts, (frozenset(),) * len(texts), 0)
    return lambda task: (texts, *(find_all(engine, task, sheet) for engine in engines))


def write_truth(path: Path, texts: tuple[str, ...], truth: tuple[Found, ...], task: str) -> Path:
    """Rows as the file formats have them."""
    lines = []
    for text, true in zip(texts, truth, strict=True):
        if task == "themes":
            row = {"text": text, "labels": [label for _, _, label in true]}
        else:
            row = {"text": text, "spans": [{"start": start, "end": end, "label": label} for start, end, label in true]}
        lines.append(json.dumps(row))
    path.write_text("\n".join(lines))
    return path


@pytest.mark.parametrize("task", ["themes", "names"])
def test_the_better_of_two_is_told_and_a_pipeline_stops_for_the_worse(
    task: str, bundles: tuple[str, str], said: Callable[[str], Says], tmp_path: Path
) -> None:
    texts, ours, theirs = said(task)
    data = write_truth(tmp_path / "rows.jsonl", texts, ours, task)  # so that A finds everything, and nothing else
    out, page = tmp_path / "out.json", tmp_path / "out.html"
    asked = [str(data), "--task", task, "--fail-if-worse"]
    done = runner.invoke(app, [*bundles, *asked, "--json", str(out), "--html", str(page)])
    assert done.exit_code == 2, done.output
    told = " ".join(done.stdout.split())
    assert "eleventh is worse than ten in micro F1" in told
    assert "times as long" in told
    record = json.loads(out.read_text())
    match, both = record["official"], sum(len(a & b) for a, b in zip(ours, theirs, strict=True))
    of_a, of_b = sum(map(len, ours)), sum(map(len, theirs))
    assert 0 < both < of_b
    assert match["first"]["micro_f1"] == {"value": 1, "low": 1, "high": 1}
    assert match["second"]["precision"]["value"] == pytest.approx(both / of_b, abs=1e-5)
    assert match["second"]["recall"]["value"] == pytest.approx(both / of_a, abs=1e-5)
    assert match["second"]["micro_f1"]["value"] == pytest.approx(2 * both / (of_a + of_b), abs=1e-5)
    assert match["disagreeing"] == sum(a != b for a, b in zip(ours, theirs, strict=True))
    assert [one["given"] for one in match["first_labels"]] == [one["true"] for one in match["second_labels"]]
    assert (record["clean"], len(record["leaks"]), len(record["costs"]["texts_per_second"])) == (None, 2, 2)
    assert all(one["truth"] == one["first"] != one["second"] for one in record["disagreements"])
    assert "<i>" not in page.read_text()
    tags = Reader(page.read_text()).tags
    assert not {"script", "link", "img"} & {tag for tag, _ in tags}
    ids = [attributes["id"] for _, attributes in tags if "id" in attributes]
    assert len(ids) == len(set(ids))
    assert runner.invoke(app, [*bundles[::-1], *asked]).exit_code == 0


def test_texts_that_either_was_trained_on_are_left_out_of_the_verdict(
    bundles: tuple[str, str], said: Callable[[str], Says], tmp_path: Path
) -> None:
    texts, ours, theirs = said("names")
    data = write_truth(tmp_path / "rows.jsonl", texts, (*ours[:20], *theirs[20:]), "names")
    seen = tmp_path / "train.jsonl"
    seen.write_text("\n".join(data.read_text().splitlines()[:20]))
    made = compare_counted(*bundles, Question(data, "names", training_files=(seen,)), NOW)
    assert made.clean is not None
    assert (made.official.rows, made.clean.rows, made.decisive) == (len(texts), len(texts) - 20, made.clean)
    assert (made.decisive.paired.verdict, made.decisive.second["micro_f1"].value) == ("better", 1)
    assert [leaks.leaked for leaks in made.leaks] == [20, 20]
    scores = [leaks.leaked_score.value for leaks in made.leaks if leaks.leaked_score]
    assert scores[0] == 1 > scores[1]
    page = render_comparison(made)
    assert Reader(page).open == []
    assert "On all texts (57)" in page
    assert "On clean texts (37)" in page


def test_two_that_say_the_same_cannot_be_told_apart(
    bundles: tuple[str, str], said: Callable[[str], Says], tmp_path: Path
) -> None:
    texts, ours, _ = said("names")
    data = write_truth(tmp_path / "rows.jsonl", texts, ours, "names")
    made = compare_counted(bundles[0], bundles[0], Question(data, "names"), NOW)
    assert made.names == ("A ten", "B ten")
    assert (made.official.paired.verdict, made.official.disagreeing, made.disagreements) == ("undecided", 0, ())
    assert np.ptp([made.official.paired.micro_f1.low, made.official.paired.micro_f1.high]) == 0
    assert Reader(render_comparison(made)).open == []
