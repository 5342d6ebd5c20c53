"""Story clusters: a story and its copies are one piece of evidence.

A copy has the same title, but for case, punctuation and spacing, and the same ``similarity_key`` as a story whose
first mention is at most a window old.
"""

import re
from dataclasses import dataclass
from hashlib import blake2b
from unicodedata import normalize

from schemas.events import InputRef
from worker.labelled import News

MAX_TITLE = 512
"""Characters looked at and kept: NFKC can grow text 18-fold, and is quadratic in runs of combining marks."""

_BREAKS = re.compile(r"[\W_]+")
_ASCII_BREAKS = {code: " " for code in range(128) if _BREAKS.match(chr(code))}


@dataclass(frozen=True, slots=True)
class Story:
    """The first mention of a negative cluster: what an alert shows as evidence."""

    item_id: str
    title: str
    url: str | None
    source: str
    score: float
    received_at_ms: int
    input: InputRef


@dataclass(slots=True)
class Cluster:
    """A story and the number of its copies; ``story`` and ``keys`` are kept where it is negative.

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
    """The evidence in a negative event."""
    assert event.sentiment is not None
    return Story(
        item_id=event.item_id,
        title=event.title[:MAX_TITLE],
        url=event.url,
        source=event.source,
        score=event.sentiment.score,
        received_at_ms=received_at_ms,
        input=InputRef(topic=event.input.topic, partition=event.input.partition, offset=event.input.offset),
    )
