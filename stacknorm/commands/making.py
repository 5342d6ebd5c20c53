"""`stacknorm bundle create|cascade|join`: stacks made of whole classifiers, and of other stacks."""

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from stacknorm.commands.bundle_tables import show_interval, table_members, table_scores, table_stages, table_tasks
from stacknorm.commands.console import BundleName, needs_train, open_console, open_progress, plain_errors, split_commas

if TYPE_CHECKING:
    from stacknorm.bundle import Bundle


def create(
    *,
    out: Annotated[Path, typer.Option(help="Directory of the new bundle.")],
    member: Annotated[
        list[str],
        typer.Option(help="A classifier: a directory, or hub:OWNER/NAME@REVISION. Repeat it for each member."),
    ],
    name: Annotated[str, typer.Option(help="Of the bundle; that of its directory unless given.")] = "",
    task: Annotated[str, typer.Option(help="What the members answer.")] = "sentiment",
    labels: Annotated[str, typer.Option(help="Of the task, as bad,so-so,good; not needed for known tasks.")] = "",
    meanings: Annotated[
        list[str] | None,
        typer.Option("--map", help="What labels of a member mean: MEMBER=LABEL_0:negative,LABEL_1:positive."),
    ] = None,
    infer: Annotated[
        Path | None,
        typer.Option("--infer-labels", help="Labelled rows to infer labels on that say nothing, as LABEL_0 does."),
    ] = None,
    fit: Annotated[
        Path | None, typer.Option(help="Labelled rows, new to every member, to choose pool and calibrator on.")
    ] = None,
    weights: Annotated[
        list[str] | None, typer.Option(help="What members weigh, without --fit: MEMBER=0.8,MEMBER=0.2.")
    ] = None,
    prior: Annotated[
        list[str] | None,
        typer.Option(
            help="Accuracies known beforehand, as from the members' cards, without --fit: MEMBER=0.87,MEMBER=0.91. A "
            "member of accuracy a on c labels weighs log(a / (1 - a) * (c - 1))."
        ),
    ] = None,
    integers: Annotated[
        str, typer.Option(help="What the integers 0, 1, ... in labelled rows mean: bearish,bullish,neutral.")
    ] = "",
    language: Annotated[
        list[str] | None, typer.Option(help="A language the members read, as its ISO 639-1 code; en unless given.")
    ] = None,
    max_tokens: Annotated[
        int | None, typer.Option(help="Of a text that are read; 128, or what all members have positions for.")
    ] = None,
    max_windows: Annotated[
        int | None,
        typer.Option(
            min=1, help="Read longer texts in so many windows of --max-tokens at most, and pool what they say."
        ),
    ] = None,
    overlap_tokens: Annotated[int, typer.Option(min=0, help="That one window shares with the next.")] = 32,
) -> None:
    r"""Make a stack of whole classifiers without training; each is read in its own label order.

    Without --fit it is the mean of its members, weighted if --weights or --prior say how, and says that it is not
    calibrated. With --fit the pool and the calibrator are chosen on those rows, and the scores are cross-validated
    inside them (needs the extra: pip install 'stacknorm\[train]').

    Example:  stacknorm bundle create --out mine --member ./finbert --member ./tone --fit labels.csv --integers
    bearish,bullish,neutral
    """
    with plain_errors():
        from stacknorm.assembly.assemble import Rows, assemble
        from stacknorm.bundle import WindowSpec

        console = open_console()
        order = split_commas(integers)
        with open_progress() as report:
            made = assemble(
                member,
                out,
                name=name or None,
                task=task,
                labels=split_commas(labels),
                maps=dict(_parse_map(text) for text in meanings or ()),
                fit=Rows(fit, order) if fit else None,
                weights=_parse_numbers(weights, "--weights"),
                accuracies=_parse_numbers(prior, "--prior"),
                infer=Rows(infer, order) if infer else None,
                languages=language or ("en",),
                max_tokens=max_tokens,
                windows=WindowSpec(overlap_tokens=overlap_tokens, max_windows=max_windows) if max_windows else None,
                report=report,
                warn=_warn,
            )
        for table in (table_members(made), table_tasks(made), *table_scores(made)):
            console.print(table)
        if fit is None:
            weighted = " weighted" * bool(weights or prior)
            console.print(
                f"the{weighted} mean of its members, not calibrated; --fit ROWS chooses a pool and calibrates it"
            )
        console.print(f"wrote {out}, stack digest {made.digest}", highlight=False, soft_wrap=True)


