"""From a training config and a directory of data to a bundle: members one by one, resumable, then pools.

Nothing here reads a validation file: early stopping uses a held-out part of the training data; pools and calibrators
use that part too, or the predictions of members trained without the rows they predict.
"""

import shutil
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from stacknorm.bundle import Bundle
from stacknorm.encoder.device import WantedDevice
from stacknorm.evaluation.card import CARD_FILE, render_card
from stacknorm.progress import draw_on
from stacknorm.training.evidence import gather_evidence
from stacknorm.training.finetune import Cost, read_cost
from stacknorm.training.fit import choosing_of, fit_task, write_bundle
from stacknorm.training.forms import add_forms
from stacknorm.training.plan import WORK, Job, fold_jobs, make_plan, whole_jobs
from stacknorm.training.run import run_jobs, say_plan, show_progress


def train_bundle(config: Path, data: Path, out: Path, console: Console, *, device: WantedDevice = "auto") -> Bundle:
    """Train every member that is not finished yet, fit the pools and write the bundle.

    Args:
        config: the training config.
        data: directory of the files it names.
        out: directory of the bundle; finished members wait in `.training` there until the bundle is written.
        console: gets one line an epoch, and bars where it is a terminal.
        device: where members are trained, and the bundle's forms fitted.

    Raises:
        DataError: config or data cannot be used.
        BundleError: a base cannot be found or loaded.
        DeviceError: a GPU is asked for, and there is none.
    """
    plan = make_plan(config, data, out, device)
    whole = whole_jobs(plan)
    folds = fold_jobs(plan, plan.recipe.folds) if plan.recipe.folds else []
    say_plan(plan, [*folds, *whole], console)
    run_jobs(plan, [*folds, *whole], console)
    evidence = gather_evidence(plan, folds or whole)
    choosing = choosing_of(plan.recipe)
    fitted = {task: fit_task(plan.recipe.tasks[task], found, choosing) for task, found in evidence.items()}
    costs = {
        member.name: _cost([job for job in [*folds, *whole] if job.member == member]) for member in plan.recipe.members
    }
    bundle = write_bundle(plan, {job.member.name: job.folder for job in whole}, fitted, costs)
    if plan.recipe.channels or plan.recipe.cascade:
        console.print("fitting channels and cascade on what is held out")
        with show_progress(console) as progress:
            bundle = add_forms(plan, bundle, draw_on(progress))
    (out / CARD_FILE).write_text(render_card(bundle), encoding="utf-8")
    shutil.rmtree(out / WORK)
    return bundle


def _cost(jobs: Sequence[Job]) -> Cost:
    costs = [read_cost(job.folder) for job in jobs]
    return Cost(sum(cost.seconds for cost in costs), costs[-1].precision)
