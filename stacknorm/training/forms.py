"""The other forms of a trained stack: channels and a cascade, fitted by its finished members on the held-out part."""

import numpy as np

from stacknorm.assembly.depth import Descent, add_cascade
from stacknorm.assembly.fitting import Unseen
from stacknorm.assembly.joint import Joined, Junction, add_channels
from stacknorm.bundle import Bundle, Manifest, MemberSpec, save_manifest
from stacknorm.entities import Mention
from stacknorm.evaluation.trial import Sheet
from stacknorm.progress import Report
from stacknorm.training.fit import choosing_of
from stacknorm.training.plan import Plan


def add_forms(plan: Plan, bundle: Bundle, report: Report) -> Bundle:
    """Add the channels and the cascade that the recipe asks for, and write the manifest anew.

    Raises:
        DataError: too few rows are held out.
    """
    recipe = plan.recipe
    here = save_manifest(bundle.root, _with_members(bundle.manifest, _found_here(plan, bundle)))
    if recipe.channels:
        here = _join(plan, here, report).bundle
    if recipe.cascade:
        wanted = recipe.cascade
        rows = [held_out_rows(plan, task) for task in recipe.tasks]
        here = add_cascade(here, Descent(wanted.stages, wanted.mode, wanted.max_loss), rows, report)
    return save_manifest(bundle.root, _with_members(here.manifest, bundle.manifest.members))


def held_out_rows(plan: Plan, task: str) -> Unseen:
    """The held-out examples of a task of the kind `single` or `entity`."""
    corpus = plan.corpus
    examples = [corpus.examples[row] for row in corpus.rows(held_out=True, task=task).tolist()]
    texts = tuple(example.text for example in examples)
    sheet = Sheet(
        texts=texts,
        mentions=tuple(
            tuple(Mention("given", example.text[mark.start : mark.end], mark.start, mark.end) for mark in example.marks)
            for example in examples
        ),
        truth=np.array([label for example in examples for label in example.classes], dtype=np.int64),
        documents=np.repeat(np.arange(len(examples)), [len(example.classes) for example in examples]),
        shown=(),
    )
    return Unseen(task, sheet, corpus.prints[corpus.rows(held_out=False)])


def _join(plan: Plan, bundle: Bundle, report: Report) -> Joined:
    recipe = plan.recipe
    junctions = [Junction.model_validate(channel.model_dump()) for channel in recipe.channels]
    rows = [held_out_rows(plan, task) for task, part in recipe.tasks.items() if part.kind == "single"]
    return add_channels(bundle, junctions, rows, report=report, choosing=choosing_of(recipe))


def _found_here(plan: Plan, bundle: Bundle) -> tuple[MemberSpec, ...]:
    """Members whose bases are named by where training found them, which a directory beside the config need not be."""
    return tuple(
        member.model_copy(
            update={
                "base": member.base.model_copy(
                    update={"references": (*member.base.references, str(plan.bases[member.name].root.absolute()))}
                )
            }
        )
        for member in bundle.manifest.members
    )


def _with_members(manifest: Manifest, members: tuple[MemberSpec, ...]) -> Manifest:
    return manifest.model_copy(update={"members": members})