def cascade(
    bundle: BundleName,
    *,
    out: Annotated[Path, typer.Option(help="Directory of the new bundle.")],
    stage: Annotated[
        list[str], typer.Option(help="Members that run together, as large1,large2. Repeat it, the cheap ones first.")
    ],
    mode: Annotated[
        Literal["bounded", "exact"],
        typer.Option(help="Stop where a stage is sure enough, or where the rest cannot change the label."),
    ] = "bounded",
    fit: Annotated[
        list[str] | None,
        typer.Option(help="TASK=FILE: labelled rows, new to every member. Repeat it: bounded mode needs every task's."),
    ] = None,
    labels: Annotated[
        list[str] | None,
        typer.Option(help="TASK=bearish,bullish,neutral: what the integers 0, 1, ... in the rows of a task mean."),
    ] = None,
    max_loss: Annotated[
        float, typer.Option(min=0, max=1, help="Accuracy that stopping early is expected to cost a task at most.")
    ] = 0.002,
) -> None:
    r"""Give a bundle a cascade: cheap members read every text, the others what these leave in doubt.

    Prints what it spares and keeps on the rows. A text ends at a stage where all its tasks do. Needs the extra: pip
    install 'stacknorm\[train]'.

    Example:  stacknorm bundle cascade finance-large --out quick --stage mini-deep --stage mpnet-deep,mpnet-cls
    --fit sentiment=rows.csv --fit topic=topics.csv --labels sentiment=bearish,bullish,neutral
    """
    with plain_errors():
        with needs_train("fitting a cascade"):
            from stacknorm.assembly.depth import Descent, add_cascade, time_forms
            from stacknorm.assembly.fitting import read_unseen
            from stacknorm.evaluation.trial import Question
        from stacknorm.assembly.draft import draft_bundle
        from stacknorm.bundle import load_bundle

        found = load_bundle(bundle)
        orders = {task: split_commas(order) for task, order in _parse_tasks(labels or (), "--labels").items()}
        files = _parse_tasks(fit or (), "--fit")
        rows = [read_unseen(found, Question(Path(file), task, orders.get(task, ()))) for task, file in files.items()]
        descent = Descent(tuple(split_commas(names) for names in stage), mode, max_loss)
        with draft_bundle(found, out) as draft, open_progress() as report:
            add_cascade(draft, descent, rows, report)
            _write_card(draft)
        made = load_bundle(out)
        console = open_console()
        spec = made.manifest.cascade
        assert spec is not None
        console.print(table_stages(spec))
        for task, kept in spec.report.kept.items() if spec.report else ():
            console.print(
                f"{task}: accuracy less that of the whole stack {show_interval(kept)}, each text by stops fitted "
                "without it",
                highlight=False,
            )
        if rows:
            seconds = time_forms(made, rows)
            console.print(
                f"a text takes {1000 * seconds['cascade']:.1f} ms, in width {1000 * seconds['width']:.1f} ms: "
                f"{seconds['cascade'] / seconds['width']:.0%}, measured by turns here",
                highlight=False,
            )
        console.print(f"wrote {out}, stack digest {made.digest}", highlight=False, soft_wrap=True)


