"""Comparisons in words, the same on a terminal and on a page."""

from collections.abc import Iterator

from stacknorm.evaluation.compare import Comparison, Match
from stacknorm.evaluation.compare_counted import CountedComparison, CountedMatch
from stacknorm.evaluation.paired import Paired, PairedCounts
from stacknorm.evaluation.sentences import TITLES, cost_sentence, leak_sentences, spell_paired, spell_points

AnyComparison = Comparison | CountedComparison
MATCH_TITLES = TITLES | {"micro_f1": "micro F1", "precision": "precision", "recall": "recall"}


def name_parts(comparison: AnyComparison) -> dict[str, Match | CountedMatch]:
    """`all rows` and, where there are any, `clean rows`; of tasks with any number of labels a text, texts."""
    unit = "texts" if isinstance(comparison, CountedComparison) else "rows"
    parts: dict[str, Match | CountedMatch] = {f"all {unit}": comparison.official}
    return parts | ({f"clean {unit}": comparison.clean} if comparison.clean else {})


def spell_verdict(ours: str, theirs: str, paired: Paired | PairedCounts) -> str:
    """`ours is better than theirs in micro F1: +1.2 (+0.3 to +1.9) points`, or what `spell_paired` says."""
    if isinstance(paired, Paired):
        return spell_paired(ours, theirs, paired)
    verdict = {
        "better": f"{ours} is better than {theirs}",
        "worse": f"{ours} is worse than {theirs}",
        "undecided": f"{ours} cannot be told apart from {theirs}",
    }[paired.verdict]
    return f"{verdict} in micro F1: {spell_points(paired.micro_f1)} points."


def compared_sentences(comparison: AnyComparison) -> Iterator[str]:
    """What two bundles cost, what each has seen, and what had to be mended."""
    first, second = comparison.names
    counted = isinstance(comparison, CountedComparison)
    ratio = comparison.costs.ratio(second, first)
    yield f"{cost_sentence(comparison.costs)} {second} takes {ratio:.2f} times as long."
    for name, leaks in zip(comparison.names, comparison.leaks, strict=True):
        yield f"{name}: {next(leak_sentences(leaks, 'micro F1' if counted else 'accuracy'))}"
    if isinstance(comparison, CountedComparison) and comparison.mended:
        yield f"The annotations of {comparison.mended:,} texts had to be mended to be read."
