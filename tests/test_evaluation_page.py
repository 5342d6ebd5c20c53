import re
from collections.abc import Mapping
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pytest

from stacknorm.bundle import CascadeSpec, Interval, StageSpec
from stacknorm.evaluation.abstention import Withheld
from stacknorm.evaluation.answers import Answers
from stacknorm.evaluation.axes import axis_over
from stacknorm.evaluation.cost import Costs
from stacknorm.evaluation.depth import score_cascade
from stacknorm.evaluation.evaluate import Evaluation
from stacknorm.evaluation.leaks import audit
from stacknorm.evaluation.mistakes import worst_mistakes
from stacknorm.evaluation.page import render_evaluation
from stacknorm.evaluation.part import Systems, accuracy_on, score_part
from stacknorm.evaluation.protocol import Protocol, Scored, look_at_machine
from stacknorm.pooling.conformal import ClassConditional

HOSTILE = '<script>alert(1)</script><img src="https://evil.example/x.png" onerror=alert(2)> "& \u202e'
LABELS = ("negative", "neutral", "positive")
STAGES = (StageSpec(members=("first",)), StageSpec(members=("second",)))
VOID = {"meta", "br"}


def systems(labels: tuple[str, ...], rows: int = 60, seed: int = 0) -> Systems:
    random = np.random.default_rng(seed)
    truth = random.integers(len(labels), size=rows)
    said = random.dirichlet(np.ones(len(labels)), size=(2, rows)) * 0.6 + 0.4 * np.eye(len(labels))[truth]
    stack = Answers(labels, said.mean(axis=0), truth, np.arange(rows))
    return Systems(stack, {"first": stack.by(said[0]), "second": stack.by(said[1])}, "second")


