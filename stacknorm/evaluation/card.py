"""The model card of a bundle, written from its manifest alone, so that the two cannot disagree."""

from collections.abc import Iterable, Iterator, Mapping, Sequence

from stacknorm.bundle import Bundle, CascadeSpec, FittedOn, Interval, Manifest, MemberSpec, TaskSpec, Training
from stacknorm.encoder.adapter import ADAPTER_WEIGHTS_FILE
from stacknorm.evaluation.metrics import shown_metrics
from stacknorm.pooling.calibrate import Calibrator
from stacknorm.pooling.pool import Pool

CARD_FILE = "MODEL_CARD.md"
_KINDS = {
    "single": "one label a text",
    "multi": "any number of labels a text",
    "spans": "labelled spans",
    "entity": "one label for each entity",
}


def render_card(bundle: Bundle) -> str:
    """The card as Markdown."""
    manifest = bundle.manifest
    parts = [f"# {manifest.name}", *_what_it_is(bundle), "## How it answers", *_how_it_answers(manifest)]
    if manifest.training is not None:
        parts += ["## Data", *_data(manifest.training), "## Protocol", *_protocol(manifest, manifest.training)]
    if manifest.scores:
        parts += ["## Scores on the held-out part", *_scores(manifest)]
    return "\n\n".join([*parts, "## Limits", _limits(manifest)]) + "\n"


def _what_it_is(bundle: Bundle) -> Iterator[str]:
    manifest = bundle.manifest
    tasks = "; ".join(
        f"**{task}**, {_KINDS[spec.kind]} ({', '.join(spec.labels)})" for task, spec in manifest.tasks.items()
    )
    yield (
        f"A stack of {len(manifest.members)} members that reads short text in {', '.join(manifest.languages)}: "
        f"{tasks}. Stack digest `{bundle.digest}`."
    )
    rows = ["| member | base | weights | heads |", "|---|---|---|---|"]
    for member in manifest.members:
        heads = ", ".join(f"{task} ({head.pooling})" for task, head in member.heads.items())
        rows.append(f"| {member.name} | `{member.base.references[0]}` | {_weights(member)} | {heads} |")
    for channel in manifest.channels:
        heads = ", ".join(f"{task} ({head.pooling})" for task, head in channel.heads.items())
        rows.append(
            f"| {channel.name} | features of {', '.join(channel.members)}, {channel.combine} | head | {heads} |"
        )
    yield "\n".join(rows)


def _weights(member: MemberSpec) -> str:
    if not member.files:
        return "the checkpoint as it is"
    if ADAPTER_WEIGHTS_FILE in member.files:
        return "LoRA adapter and heads"
    return "trained in full" if member.base.references == (member.name,) else "heads"


def _how_it_answers(manifest: Manifest) -> Iterator[str]:
    for task, spec in manifest.tasks.items():
        yield f"**{task}**: {_answering(spec, manifest.members_of(task))}"
    if manifest.cascade is not None:
        yield _describe_cascade(manifest.cascade)
    if manifest.windows is not None:
        yield (
            f"Longer texts are read in at most {manifest.windows.max_windows} windows of {manifest.max_tokens} tokens "
            f"that overlap by {manifest.windows.overlap_tokens}; their probabilities are averaged."
        )


def _answering(spec: TaskSpec, voices: Sequence[str]) -> str:
    temperatures = ", ".join(f"{name} {t:.3f}" for name, t in zip(voices, spec.member_temperatures, strict=False))
    parts = [
        f"members at temperatures of their own ({temperatures})" if temperatures else "members as they are",
        describe_pool(spec.pool, voices),
        describe_calibrator(spec.calibrator, spec.labels),
    ]
    sentences = [f"{', then '.join(parts)}."]
    if not spec.calibrated:
        sentences.append("**Not calibrated**: neither pool nor calibrator was fitted, take no probability literally.")
    elif spec.fitted_on is not None:
        sentences.append(
            f"Pool and calibrator were fitted on {_origin(spec.fitted_on)}, on which no member was trained."
        )
    if spec.conformal is not None:
        thresholds = ", ".join(
            f"{label} {1 - t:.3f}" for label, t in zip(spec.labels, spec.conformal.thresholds, strict=True)
        )
        sentences.append(
            f"Conformal sets for {1 - spec.conformal.alpha:.0%} of every label keep labels from these probabilities: "
            f"{thresholds}."
        )
    return " ".join(sentences)


def _origin(rows: FittedOn) -> str:
    return f"{rows.rows:,} rows of {rows.file} (`{rows.sha256[:16]}…`)"


def describe_pool(pool: Pool, voices: Sequence[str]) -> str:
    """A pool and its parameters in words; `voices` are the members it pools, in order."""
    weights = ", ".join(f"{name} {weight:.3f}" for name, weight in zip(voices, pool.weights, strict=True))
    match pool.kind:
        case "power":
            names = {0.0: "log pool", 1.0: "linear pool"}
            return f"{names.get(pool.exponent, f'power mean of exponent {pool.exponent:.3g}')} ({weights})"
        case "vote":
            return f"hard vote ({weights})"
        case "trimmed":
            return f"trimmed mean of {pool.members} members without the {pool.cut} lowest and highest"
        case "logistic":
            numbers = sum(len(row) for member in pool.coefficients for row in member) + len(pool.intercepts)
            return f"stacked logistic regression of {numbers:,} numbers (where a member is missing: {weights})"