def join(
    bundle: BundleName,
    *,
    out: Annotated[Path, typer.Option(help="Directory of the new bundle.")],
    name: Annotated[str, typer.Option(help="Of the channel, beside the members' names.")],
    member: Annotated[list[str], typer.Option(help="A member it reads with. Repeat it, twice at least.")],
    fit: Annotated[Path, typer.Option(help="Labelled rows, new to every member.")],
    task: Annotated[str, typer.Option(help="What the rows label; needed where the bundle has several tasks.")] = "",
    labels: Annotated[
        str, typer.Option(help="What the integers 0, 1, ... in the rows mean: bearish,bullish,neutral.")
    ] = "",
    add: Annotated[bool, typer.Option("--sum", help="Add features instead of setting them end to end.")] = False,
) -> None:
    r"""Join members by a channel: one head, trained on the rows, on what they all read; to the pool one more member.

    Pool and calibrator are chosen anew on the same rows; prints what the channel is worth, cross-validated. Needs
    the extra: pip install 'stacknorm\[train]'.

    Example:  stacknorm bundle join mine --out joined --name both --member finbert --member tone --fit rows.csv
    """
    with plain_errors():
        with needs_train("training a channel"):
            from stacknorm.assembly.fitting import read_unseen
            from stacknorm.assembly.joint import add_channels, make_junction
            from stacknorm.evaluation.trial import Question
        from stacknorm.assembly.draft import draft_bundle
        from stacknorm.bundle import load_bundle

        found = load_bundle(bundle)
        chosen = _only_task(found, task)
        junction = make_junction(name, member, "sum" if add else "concat")
        rows = read_unseen(found, Question(fit, chosen, split_commas(labels)))
        with draft_bundle(found, out) as draft, open_progress() as report:
            gain = add_channels(draft, [junction], [rows], report=report).gains[chosen]
            _write_card(draft)
        made = load_bundle(out)
        console = open_console()
        for table in (table_members(made), table_tasks(made), *table_scores(made)):
            console.print(table)
        console.print(
            f"with the channel less without it, cross-validated: NLL {show_interval(gain.nll)}, accuracy "
            f"{show_interval(gain.accuracy)}: {gain.verdict}",
            highlight=False,
        )
        console.print(f"wrote {out}, stack digest {made.digest}", highlight=False, soft_wrap=True)


def _only_task(bundle: "Bundle", task: str) -> str:
    """The task asked for, or the only one there is."""
    from stacknorm.errors import DataError

    tasks = bundle.manifest.tasks
    if not task and len(tasks) > 1:
        raise DataError(f"bundle {bundle.manifest.name} has several tasks, name one with --task: {', '.join(tasks)}")
    return task or next(iter(tasks))


def _write_card(bundle: "Bundle") -> None:
    """Write the model card anew, from the manifest as it is now."""
    from stacknorm.bundle import load_bundle
    from stacknorm.evaluation.card import CARD_FILE, render_card

    (bundle.root / CARD_FILE).write_text(render_card(load_bundle(bundle.root)), encoding="utf-8")


def _parse_map(text: str) -> tuple[str, dict[str, str]]:
    """Read MEMBER=LABEL:MEANING,LABEL:MEANING."""
    from stacknorm.errors import LabelError

    member, _, pairs = text.rpartition("=")
    meanings = [pair.partition(":") for pair in split_commas(pairs)]
    if not member or not meanings or not all(own and meant for own, _, meant in meanings):
        raise LabelError(f"--map {text} is not of the form MEMBER=LABEL:MEANING,LABEL:MEANING")
    return member, {own.strip(): meant.strip() for own, _, meant in meanings}


def _parse_numbers(given: list[str] | None, option: str) -> dict[str, float] | None:
    """Read MEMBER=NUMBER,MEMBER=NUMBER; None where nothing is given."""
    from stacknorm.errors import DataError

    pairs = [part.rpartition("=") for text in given or () for part in split_commas(text)]
    try:
        return {member: float(number) for member, _, number in pairs} or None
    except ValueError as exc:
        raise DataError(f"{option} {', '.join(given or ())} is not of the form MEMBER=NUMBER,MEMBER=NUMBER") from exc


def _parse_tasks(given: Iterable[str], option: str) -> dict[str, str]:
    """Read TASK=VALUE, each task once."""
    from stacknorm.errors import DataError

    pairs = [text.partition("=") for text in given]
    for task, _, value in pairs:
        if not task or not value or [other for other, _, _ in pairs].count(task) > 1:
            raise DataError(f"{option} {task} is not of the form TASK=VALUE, with each task once")
    return {task: value for task, _, value in pairs}


def _warn(message: str) -> None:
    from rich.console import Console

    Console(stderr=True).print(f"[bold yellow]check:[/] {message}", highlight=False, soft_wrap=True)
