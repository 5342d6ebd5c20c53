"""From tags of words to spans: the likeliest possible sequence, and votes among members' spans."""

from collections import defaultdict
from collections.abc import Sequence

import numpy as np

from stacknorm.pooling.pool import Probabilities
from stacknorm.prediction import Span
from stacknorm.spans.tags import head_tags, read_tags
from stacknorm.spans.words import Places

_TINY = 1e-12  # keeps logarithms finite
_FORBIDDEN = -1e9  # a logarithm below that of any sequence of tags


def likeliest_tags(tags: Probabilities) -> list[int]:
    """The likeliest sequence in which each I goes on from a B or I of its type (Viterbi 1967).

    Args:
        tags: probabilities of each position, independent of the others, [n, tags], in the order of `head_tags`.

    Returns:
        Position in `head_tags` of each tag, [n].
    """
    if not len(tags):
        return []
    logs = np.log(tags + _TINY)
    allowed = _transitions(tags.shape[1])
    score = logs[0] + np.where(np.arange(len(allowed)) % 2 == 0, _FORBIDDEN, 0)
    score[0] = logs[0, 0]
    came_from = np.zeros(tags.shape, dtype=np.int64)
    for place in range(1, len(tags)):
        paths = score[:, None] + allowed  # [from, to]
        came_from[place] = paths.argmax(axis=0)
        score = paths.max(axis=0) + logs[place]
    best = [int(score.argmax())]
    for place in range(len(tags) - 1, 0, -1):
        best.append(int(came_from[place, best[-1]]))
    return best[::-1]


def _transitions(tags: int) -> Probabilities:
    """0 where a tag may follow another, [from, to]: O and B follow anything, I its own B or I."""
    kinds = np.arange(tags)
    types = (kinds + 1) // 2
    is_inside = (kinds > 0) & (kinds % 2 == 0)
    return np.where(is_inside & np.not_equal.outer(types, types), _FORBIDDEN, 0.0)


def decode_spans(words: Places, tags: Probabilities, labels: Sequence[str]) -> tuple[Span, ...]:
    """Spans of a text.

    Args:
        words: its words, [n, 2].
        tags: pooled probabilities of each word, [n, tags]; rows of NaN are outside of any span.
        labels: the types of span.
    """
    unread = np.isnan(tags[:, :1])  # a row is known whole or not at all
    known = np.where(unread, np.eye(1, tags.shape[1]), tags)
    names = head_tags(labels)
    types = known[:, 1::2] + known[:, 2::2]
    weights = words[:, 1] - words[:, 0]
    return tuple(
        Span(
            start=int(words[start, 0]),
            end=int(words[end - 1, 1]),
            label=label,
            probability=float(np.average(types[start:end, labels.index(label)], weights=weights[start:end]).clip(0, 1)),
        )
        for start, end, label in read_tags([names[tag] for tag in likeliest_tags(known)])
    )


def vote_spans(
    members: Sequence[Sequence[Span]], weights: Sequence[float], least_share: float = 0.5
) -> tuple[Span, ...]:
    """Let members' own spans vote: a span is kept where more than `least_share` of the weight has exactly it.

    Where spans overlap, which takes a `least_share` below one half, the larger share stays, then the larger
    probability, then the one further left.

    Args:
        members: the spans of each.
        weights: one for each member, summing to 1.
        least_share: between 0 and 1.

    Returns:
        Spans from left to right, with the weighted mean of their members' probabilities.
    """
    votes: dict[tuple[int, int, str], list[tuple[float, float]]] = defaultdict(list)
    for spans, weight in zip(members, weights, strict=True):
        for span in spans:
            votes[span.start, span.end, span.label].append((weight, span.probability))
    ranked = []
    for place, given in votes.items():
        share = sum(weight for weight, _ in given)
        if share > least_share:
            probability = sum(weight * own for weight, own in given) / share
            ranked.append((-share, -probability, Span(*place, probability)))
    kept: list[Span] = []
    for _, _, span in sorted(ranked, key=lambda entry: (*entry[:2], entry[2].start, entry[2].end)):
        if all(span.end <= other.start or other.end <= span.start for other in kept):
            kept.append(span)
    return tuple(sorted(kept, key=lambda span: span.start))