def describe_calibrator(calibrator: Calibrator, labels: Sequence[str]) -> str:
    """A calibrator and its parameters in words."""
    match calibrator.kind:
        case "identity":
            return "no calibrator"
        case "temperature":
            return f"temperature {calibrator.temperature:.3f}"
        case "vector":
            pairs = zip(labels, calibrator.scales, calibrator.biases, strict=True)
            return f"vector scaling ({', '.join(f'{name} {scale:.3f} {bias:+.3f}' for name, scale, bias in pairs)})"
        case "beta":
            curves = zip(labels, calibrator.curves, strict=False)
            numbers = ", ".join(f"{name} {c.a:.3f} {c.b:.3f} {c.c:+.3f}" for name, c in curves)
            return f"beta calibration (a, b, c: {numbers})"
        case "isotonic":
            knots = ", ".join(str(len(curve.shares)) for curve in calibrator.curves)
            return f"isotonic calibration (knots: {knots})"


def _describe_cascade(cascade: CascadeSpec) -> str:
    stages = "; ".join(
        f"stage {number}: {', '.join(stage.members)}"
        + "".join(f", {task} stops at {part.stop_above:.3f}" for task, part in stage.tasks.items())
        for number, stage in enumerate(cascade.stages, start=1)
    )
    sentences = [f"As a **cascade** ({cascade.mode}): {stages}."]
    if cascade.max_loss is not None:
        sentences.append(f"Stopping may cost each task an expected {100 * cascade.max_loss:.2f} points of accuracy.")
    if cascade.fitted_on:
        rows = "; ".join(f"{task}: {_origin(origin)}" for task, origin in cascade.fitted_on.items())
        sentences.append(f"Stops were fitted on rows no member was trained on ({rows}).")
    if cascade.report is not None:
        ended = ", ".join(f"{share:.1%}" for share in cascade.report.ended)
        sentences.append(f"Of {cascade.report.texts:,} texts no member was trained on, {ended} ended at each stage.")
        for task, kept in cascade.report.kept.items():
            gain = f"{100 * kept.value:+.2f} ({100 * kept.low:+.2f} to {100 * kept.high:+.2f})"
            sentences.append(
                f"Accuracy on {task} less that of the whole stack: {gain} points, each by stops fitted without it."
            )
    else:
        sentences.append("What it spares and keeps was not measured.")
    return " ".join(sentences)


def _data(training: Training) -> Iterator[str]:
    rows = ["| file | what | task | rows | licence | sha256 |", "|---|---|---|---|---|---|"]
    rows += [
        f"| {d.file} | {d.title} | {d.task} | {d.rows:,} | {d.licence} | `{d.sha256[:16]}…` |" for d in training.data
    ]
    yield "\n".join(rows)
    yield "; ".join(f"{name}: {count:,} rows" for name, count in training.rows.items()) + "."


def _protocol(manifest: Manifest, training: Training) -> Iterator[str]:
    versions = ", ".join(f"{name} {number}" for name, number in training.versions.items())
    yield (
        "Texts are cleaned (HTML unescaped, URLs removed, whitespace folded) and cut at "
        f"{manifest.max_tokens} tokens. Rows whose normalised text is the same stay on one side of the split. Epochs, "
        "pools and calibrators are chosen by negative log-likelihood on rows that the members answering them were not "
        "trained on. Training read no other file than those above."
    )
    yield f"Trained in {training.seconds / 60:.0f} minutes on a processor in {training.precision} ({versions}). Again:"
    yield f"    stacknorm train train.toml --data DIR --out runs/{manifest.name}"
    yield "where DIR holds the files above. To score it on rows of your own, with intervals and a leak audit:"
    yield f"    stacknorm evaluate {manifest.name} FILE.csv --task {next(iter(manifest.tasks))} --labels ..."


def _scores(manifest: Manifest) -> Iterator[str]:
    yield (
        "With 95 % bootstrap intervals. Each row of the stack is pooled and calibrated by what was fitted without it. "
        "Members were kept from the epoch that did best on these rows, and pool and calibrator were chosen on them, "
        "so all is a little optimistic here; `stacknorm evaluate` on other rows is the fair comparison."
    )
    for task, members in manifest.scores.items():
        shown = shown_metrics(members)
        rows = [f"| {task} | " + " | ".join(shown.values()) + " |", "|---" * (1 + len(shown)) + "|"]
        rows += [f"| {name} | " + " | ".join(_cells(metrics, shown)) + " |" for name, metrics in members.items()]
        yield "\n".join(rows)


def _cells(metrics: Mapping[str, Interval], shown: Iterable[str]) -> Iterator[str]:
    for metric in shown:
        found = metrics[metric]
        yield f"{found.value:.3f} ({found.low:.3f} to {found.high:.3f})"


def _limits(manifest: Manifest) -> str:
    read = "are read at once" if manifest.windows else "of a text are read, the rest is not"
    limits = [
        f"- Languages: {', '.join(manifest.languages)} only. Text that is certainly in another is withheld; what slips "
        "through gets a label that means nothing.",
        f"- At most {manifest.max_tokens} tokens {read}.",
        "- A label is a reading of the words, no forecast of a price and no advice.",
    ]
    if "sentiment" in manifest.tasks and manifest.tasks["sentiment"].kind == "single":
        limits.append(
            "- `sentiment` is one label for a text: where two companies fare differently it is right about one at most."
        )
    if any(spec.calibrated for spec in manifest.tasks.values()):
        limits.append("- Probabilities are calibrated on data like that used here; on another feed, measure again.")
    if manifest.training is not None:
        limits.append("- Names, events and idiom that came after its data are unknown to it.")
    return "\n".join(limits)
