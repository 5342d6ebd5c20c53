"""`stacknorm-worker backfill`."""

from pathlib import Path
from typing import Annotated

import typer

from worker.backtest.cli import (
    PUBLISHED,
    Cache,
    End,
    Files,
    SkipBad,
    Start,
    Time,
    Zone,
    open_progress,
    read_moment,
    read_zone,
)
from worker.console import err, out, read_settings


def backfill(
    context: typer.Context,
    files: Files,
    *,
    out_file: Annotated[
        Path, typer.Option("--out", metavar="FILE", help="The primer; compressed if it ends with .gz.")
    ] = Path("primer.json"),
    start: Start = None,
    end: End = None,
    bundle: Annotated[
        str | None, typer.Option(metavar="BUNDLE", help="Prime for this bundle instead of engine.bundle.")
    ] = None,
    time: Time = PUBLISHED,
    zone: Zone = None,
    skip_bad: SkipBad = False,
    cache: Cache = None,
) -> None:
    """Learn from old news what is usual, so that the detector need not learn it live. Needs no Kafka.

    It learns each key's baseline, how the hours of the week differ, what to believe of a new key, and V, the bad news
    a day. All of it goes into one file, the primer; with surge.primer the detector starts from it and may fire at once.
    A primer is of one stack: before you change the bundle, prime the new one with --bundle.

    Example:  stacknorm-worker backfill 2025.jsonl --out primer.json

    To see what it is worth, learn on the first part of an archive and look at the second:

    stacknorm-worker backfill 2025.jsonl --to 2025-10-01

    STACKNORM_SURGE__PRIMER=primer.json stacknorm-worker backtest 2025.jsonl --from 2025-10-01
    """
    from schemas.events import KeyType
    from worker.backfill.run import run_backfill
    from worker.backfill.words import advise, describe_week, draw_week, render_priors, summarise
    from worker.backtest.archive import Selection
    from worker.backtest.output import check_folder
    from worker.primer import write_primer

    settings = read_settings(context)
    selection = Selection(read_moment("--from", start), read_moment("--to", end), time, read_zone(zone), skip_bad)
    check_folder(out_file)
    with open_progress() as report:
        found = run_backfill(files, settings, bundle=bundle, selection=selection, cache=cache, report=report)
    if (labelling := found.labelling) is not None:
        err.print(f"{labelling.asked:,} texts labelled; labels are kept in {labelling.kept_in}", soft_wrap=True)
    for sentence in summarise(found):
        out.print(sentence, highlight=False, soft_wrap=True)
    weights = found.primer.profiles[KeyType.market]
    for line in (*draw_week(weights), describe_week(weights)):
        out.print(line, highlight=False, soft_wrap=True)
    out.print(render_priors(found))
    write_primer(found.primer, out_file)
    out.print(f"wrote {out_file}; next, set:", highlight=False, soft_wrap=True)
    for advice in advise(found, settings, out_file):
        out.print(f"  {advice}", highlight=False, soft_wrap=True)
