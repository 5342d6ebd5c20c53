"""The model card of a bundle, written from its manifest alone, so that the two cannot disagree."""

from collections.abc import Iterator, Mapping

from stacknorm.bundle import Bundle, Interval, Manifest, Training

CARD_FILE = "MODEL_CARD.md"
_COLUMNS = ("accuracy", "macro_f1", "nll", "brier", "ece")


def render_card(bundle: Bundle) -> str:
    """The card as Markdown."""
    manifest = bundle.manifest
    parts = [f"# {manifest.name}", *_what_it_is(bundle)]
    if manifest.training is not None:
        parts += ["## Data", *_data(manifest.training), "## Protocol", *_protocol(manifest, manifest.training)]
    if manifest.scores:
        parts += ["## Scores on the held-out part", *_scores(manifest)]
    return "\n\n".join([*parts, "## Limits", _limits(manifest)]) + "\n"


def _what_it_is(bundle: Bundle) -> Iterator[str]:
    manifest = bundle.manifest
    tasks = "; ".join(f"**{task}** ({', '.join(spec.labels)})" for task, spec in manifest.tasks.items())
    yield (
        f"A stack of {len(manifest.members)} members that labels short financial text in "
        f"{', '.join(manifest.languages)}: {tasks}. Stack digest `{bundle.digest}`."
    )
    rows = ["| member | base | heads |", "|---|---|---|"]
    for member in manifest.members:
        heads = ", ".join(f"{task} ({head.pooling})" for task, head in member.heads.items())
        rows.append(f"| {member.name} | `{member.base.references[0]}` | {heads} |")
    yield "\n".join(rows)
    for task, spec in manifest.tasks.items():
        served = zip(manifest.members_of(task), spec.pool.weights, strict=True)
        weights = ", ".join(f"{name} {weight:.3f}" for name, weight in served)
        yield f"{task}: {spec.pool.kind} pool ({weights}), then {spec.calibrator.kind}."


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
        f"{manifest.max_tokens} tokens. Each member is a LoRA adapter on the upper layers of its base with one "
        "linear head for each task, trained on all tasks together. Rows whose normalised text is the same stay on "
        "one side of the split. The epoch, the pool, its weights and the temperature (fitted after pooling) are "
        "chosen by negative log-likelihood on the held-out part; no validation file of any data set was read."
    )
    yield f"Trained in {training.seconds / 60:.0f} minutes on a processor in {training.precision} ({versions}). Again:"
    yield f"    stacknorm train train.toml --data DIR --out runs/{manifest.name}"
    yield "where DIR holds the files above. To score it on rows of your own, with intervals and a leak audit:"
    yield f"    stacknorm evaluate {manifest.name} FILE.csv --task {next(iter(manifest.tasks))} --labels ..."


def _scores(manifest: Manifest) -> Iterator[str]:
    yield (
        "With 95 % bootstrap intervals. Pool and temperature were fitted on these rows, so the stack's row is "
        "slightly optimistic here; `stacknorm evaluate` on other rows is the fair comparison."
    )
    for task, members in manifest.scores.items():
        rows = [f"| {task} | " + " | ".join(_COLUMNS) + " |", "|---" * (1 + len(_COLUMNS)) + "|"]
        rows += [f"| {name} | " + " | ".join(_cells(metrics)) + " |" for name, metrics in members.items()]
        yield "\n".join(rows)


def _cells(metrics: Mapping[str, Interval]) -> Iterator[str]:
    for column in _COLUMNS:
        found = metrics[column]
        yield f"{found.value:.3f} ({found.low:.3f} to {found.high:.3f})"


def _limits(manifest: Manifest) -> str:
    return "\n".join(
        [
            f"- Languages: {', '.join(manifest.languages)} only; other text gets a label that means nothing.",
            f"- At most {manifest.max_tokens} tokens of a text are read; it was trained on headlines and posts.",
            "- One sentiment for a text: where two companies fare differently it can only be right about one.",
            "- Posts and headlines of a few years: names, events and idiom after them are unknown to it.",
            "- Probabilities are calibrated on data like the training data; on another feed, measure again.",
            "- A label is a reading of the words, no forecast of a price and no advice.",
        ]
    )
