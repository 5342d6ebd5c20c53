"""Search for a better recipe of one member: Optuna's TPE over the space that the config declares.

Every trial trains the member shortly, on a share of the rows, and is judged by the held-out NLL; one that falls behind
the median of the others is cut. Trials are kept in a journal, so a stopped search goes on. Source of the sampler:
Bergstra et al. 2011, Algorithms for Hyper-Parameter Optimization.
"""

import shutil
from collections.abc import Callable, Mapping
from pathlib import Path

import optuna
import tomli_w
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from pydantic import ValidationError
from rich.console import Console
from rich.table import Table

from stacknorm.encoder.device import WantedDevice
from stacknorm.errors import DataError
from stacknorm.training.corpus import whole_split
from stacknorm.training.finetune import Ground, Report, train_member
from stacknorm.training.plan import WORK, Job, Plan, make_plan
from stacknorm.training.recipe import MemberRecipe, Range, Recipe, SearchRecipe
from stacknorm.training.run import prepare_ground, show_progress

TRIALS_FILE, BEST_FILE = "trials.journal", "best.toml"
_STARTUP_TRIALS = 5  # drawn at random, and never cut
_WHOLE_NUMBERS = {"rank", "top_layers"}

Values = Mapping[str, float]
Judge = Callable[[MemberRecipe, int, Callable[[int, float], None]], float]
"""From a recipe, the trial's number and what is told each epoch's score, to the best score."""


def search_recipe(
    config: Path, data: Path, out: Path, trials: int, console: Console, *, device: WantedDevice = "auto"
) -> Path:
    """Try `trials` recipes of the member that the config's `[search]` names, and write the best.

    Args:
        config: the training config, with a `[search]` table.
        data: directory of the files it names.
        out: directory for the journal of trials and the best config.
        trials: all together, those of earlier calls with the same `out` counted.
        console: gets a line an epoch, and a table of trials at the end.
        device: where members are trained.

    Returns:
        The best config's file: that of the config with the member's fields replaced.

    Raises:
        DataError: config or data cannot be used, or a value of the space is none that its field allows.
        BundleError: the base cannot be found or loaded.
        DeviceError: a GPU is asked for, and there is none.
    """
    plan = make_plan(config, data, out, device)
    settings, member = _searched(plan.recipe)
    out.mkdir(parents=True, exist_ok=True)
    study = _open_study(out / TRIALS_FILE, settings)
    judge = _make_judge(plan, console)

    def objective(trial: optuna.Trial) -> float:
        def tell(epoch: int, score: float) -> None:
            trial.report(score, epoch)
            if trial.should_prune():
                raise optuna.TrialPruned

        return judge(_vary(member, settings, _draw(trial, settings)), trial.number, tell)

    study.optimize(objective, n_trials=max(trials - len(_finished(study)), 0))
    shutil.rmtree(out / WORK, ignore_errors=True)
    console.print(_as_table(study, member))
    best = _improved(plan, member, study.best_params)
    (out / BEST_FILE).write_text(best, encoding="utf-8")
    return out / BEST_FILE


def _searched(recipe: Recipe) -> tuple[SearchRecipe, MemberRecipe]:
    """The search and the member it is about; the bounds of the space are checked against the member's fields."""
    settings = recipe.search
    if settings is None:
        raise DataError("the config has no [search] table that says what to try")
    member = next((m for m in recipe.members if m.name == settings.member), recipe.members[0])
    for name, values in settings.space.items():
        for value in (values.low, values.high) if isinstance(values, Range) else values:
            _vary(member, settings, {name: value})
    return settings, member


def _vary(member: MemberRecipe, settings: SearchRecipe, values: Values) -> MemberRecipe:
    """A trial's recipe."""
    short = {"epochs": settings.epochs, "row_share": settings.row_share}
    try:
        return MemberRecipe.model_validate(member.model_dump() | short | dict(values))
    except ValidationError as exc:
        raise DataError(f"search: {exc.errors()[0]['loc'][0]} cannot be {exc.errors()[0]['input']}") from exc


