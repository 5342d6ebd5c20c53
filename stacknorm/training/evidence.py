"""What members said of examples they were not trained on, gathered from trainings for fitting and scoring."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from stacknorm.bundle import Interval, TaskKind
from stacknorm.evaluation.answers import Answers
from stacknorm.evaluation.bootstrap import Bootstrap
from stacknorm.evaluation.counted import compare_counts, score_counts
from stacknorm.evaluation.metrics import SPAN_METRICS, score
from stacknorm.evaluation.paired import Paired, PairedCounts, compare_answers
from stacknorm.pooling.held_out import HeldOut, Prints
from stacknorm.pooling.pool import Probabilities, to_pairs
from stacknorm.spans.decode import decode_spans
from stacknorm.spans.score import Counts, count_spans
from stacknorm.spans.tags import head_tags, read_tags
from stacknorm.spans.words import Places
from stacknorm.training.corpus import Indices
from stacknorm.training.finetune import read_answers
from stacknorm.training.plan import Job, Plan
from stacknorm.training.targets import count_units, true_units


@dataclass(frozen=True, slots=True, eq=False)
class Evidence:
    """One task's units (see `stacknorm.training.targets`), and what each member said of them."""

    kind: TaskKind
    members: Mapping[str, Probabilities]
    """[units, head labels]."""
    truth: Indices
    """[units], of a `multi` task [units, labels] of 0 and 1."""
    prints: Prints
    """Fingerprint of the text of each unit, [units]."""
    folds: Indices
    """Which training answered each unit, [units]."""
    examples: Indices
    """The example each unit is in, those of one side by side, [units]."""
    trained_on: tuple[Prints, ...]
    """Fingerprints that each of these trainings learnt from."""

    def held_out(self) -> HeldOut:
        """For fitting; in a `multi` task each label of each text is a row."""
        stacked = np.stack(list(self.members.values()))
        if self.kind == "multi":
            return HeldOut.of_labels(stacked, self.truth.astype(bool), self.prints, self.trained_on, self.folds)
        return HeldOut(stacked, self.truth, self.prints, self.trained_on, self.folds)

    def score(self, probabilities: Probabilities, labels: Sequence[str]) -> dict[str, Interval]:
        """Every metric of [units, head labels] with its interval; units of one text are drawn together.

        Args:
            probabilities: of each unit.
            labels: of the task.
        """
        if self.kind == "multi":
            documents = self.prints.repeat(self.truth.shape[1])
            return score(to_pairs(probabilities), self.truth.reshape(-1), Bootstrap(documents))
        found = score(probabilities, self.truth, Bootstrap(self.prints))
        return found | self._score_spans(probabilities, labels) if self.kind == "spans" else found

    def compare(self, ours: Probabilities, theirs: Probabilities, labels: Sequence[str]) -> Paired | PairedCounts:
        """Compare what two systems say of the same units, each [units, head labels]."""
        if self.kind == "spans":
            return compare_counts(self._count_spans(ours, labels), self._count_spans(theirs, labels))
        if self.kind == "multi":
            documents = self.prints.repeat(self.truth.shape[1])
            answers = Answers(("absent", "present"), to_pairs(ours), self.truth.reshape(-1), documents)
            return compare_answers(answers, answers.by(to_pairs(theirs)))
        answers = Answers(tuple(labels), ours, self.truth, self.prints)
        return compare_answers(answers, answers.by(theirs))

    def _score_spans(self, tags: Probabilities, labels: Sequence[str]) -> dict[str, Interval]:
        scores = score_counts(self._count_spans(tags, labels), labels)
        return dict(zip(SPAN_METRICS, (scores.micro_f1, scores.precision, scores.recall), strict=True))

    def _count_spans(self, tags: Probabilities, labels: Sequence[str]) -> Counts:
        """Strict counts of spans, whose ends are told in words: an end inside a word is that of the word."""
        cuts = np.flatnonzero(np.diff(self.examples)) + 1
        said = [decode_spans(_count_words(part), part, labels) for part in np.split(tags, cuts)]
        names = head_tags(labels)
        true = [read_tags([names[tag] for tag in part]) for part in np.split(self.truth, cuts)]
        return count_spans([[(s.start, s.end, s.label) for s in spans] for spans in said], true, labels)


def _count_words(tags: Probabilities) -> Places:
    """Words by their number instead of their characters, [n, 2]."""
    starts = np.arange(len(tags))
    return np.stack([starts, starts + 1], axis=1)


def gather_evidence(plan: Plan, jobs: Sequence[Job]) -> dict[str, Evidence]:
    """Task -> what the trainings `jobs`, all done, answered; units in the order of the corpus."""
    said = {job.folder: read_answers(job.folder) for job in jobs}
    splits = {job.fold: job.split for job in jobs}
    prints = plan.corpus.prints
    found = {}
    for task, recipe in plan.recipe.tasks.items():
        judged = {fold: plan.corpus.only(split.judge, [task]) for fold, split in splits.items()}
        pieces = {
            member.name: [said[job.folder][task] for job in jobs if job.member == member]
            for member in plan.recipe.members
            if task in plan.recipe.tasks_of(member)
        }
        rows = np.concatenate(list(judged.values()))
        units = np.array([count_units(recipe.kind, plan.corpus.examples[row]) for row in rows.tolist()])
        row_of = rows.repeat(units)
        order = np.argsort(row_of, kind="stable")
        fold_of = np.repeat(list(judged), [len(part) for part in judged.values()]).repeat(units)
        members = {name: np.concatenate(parts)[order] for name, parts in pieces.items()}
        classes = next(iter(members.values())).shape[1]
        found[task] = Evidence(
            recipe.kind,
            members,
            true_units(plan.corpus, recipe.kind, np.sort(rows), classes),
            prints[row_of[order]],
            fold_of[order],
            row_of[order],
            tuple(prints[split.train] for split in splits.values()),
        )
    return found
