"""An evaluation, or a comparison, as one HTML page that loads nothing and runs no script.

Every text of a user is escaped by the templates; pictures are SVG drawn in them, with a table behind each.
"""

from collections.abc import Mapping, Sequence

from jinja2 import Environment, PackageLoader, StrictUndefined

from stacknorm.bundle import Interval
from stacknorm.evaluation.axes import Axis, axis_over
from stacknorm.evaluation.compare_counted import CountedMatch
from stacknorm.evaluation.compare_sentences import (
    MATCH_TITLES,
    AnyComparison,
    compared_sentences,
    name_parts,
    spell_verdict,
)
from stacknorm.evaluation.counted import CountedEvaluation
from stacknorm.evaluation.evaluate import STACK, Evaluation
from stacknorm.evaluation.part import Part, confusions
from stacknorm.evaluation.sentences import (
    TITLES,
    cascade_sentences,
    counted_sentences,
    leak_sentences,
    member_sentence,
    set_sentences,
    spell,
    spell_best,
    spell_count_difference,
    spell_percent,
    spell_points,
    withheld_sentence,
)

_TILES = ("accuracy", "macro_f1", "nll", "ece", "aurc")
_DOTS = ("accuracy", "nll", "ece")
_COUNTED_DOTS = ("micro_f1", "precision", "recall")
_IN_PERCENT = {"accuracy", "macro_f1"}
_CONFUSIONS = 5
_Scores = Mapping[str, Mapping[str, Interval]]


def render_evaluation(evaluation: Evaluation) -> str:
    """The page."""
    shown = evaluation.clean or evaluation.official
    systems: _Scores = {STACK: shown.stack, **shown.members}
    return (
        _environment()
        .get_template("evaluation.html.j2")
        .render(
            evaluation=evaluation,
            protocol=evaluation.protocol,
            shown=shown,
            parts={"all rows": evaluation.official} | ({"clean rows": evaluation.clean} if evaluation.clean else {}),
            systems=systems,
            axes=_axes(systems, shown),
            titles=TITLES,
            tiles={metric: TITLES[metric] for metric in _TILES},
            best_sentence=spell_best(shown),
            member_sentence=member_sentence(evaluation.protocol),
            leak_sentences=tuple(leak_sentences(evaluation.leaks)),
            set_sentences=tuple(set_sentences(shown.sets)) if shown.sets else (),
            withheld_sentence=withheld_sentence(evaluation.withheld),
            cascade_sentences=tuple(cascade_sentences(evaluation.cascade)) if evaluation.cascade else (),
            confusions=confusions(shown, _CONFUSIONS),
        )
    )


def render_counted(evaluation: CountedEvaluation) -> str:
    """The page of a task with any number of labels or spans a text."""
    shown = evaluation.clean or evaluation.official
    which = "clean texts" if evaluation.clean else "all texts"
    scores = {name: found.micro_f1 for name, found in shown.systems.items()}
    labels = {one.label: one.f1 for one in shown.systems[STACK].labels}
    return (
        _environment()
        .get_template("counted.html.j2")
        .render(
            evaluation=evaluation,
            protocol=evaluation.protocol,
            shown=shown,
            which=which,
            parts={"all texts": evaluation.official} | ({"clean texts": evaluation.clean} if evaluation.clean else {}),
            scores=scores,
            score_axis=axis_over(scores.values()),
            labels=labels,
            label_axis=axis_over(labels.values(), from_zero=True),
            verdict=spell_count_difference(shown, which),
            sentences=tuple(counted_sentences(evaluation)),
        )
    )


def render_comparison(comparison: AnyComparison) -> str:
    """The page of two bundles side by side."""
    shown = comparison.decisive
    if not isinstance(shown, CountedMatch):
        return _render_match(comparison, "comparison_single.html.j2", _DOTS)
    sides = zip(comparison.names, (shown.first_labels, shown.second_labels), strict=True)
    f1s = {name: {one.label: one.f1 for one in labels} for name, labels in sides}
    axis = axis_over((f1 for found in f1s.values() for f1 in found.values()), from_zero=True)
    return _render_match(comparison, "comparison_counted.html.j2", _COUNTED_DOTS, f1s=f1s, f1_axis=axis)


def _render_match(comparison: AnyComparison, template: str, dots: Sequence[str], **more: object) -> str:
    first, second = comparison.names
    shown, parts = comparison.decisive, name_parts(comparison)
    systems: _Scores = {first: shown.first, second: shown.second}
    return (
        _environment()
        .get_template(template)
        .render(
            comparison=comparison,
            protocol=comparison.protocol,
            shown=shown,
            parts=parts,
            which=list(parts)[-1],
            first=first,
            second=second,
            systems=systems,
            axes={metric: axis_over(_pluck(systems, metric).values()) for metric in dots},
            titles=MATCH_TITLES,
            verdicts={title: spell_verdict(second, first, part.paired) for title, part in parts.items()},
            sentences=tuple(compared_sentences(comparison)),
            **more,
        )
    )


def _axes(systems: _Scores, shown: Part) -> Mapping[str, Axis]:
    metrics = {metric: axis_over(_pluck(systems, metric).values()) for metric in _DOTS}
    return metrics | {"risk": axis_over((point.risk for point in shown.risk_coverage), from_zero=True, ticks=5)}


def _environment() -> Environment:
    made = Environment(
        loader=PackageLoader("stacknorm.evaluation"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters |= {
        "spell": spell,
        "spell_percent": spell_percent,
        "figure": _figure,
        "range": _range,
        "points": spell_points,
        "signed": _signed,
        "pluck": _pluck,
        "shorten": _shorten,
    }
    return made


def _figure(found: Interval, metric: str) -> str:
    return f"{100 * found.value:.1f} %" if metric in _IN_PERCENT else f"{found.value:.3f}"


def _range(found: Interval, metric: str) -> str:
    if metric in _IN_PERCENT:
        return f"{100 * found.low:.1f} to {100 * found.high:.1f}"
    return f"{found.low:.3f} to {found.high:.3f}"


def _signed(found: Interval) -> str:
    return f"{found.value:+.4f} ({found.low:+.4f} to {found.high:+.4f})"


def _pluck(systems: _Scores, metric: str) -> Mapping[str, Interval]:
    return {name: scores[metric] for name, scores in systems.items()}


def _shorten(name: str, most: int) -> str:
    return name if len(name) <= most else f"{name[: most - 1]}…"
