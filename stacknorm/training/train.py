"""From a training config and a directory of data to a bundle: members one by one, resumable, then pools.

Nothing here reads a validation file: early stopping, pools and temperatures use a held-out part of training data.
"""

import shutil
from collections.abc import Mapping
from functools import partial
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from stacknorm.bundle import Bundle
from stacknorm.encoder.precision import Precision, faster_precision
from stacknorm.encoder.tokens import load_tokenizer, tokenise
from stacknorm.encoder.trunk import depth_of, load_encoder, take_lower
from stacknorm.source import resolve_base
from stacknorm.training.corpus import load_corpus
from stacknorm.training.finetune import (
    Cost,
    Ground,
    Report,
    count_batches,
    held_out_labels,
    measure_precision,
    member_key,
    read_cost,
    read_held_out,
    train_member,
)
from stacknorm.training.fit import Fitted, Run, fit_task, write_bundle
from stacknorm.training.recipe import MemberRecipe, load_recipe
from stacknorm.training.states import States, compute_states

_WORK = ".training"


def train_bundle(config: Path, data: Path, out: Path, console: Console) -> Bundle:
    """Train every member that is not finished yet, fit the pools and write the bundle.

    Args:
        config: the training config.
        data: directory of the files it names.
        out: directory of the bundle; finished members wait in `.training` there until the bundle is written.
        console: gets one line an epoch, and bars where it is a terminal.

    Raises:
        DataError: config or data cannot be used.
        BundleError: the base cannot be found or loaded.
    """
    recipe = load_recipe(config)
    run = Run(recipe, config, load_corpus(recipe, data), resolve_base(recipe.base, config.parent), out)
    folders = {member.name: _folder(run, member) for member in recipe.members}
    missing = [member for member in recipe.members if not folders[member.name].is_dir()]
    held_out = int(run.corpus.held_out.sum())
    console.print(f"{len(run.corpus.texts):,} rows, {held_out:,} held out; {len(missing)} members to train")
    if missing:
        _train_missing(run, missing, console)
    costs = [read_cost(folder) for folder in folders.values()]
    cost = Cost(sum(cost.seconds for cost in costs), costs[-1].precision)
    bundle = write_bundle(run, folders, _fit_tasks(run, folders), cost)
    shutil.rmtree(out / _WORK)
    return bundle


def _folder(run: Run, member: MemberRecipe) -> Path:
    """Where a finished member lies; another recipe or other data give another folder."""
    return run.out / _WORK / f"{member.name}-{member_key(run.recipe, member, run.corpus, run.base)}"


def _fit_tasks(run: Run, folders: Mapping[str, Path]) -> dict[str, Fitted]:
    given = {name: read_held_out(folder) for name, folder in folders.items()}
    return {
        task: fit_task(
            space.labels, {name: tasks[task] for name, tasks in given.items()}, held_out_labels(run.corpus, task)
        )
        for task, space in run.recipe.spaces().items()
    }


def _train_missing(run: Run, missing: list[MemberRecipe], console: Console) -> None:
    with _progress(console) as progress:
        ground = _prepare(run, missing[0], progress)
        console.print(f"training in {ground.precision}")
        for member in missing:
            bar = progress.add_task(member.name, total=count_batches(ground, member))

            def report(epoch: Report, name: str = member.name) -> None:
                scores = ", ".join(f"{task} {value:.4f}" for task, value in epoch.held_out_nll.items())
                console.print(
                    f"{name}: epoch {epoch.epoch}, {epoch.seconds:.0f} s, loss {epoch.loss:.4f}, held-out NLL {scores}"
                )

            train_member(ground, member, _folder(run, member), partial(progress.advance, bar), report)


def _progress(console: Console) -> Progress:
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    return Progress(*columns, console=console, disable=not console.is_terminal)


def _prepare(run: Run, first: MemberRecipe, progress: Progress) -> Ground:
    """Load the base, compute the frozen layers' states, and measure which precision trains faster."""
    recipe = run.recipe
    encoder = load_encoder(run.base)
    tokens = tokenise(load_tokenizer(run.base, recipe.max_tokens), run.corpus.texts)
    lower = take_lower(encoder, depth_of(encoder) - recipe.top_layers)
    pad_id = encoder.config.pad_token_id

    def states(precision: Precision, rows: int) -> States:
        bar = progress.add_task(f"frozen layers ({precision})", total=rows)
        return compute_states(
            lower,
            tokens[:rows],
            pad_id=pad_id,
            batch_tokens=recipe.batch_tokens,
            advance=partial(progress.advance, bar),
            precision=precision,
        )

    sample = min(len(tokens), 4 * recipe.batch_tokens // recipe.max_tokens)
    precision = faster_precision(lambda tried: states(tried, sample), repeats=1)
    ground = Ground(recipe, run.corpus, states(precision, len(tokens)), encoder, precision)
    return Ground(recipe, run.corpus, ground.states, encoder, measure_precision(ground, first))
