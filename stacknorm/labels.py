"""Label spaces, the many names of one label, and the map from a member's label order onto a space."""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from stacknorm.errors import LabelError

_MEANINGLESS = re.compile(r"(label[_ ]?)?\d+", re.IGNORECASE)


def _fold(label: str) -> str:
    return " ".join(label.replace("_", " ").replace("&", " and ").casefold().split())


@dataclass(frozen=True, slots=True)
class LabelSpace:
    """The labels of one task in their canonical order, with the other names they go by."""

    name: str
    labels: tuple[str, ...]
    aliases: Mapping[str, str] = field(default_factory=dict)
    coarsenings: tuple[Mapping[str, str], ...] = ()
    """Finer scales of the same thing: all the labels of one, each with the label of this space it falls on. A label
    such as `2 stars` means one thing among five and another among three, so a scale counts only as a whole."""

    def canonical(self, label: str) -> str:
        """Return the label of this space that `label` means.

        Raises:
            LabelError: `label` is unknown, or says nothing by itself (`LABEL_1`, `2`).
        """
        if label in self.labels:
            return label
        folded = _fold(label)
        known = {_fold(own): own for own in self.labels} | {_fold(k): v for k, v in self.aliases.items()}
        if folded in known:
            return known[folded]
        if _MEANINGLESS.fullmatch(label.strip()):
            raise LabelError(
                f"label {label!r} says nothing about {self.name}: models order their labels differently, "
                f"give an explicit map onto {', '.join(self.labels)}"
            )
        raise LabelError(f"label {label!r} is not one of {self.name}: {', '.join(self.labels)}")

    def index(self, label: str) -> int:
        """Position in this space of the label that `label` means."""
        return self.labels.index(self.canonical(label))

    def read_order(self, order: Sequence[str], explicit: Mapping[str, str] | None = None) -> tuple[str, ...]:
        """What each label of a member means here, in the member's order.

        Args:
            order: the member's labels in the order of its logits, each once.
            explicit: member label -> label of this space, for labels that do not explain themselves; it comes first,
                then a scale that `order` is the whole of, then names and aliases.

        Raises:
            LabelError: a label repeats, is unknown or is meaningless without `explicit`.
        """
        if len(set(order)) != len(order):
            raise LabelError(f"a label repeats in {list(order)}")
        named = explicit or {}
        if stray := named.keys() - set(order):
            raise LabelError(f"the map names labels the member does not have: {sorted(stray)}")
        folded = {_fold(label) for label in order}
        scale = next((scale for scale in self.coarsenings if scale.keys() == folded), {})
        return tuple(self.canonical(named.get(label, scale.get(_fold(label), label))) for label in order)

    def matrix(self, order: Sequence[str], explicit: Mapping[str, str] | None = None) -> npt.NDArray[np.float32]:
        """Map a member's label order onto this space.

        Several labels of a member may fall on one of the space (five stars onto three). A label of the space
        that the member lacks gets a column of zeros; what pools make of it says `stacknorm.pooling.lacking`.

        Args:
            order: as `read_order` takes it.
            explicit: as `read_order` takes it.

        Returns:
            Zeros and ones, shape [len(order), len(self.labels)]: member probabilities [n, m] @ matrix = [n, k].

        Raises:
            LabelError: as `read_order` does.
        """
        mapping = np.zeros((len(order), len(self.labels)), dtype=np.float32)
        for row, label in enumerate(self.read_order(order, explicit)):
            mapping[row, self.labels.index(label)] = 1
        return mapping


def _aliases(names: Mapping[str, Iterable[str]]) -> dict[str, str]:
    return {alias: label for label, known in names.items() for alias in known}


_POLAR = ("negative", "negative", "neutral", "positive", "positive")
_FIVE_GRADES = (
    ("1 star", "2 stars", "3 stars", "4 stars", "5 stars"),
    *(
        (f"{very} negative", "negative", "neutral", "positive", f"{very} positive")
        for very in ("very", "strongly", "extremely")
    ),
    ("very bearish", "bearish", "neutral", "bullish", "very bullish"),
)

SENTIMENT = LabelSpace(
    "sentiment",
    ("negative", "neutral", "positive"),
    _aliases(
        {
            "negative": ("bearish", "bear", "neg", "-1"),
            "neutral": ("neu", "mixed", "none"),
            "positive": ("bullish", "bull", "pos", "+1"),
        }
    ),
    tuple(dict(zip(grades, _POLAR, strict=True)) for grades in _FIVE_GRADES),
)

TOPIC = LabelSpace(
    "topic",
    (
        "Analyst Update",
        "Fed and Central Banks",
        "Company and Product News",
        "Treasuries and Corporate Debt",
        "Dividend",
        "Earnings",
        "Energy and Oil",
        "Financials",
        "Currencies",
        "General News and Opinion",
        "Gold Metals and Materials",
        "IPO",
        "Legal and Regulation",
        "M&A and Investments",
        "Macro",
        "Markets",
        "Politics",
        "Personnel Change",
        "Stock Commentary",
        "Stock Movement",
    ),
)

_KNOWN = {space.name: space for space in (SENTIMENT, TOPIC)}


def label_space(task: str, labels: Sequence[str]) -> LabelSpace:
    """The space of a task with these labels; a task known here brings its aliases, and its scales if it is whole.

    Raises:
        LabelError: fewer than two labels, or one repeats.
    """
    if len(set(labels)) != len(labels) or len(labels) < 2:
        raise LabelError(f"task {task!r} needs at least two different labels, not {list(labels)}")
    known = _KNOWN.get(task)
    aliases = {alias: label for alias, label in known.aliases.items() if label in labels} if known else {}
    coarsenings = known.coarsenings if known and set(known.labels) <= set(labels) else ()
    return LabelSpace(task, tuple(labels), aliases, coarsenings)


def known_labels(task: str) -> tuple[str, ...]:
    """The labels of a task that is known here.

    Raises:
        LabelError: it is not known.
    """
    if task not in _KNOWN:
        raise LabelError(f"the labels of task {task!r} must be named; known are those of {', '.join(_KNOWN)}")
    return _KNOWN[task].labels