def evaluation(labels: tuple[str, ...] = LABELS, text: str = "oil falls") -> Evaluation:
    both = systems(labels)
    rows = len(both.stack.truth)
    leaked = np.arange(rows) < 5
    sets = ClassConditional(alpha=0.1, thresholds=(0.6,) * len(labels))
    cascade = CascadeSpec(mode="bounded", stages=STAGES)
    return Evaluation(
        protocol=Protocol(
            task="sentiment",
            kind="single",
            labels=labels,
            data="rows.csv",
            data_sha256="ab" * 32,
            rows=rows,
            stacks=(Scored("tiny", "cd" * 32, "fp32", "cpu", 16, calibrated=False, member_temperatures=False),),
            machine=look_at_machine(),
            made_at="2026-01-02T03:04:05+00:00",
        ),
        official=score_part(both, sets),
        clean=score_part(both.only(~leaked), sets),
        leaks=audit(
            np.arange(rows), np.arange(rows), both.stack.truth.tolist(), leaked, accuracy_on(both.stack, leaked)
        ),
        withheld=Withheld(1, 0, (text,)),
        cascade=score_cascade(cascade, both.stack, both.members["first"], np.repeat([1, 2], rows // 2), 0.4),
        costs=Costs(60, {"stack": 100.0, "first": 210.0, "second": 190.0}, 0.5),
        mistakes=worst_mistakes(both, [f"{text} {row}" for row in range(rows)], leaked, 20),
    )


class Reader(HTMLParser):
    """Every start tag with its attributes, and whether tags nest."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, Mapping[str, str | None]]] = []
        self.open: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag, f"</{tag}> closes nothing"


@pytest.fixture(scope="module")
def page() -> str:
    return render_evaluation(evaluation(text=HOSTILE))


def test_the_page_is_one_file_that_loads_nothing_and_runs_no_script(page: str) -> None:
    tags = Reader(page).tags
    assert not {"script", "link", "img", "iframe", "object", "embed", "base", "form"} & {tag for tag, _ in tags}
    for tag, attributes in tags:
        assert not {"src", "href", "srcset", "xlink:href", "data"} & attributes.keys(), tag
        assert not [name for name in attributes if name.startswith("on")], tag
    (style,) = re.findall(r"<style>(.*?)</style>", page, re.DOTALL)
    assert "url(" not in style
    assert "@import" not in style
    assert "default-src 'none'" in page


def test_a_hostile_text_is_shown_and_not_obeyed(page: str) -> None:
    assert "<script>alert" not in page
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in page
    assert "&#34;https://evil.example/x.png&#34;" in page


def test_hostile_names_of_labels_bundles_and_files_are_escaped() -> None:
    made = evaluation(labels=('<b onclick="x">', "b", "c"))
    hostile = replace(made.protocol, data='"><script>1</script>', task="<i>", machine=made.protocol.machine)
    found = Reader(render_evaluation(replace(made, protocol=hostile)))
    assert "script" not in {tag for tag, _ in found.tags}
    assert "onclick" not in {name for _, attributes in found.tags for name in attributes}


def test_tags_nest_and_every_id_is_used_once(page: str) -> None:
    found = Reader(page)
    assert found.open == []
    ids = [attributes["id"] for _, attributes in found.tags if "id" in attributes]
    assert len(ids) == len(set(ids))


def test_every_picture_has_a_title_a_description_and_a_table_behind_it(page: str) -> None:
    pictures = re.findall(r'<svg[^>]*role="img" aria-labelledby="(\S+) (\S+)"[^>]*>(.*?)</svg>', page, re.DOTALL)
    assert len(pictures) == page.count("<svg") == 6
    for title, text, body in pictures:
        assert f'<title id="{title}">' in body
        assert re.search(rf'<desc id="{text}">\s*\S', body)
    assert page.count("As a table") == 4  # one for the three pictures of members


def test_no_coordinate_is_lost(page: str) -> None:
    for name in ("x", "y", "cx", "cy", "r", "x1", "x2", "y1", "y2", "width", "height"):
        for value in re.findall(rf'\s{name}="([^"]*)"', page):
            assert float(value) == float(value), (name, value)
    assert "nan" not in re.sub(r"<(td|b)[^>]*>.*?</\1>", "", page).lower().split()


def test_headline_scores_leaks_costs_and_protocol_stand_on_the_page(page: str) -> None:
    made = evaluation(text=HOSTILE)
    assert made.clean is not None
    for said in (
        f"{100 * made.clean.stack['accuracy'].value:.1f} %",
        "5 of 60 rows (8.3 %) were trained on",
        "neither pool nor calibrator was fitted",
        "without a temperature of their own",
        "As a cascade (bounded)",
        "Conformal sets fitted for 90 %",
        "It takes 40 % of the whole stack&#39;s time",
        "ab" * 32,
        "cd" * 32,
        "1,000 resamples of texts, seed 0",
        made.protocol.machine.processor,
    ):
        assert said in page, said


def test_at_most_twenty_mistakes_are_shown_the_most_confident_first() -> None:
    mistakes = evaluation().mistakes
    assert len(mistakes) <= 20
    assert [one.confidence for one in mistakes] == sorted((one.confidence for one in mistakes), reverse=True)
    assert all(one.truth != one.given for one in mistakes)


def test_what_a_bundle_lacks_is_left_out_and_many_labels_fit() -> None:
    made = evaluation(labels=tuple(f"a label of many words {number}" for number in range(20)))
    bare = replace(made, clean=None, cascade=None, costs=None, mistakes=(), official=replace(made.official, sets=None))
    page = render_evaluation(bare)
    assert Reader(page).open == []
    assert "None: every row is right." in page
    assert "Conformal" not in page
    assert "clean rows (" not in page


def test_an_axis_holds_its_intervals_between_round_ends() -> None:
    axis = axis_over([Interval(value=0.87, low=0.8537, high=0.8902), Interval(value=0.011, low=0.012, high=0.013)])
    assert axis.low <= 0.011
    assert axis.high >= 0.8902
    assert axis.share(axis.low) == 0
    assert axis.share(axis.high) == 1
    flat = axis_over([Interval(value=1, low=1, high=1)])
    assert flat.low <= 1 <= flat.high
    assert flat.share(1) in {0, 1}