def _draw(trial: optuna.Trial, settings: SearchRecipe) -> Values:
    return {name: _draw_one(trial, name, values) for name, values in settings.space.items()}


def _draw_one(trial: optuna.Trial, name: str, values: Range | tuple[float, ...]) -> float:
    if isinstance(values, tuple):
        return float(trial.suggest_categorical(name, values))
    if name in _WHOLE_NUMBERS:
        return trial.suggest_int(name, int(values.low), int(values.high), log=values.log)
    return trial.suggest_float(name, values.low, values.high, log=values.log)


def _open_study(journal: Path, settings: SearchRecipe) -> optuna.Study:
    """The study of a journal, new or to be gone on with."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(
        storage=JournalStorage(JournalFileBackend(str(journal))),
        study_name="search",
        load_if_exists=True,
        pruner=optuna.pruners.MedianPruner(n_startup_trials=_STARTUP_TRIALS),
    )
    # The same seed again would draw the first trials again.
    study.sampler = optuna.samplers.TPESampler(seed=settings.seed + len(study.trials), n_startup_trials=_STARTUP_TRIALS)
    return study


def _finished(study: optuna.Study) -> list[optuna.trial.FrozenTrial]:
    return [trial for trial in study.trials if trial.state.is_finished()]


def _make_judge(plan: Plan, console: Console) -> Judge:
    """A judge that keeps the frozen layers' states while their number stays the same."""
    kept: dict[int, Ground] = {}

    def judge(member: MemberRecipe, number: int, tell: Callable[[int, float], None]) -> float:
        job = Job(member, f"trial {number}", whole_split(plan.corpus), plan.out / WORK / f"trial-{number}")
        if member.top_layers not in kept:
            kept.clear()
            with show_progress(console) as progress:
                kept[member.top_layers] = prepare_ground(plan, job, console, progress)
        scores: list[float] = []

        def report(epoch: Report) -> None:
            scores.append(epoch.score)
            console.print(f"{job.title}: epoch {epoch.epoch}, {epoch.seconds:.0f} s, held-out NLL {epoch.score:.4f}")
            tell(epoch.epoch, epoch.score)

        train_member(kept[member.top_layers], member, job.split, job.folder, advance=lambda _: None, report=report)
        return min(scores)

    return judge


def _improved(plan: Plan, member: MemberRecipe, values: Values) -> str:
    """The config with the member's searched fields replaced, as TOML."""
    found = plan.recipe.model_dump(mode="json", exclude_defaults=True)
    for place, own in enumerate(plan.recipe.members):
        changed = own.model_dump() | (dict(values) if own == member else {})
        dumped = MemberRecipe.model_validate(changed).model_dump(mode="json", exclude_defaults=True)
        # The new file may lie elsewhere than the one its bases were relative to.
        references = [_absolute(reference, plan.config.parent) for reference in own.base]
        found["members"][place] = dumped | {"base": references}
    return tomli_w.dumps(found)


def _absolute(reference: str, beside: Path) -> str:
    directory = beside / reference
    return str(directory.resolve()) if directory.is_dir() else reference


def _as_table(study: optuna.Study, member: MemberRecipe) -> Table:
    finished = sorted(_finished(study), key=_best_of)
    names = sorted({name for trial in finished for name in trial.params})
    table = Table("trial", *names, "held-out NLL", "", title=f"search of {member.name}", title_justify="left")
    for trial in finished:
        values = (f"{trial.params[name]:.4g}" for name in names)
        cut = f"cut after epoch {trial.last_step}" if trial.state == optuna.trial.TrialState.PRUNED else ""
        table.add_row(str(trial.number), *values, f"{_best_of(trial):.4f}", cut)
    return table


def _best_of(trial: optuna.trial.FrozenTrial) -> float:
    return min(trial.intermediate_values.values(), default=float("inf"))
