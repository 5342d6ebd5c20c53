"""Numbers in words, the same on a terminal and on a page."""

from collections.abc import Iterator

from stacknorm.bundle import Interval
from stacknorm.evaluation.abstention import SetScores, Withheld
from stacknorm.evaluation.cost import Costs
from stacknorm.evaluation.counted import CountedEvaluation, CountPart
from stacknorm.evaluation.depth import CascadeScore
from stacknorm.evaluation.leaks import Leaks
from stacknorm.evaluation.paired import SIGNIFICANCE, Paired, PairedCounts
from stacknorm.evaluation.part import Part
from stacknorm.evaluation.protocol import Protocol

TITLES = {
    "accuracy": "accuracy",
    "macro_f1": "macro F1",
    "nll": "NLL (nats)",
    "brier": "Brier",
    "ece": "ECE",
    "classwise_ece": "classwise ECE",
    "aurc": "AURC",
}


def spell(found: Interval) -> str:
    """`0.877 (0.864 to 0.890)`."""
    return f"{found.value:.3f} ({found.low:.3f} to {found.high:.3f})"


def spell_percent(found: Interval) -> str:
    """`87.7 % (86.4 to 89.0)`."""
    return f"{100 * found.value:.1f} % ({100 * found.low:.1f} to {100 * found.high:.1f})"


def spell_points(found: Interval) -> str:
    """`+1.2 (+0.3 to +1.9)`, in hundredths."""
    return f"{100 * found.value:+.1f} ({100 * found.low:+.1f} to {100 * found.high:+.1f})"


def spell_paired(ours: str, theirs: str, paired: Paired) -> str:
    """`ours is better than theirs in accuracy: +1.2 (+0.3 to +1.9) points, ...`."""
    told_by = "accuracy" if paired.mcnemar_p < SIGNIFICANCE else "likelihood"
    verdict = {
        "better": f"{ours} is better than {theirs} in {told_by}",
        "worse": f"{ours} is worse than {theirs} in {told_by}",
        "undecided": f"{ours} cannot be told apart from {theirs}",
    }[paired.verdict]
    nll = paired.nll
    return (
        f"{verdict}: accuracy {spell_points(paired.accuracy)} points, "
        f"alone right on {paired.only_ours_right:,} rows and alone wrong on {paired.only_theirs_right:,} "
        f"(McNemar p = {paired.mcnemar_p:.2g}); NLL {nll.value:+.4f} ({nll.low:+.4f} to {nll.high:+.4f})."
    )


def spell_comparison(ours: str, theirs: str, found: Paired | PairedCounts) -> str:
    """One system against another, whatever kind of task they answered."""
    if isinstance(found, Paired):
        return spell_paired(ours, theirs, found)
    verdict = {"better": "is better than", "worse": "is worse than", "undecided": "cannot be told apart from"}
    return f"{ours} {verdict[found.verdict]} {theirs}: micro F1 {spell_points(found.micro_f1)} points."


def spell_best(part: Part) -> str:
    """The stack against its best member."""
    best = part.best_member
    return spell_paired("The stack", f"its best member {best}", part.paired[best])


def leak_sentences(leaks: Leaks, measure: str = "accuracy") -> Iterator[str]:
    """The leak audit; `measure` is what the score on leaked rows is called."""
    if leaks.leaked is None:
        yield "The bundle does not say what it learnt from, so no row is known to be clean; name the files (--train)."
    elif not leaks.leaked_score:
        yield f"None of the {leaks.rows:,} rows was trained on."
    else:
        share = 100 * leaks.leaked / leaks.rows
        yield (
            f"{leaks.leaked:,} of {leaks.rows:,} rows ({share:.1f} %) were trained on; {measure} on those: "
            f"{spell_percent(leaks.leaked_score)}."
        )
    yield f"In the file {leaks.repeated:,} rows repeat an earlier text; {leaks.contradictory:,} texts have two labels."


