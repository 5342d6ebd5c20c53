"""Tagging schemes: labelled runs of positions <-> one tag a position, in BIO or BILOU, and repair of impossible tags.

BIO marks the first position of a span B and the others I; BILOU also marks the last L and a span of one position U
(BIOES is the same with E and S). Ramshaw & Marcus 1995; Ratinov & Roth 2009.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Literal, NamedTuple

import numpy as np

from stacknorm.errors import LabelError
from stacknorm.labels import LabelSpace
from stacknorm.pooling.pool import Probabilities

Scheme = Literal["BIO", "BILOU"]

OUTSIDE = "O"
_STARTS, _ENDS = "BUS", "LEUS"
_PREFIXES = frozenset("BILUES")


class Run(NamedTuple):
    """Positions `start` to `end - 1` of a sequence belong together."""

    start: int
    end: int
    label: str


def head_tags(labels: Sequence[str]) -> tuple[str, ...]:
    """The tags of a task with these types of span, in the order that every array of tags here has: O, then B, I."""
    return (OUTSIDE, *(f"{prefix}-{label}" for label in labels for prefix in "BI"))


def write_tags(runs: Iterable[Run], length: int, scheme: Scheme = "BIO") -> list[str]:
    """Tags of a sequence of `length` positions.

    Raises:
        ValueError: runs overlap or leave the sequence.
    """
    tags = [OUTSIDE] * length
    for start, end, label in runs:
        if not 0 <= start < end <= length or any(tag != OUTSIDE for tag in tags[start:end]):
            raise ValueError(f"run {start} to {end} overlaps another or leaves the {length} positions")
        tags[start:end] = [f"{prefix}-{label}" for prefix in _prefixes(end - start, scheme)]
    return tags


def _prefixes(length: int, scheme: Scheme) -> str:
    if scheme == "BIO":
        return "B" + "I" * (length - 1)
    return "U" if length == 1 else "B" + "I" * (length - 2) + "L"


def read_tags(tags: Sequence[str]) -> list[Run]:
    """Runs of a sequence of tags of either scheme, possible or not.

    The rule is conlleval's: a run starts at B or U, and at an I or L whose predecessor is not of its type or ended
    its run; it ends before the next start or O, and after L or U.
    """
    runs: list[Run] = []
    is_open = False
    for place, tag in enumerate(tags):
        if tag == OUTSIDE:
            is_open = False
            continue
        prefix, label = split_tag(tag)
        if is_open and prefix not in _STARTS and runs[-1].label == label:
            runs[-1] = Run(runs[-1].start, place + 1, label)
        else:
            runs.append(Run(place, place + 1, label))
        is_open = prefix not in _ENDS
    return runs


def repair_tags(tags: Sequence[str], scheme: Scheme = "BIO") -> list[str]:
    """The possible sequence of tags that means what `tags` are read as."""
    return write_tags(read_tags(tags), len(tags), scheme)


def split_tag(tag: str) -> tuple[str, str]:
    """Prefix and type of a tag other than O.

    Raises:
        LabelError: it has no prefix, so that two spans side by side could not be told apart.
    """
    prefix, dash, label = tag[:1], tag[1:2], tag[2:]
    if prefix not in _PREFIXES or dash not in {"-", "_"} or not label:
        raise LabelError(f"tag {tag!r} is neither O nor a type behind B-, I-, L- or U-")
    return prefix, label


def tag_matrix(space: LabelSpace, order: Sequence[str], explicit: Mapping[str, str] | None = None) -> Probabilities:
    """Map the tags of a member, of either scheme, onto `head_tags(space.labels)`.

    Args:
        space: the types of span.
        order: the member's tags in the order of its logits.
        explicit: the member's name of a type -> a type of the space, or O for a type that the task does not have.

    Returns:
        Zeros and ones: member probabilities [n, m] @ matrix [m, t] = [n, t].

    Raises:
        LabelError: a tag repeats, has no prefix or an unknown type, or none starts a span.
    """
    if len(set(order)) != len(order):
        raise LabelError(f"a tag repeats in {list(order)}")
    named = explicit or {}
    tags = head_tags(space.labels)
    matrix = np.zeros((len(order), len(tags)))
    for row, tag in enumerate(order):
        matrix[row, tags.index(_canonical(tag, space, named))] = 1
    if not matrix[:, 1::2].any():
        raise LabelError(f"no tag of {list(order)} starts a span")
    return matrix


def _canonical(tag: str, space: LabelSpace, named: Mapping[str, str]) -> str:
    if tag == OUTSIDE:
        return OUTSIDE
    prefix, label = split_tag(tag)
    label = named.get(label, label)
    if label == OUTSIDE:
        return OUTSIDE
    return f"{'B' if prefix in _STARTS else 'I'}-{space.canonical(label)}"
