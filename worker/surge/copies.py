"""Story clusters: a story and its copies are one piece of evidence.

A copy has the same title, but for case, punctuation and spacing, and the same ``similarity_key`` as a story whose
first mention is at most a window old.
"""

import re
from dataclasses import dataclass, replace
from hashlib import blake2b
from unicodedata import normalize

from schemas.events import InputRef, ItemStatus
from worker.labelled import News

MAX_TITLE = 512
"""Characters looked at and kept: NFKC can grow text 18-fold, and is quadratic in runs of combining marks."""

_BREAKS = re.compile(r"[\W_]+")
_ASCII_BREAKS = {code: " " for code in range(128) if _BREAKS.match(chr(code))}


@dataclass(frozen=True, slots=True)
class Story:
    """The first mention of a negative cluster: what an alert shows as evidence.

    ``status`` is None until the item was corrected or withdrawn.
    """

    item_id: str
    title: str
    url: str | None
    source: str
    score: float
    received_at_ms: int
    input: InputRef
    degraded: bool = False
    status: ItemStatus | None = None


@dataclass(slots=True)
class Cluster:
    """A story and the number of its copies; ``story`` is kept where it is negative on any key, ``keys`` are those.

    ``seq`` orders clusters as the merge did. ``holders`` counts the keys whose evidence it is; it is not in the state.
    """

    id: str
    fold: str
    seq: int
    clock_ms: int
    copies: int = 0
    keys: tuple[str, ...] = ()
    story: Story | None = None
    holders: int = 0


def normalise_title(title: str) -> str:
    """Case, compatibility forms, punctuation and white space folded; bounded in length and time."""
    folded = title[:MAX_TITLE]
    if folded.isascii():  # the same, five times as fast
        return " ".join(folded.lower().translate(_ASCII_BREAKS).split())
    folded = normalize("NFKC", folded)[:MAX_TITLE]
    return _BREAKS.sub(" ", folded.casefold()).strip()


def fold_key(title: str, similarity_key: str) -> str:
    """What a story and its copies have in common, as 32 hexadecimal digits."""
    text = f"{normalise_title(title)}\0{similarity_key}".encode("utf-8", "surrogatepass")
    return blake2b(text, digest_size=16).hexdigest()


def first_mention(event: News, received_at_ms: int) -> Story:
    """The evidence in an event."""
    assert event.sentiment is not None
    return Story(
        item_id=event.item_id,
        title=event.title[:MAX_TITLE],
        url=event.url,
        source=event.source,
        score=event.sentiment.score,
        received_at_ms=received_at_ms,
        input=InputRef(topic=event.input.topic, partition=event.input.partition, offset=event.input.offset),
        degraded=event.degraded,
    )


def revise_story(story: Story, event: News) -> Story:
    """What an item says once it was corrected or withdrawn; what was first received stays."""
    if event.sentiment is None or event.status is ItemStatus.withdrawn:
        return replace(story, status=event.status)
    title, score = event.title[:MAX_TITLE], event.sentiment.score
    return replace(story, title=title, url=event.url, score=score, status=event.status)