def set_sentences(sets: SetScores) -> Iterator[str]:
    """Conformal sets."""
    found = sets.all_labels
    least = min(sets.by_label, key=lambda label: sets.by_label[label].coverage)
    yield (
        f"Conformal sets fitted for {100 * sets.promised:.0f} % of every label hold the true label of "
        f"{100 * found.coverage:.1f} % of rows; least of {least}, {100 * sets.by_label[least].coverage:.1f} %. "
        f"They hold {found.mean_size:.2f} labels on average."
    )
    if found.accuracy_kept is not None:
        yield (
            f"Answering only where the set is one label, the stack abstains from {100 * found.abstention_rate:.1f} % "
            f"of rows and is right on {100 * found.accuracy_kept:.1f} % of the others."
        )


def withheld_sentence(withheld: Withheld) -> str:
    """The language guard."""
    if not withheld.rows:
        return "No row is certainly in a language the stack does not know."
    return (
        f"In service {withheld.rows:,} rows would get no label, for they are certainly in a language the stack does "
        f"not know; here they are scored like all others ({withheld.right:,} right)."
    )


def cascade_sentences(cascade: CascadeScore) -> Iterator[str]:
    """The stack in depth."""
    rows = sum(stage.rows for stage in cascade.stages)
    ends = "; ".join(
        f"{stage.rows:,} rows ({100 * stage.rows / rows:.1f} %) end at stage {number} ({', '.join(stage.members)})"
        for number, stage in enumerate(cascade.stages, start=1)
    )
    yield f"As a cascade ({cascade.mode}): {ends}; {cascade.changed:,} rows get another label than from all members."
    yield spell_paired("The cascade", "the whole stack", cascade.against_width)
    if cascade.cost is not None:
        yield f"It takes {100 * cascade.cost:.0f} % of the whole stack's time, measured by turns."


def cost_sentence(costs: Costs) -> str:
    """Texts a second."""
    each = ", ".join(f"{name} {rate:,.0f}" for name, rate in costs.texts_per_second.items())
    return f"Texts a second on {costs.texts:,} of the texts, by turns, at a load of {costs.load:.1f}: {each}."


def spell_count_difference(part: CountPart, which: str) -> str:
    """The stack against its best member, where labels or spans are counted."""
    found = part.difference
    if found is None:
        return f"The best single voice, {part.best_member}, is a channel and cannot be asked alone."
    verdict = "better than" if found.low > 0 else "worse than" if found.high < 0 else "not told apart from"
    return (
        f"On {which} the stack is {verdict} its best member {part.best_member}: micro F1 {spell_points(found)} points."
    )


def counted_sentences(evaluation: CountedEvaluation) -> Iterator[str]:
    """Leaks, mended annotations and costs."""
    yield from leak_sentences(evaluation.leaks, "micro F1")
    if evaluation.mended:
        yield f"The annotations of {evaluation.mended:,} texts had to be mended to be read."
    if evaluation.costs is not None:
        yield cost_sentence(evaluation.costs)


def member_sentence(protocol: Protocol) -> str:
    """How members are shown."""
    if all(stack.member_temperatures for stack in protocol.stacks):
        return "Members are shown with temperatures of their own, fitted on held-out rows."
    return "Members are shown as trained, without a temperature of their own: part of a gain in NLL is calibration."


def protocol_sentences(protocol: Protocol) -> Iterator[str]:
    """Everything one needs to get the same numbers again."""
    yield f"Data: {protocol.data}, {protocol.rows:,} rows, sha256 {protocol.data_sha256}."
    for stack in protocol.stacks:
        fitted = "" if stack.calibrated else "; neither pool nor calibrator was fitted"
        yield (
            f"Stack: {stack.name}, digest {stack.digest}, {stack.precision} on {stack.device}, texts cut at "
            f"{stack.max_tokens} tokens{fitted}."
        )
    yield (
        f"Texts: {protocol.cleaning}. The same text: {protocol.same_text}. Intervals: {protocol.interval}, "
        f"{protocol.resamples:,} resamples of {protocol.drawn}, seed {protocol.seed}; those of ECE lie high, for "
        "drawing rows again adds noise to every bin."
    )
    machine = protocol.machine
    versions = ", ".join(f"{name} {number}" for name, number in machine.versions.items())
    yield f"Machine: {machine.processor}, {machine.cores} cores; {versions}. Made {protocol.made_at}."
