"""Story clusters: a story and its copies are one piece of evidence.

A copy says a story whose first mention is at most a window old again: in the same title and words, or in almost the
same words (`worker.surge.similar`) of an entity of the story's, where both name any.
"""

import re
from collections import deque
from collections.abc import Collection
from typing import Final
from unicodedata import normalize

from msgspec import json
from mypy_extensions import mypyc_attr
from xxhash import xxh3_128_digest

from schemas.events import ItemStatus
from worker.labelled import News
from worker.surge.similar import NO_SIGNATURE, Neighbours, Signature, parse_signature

MAX_TITLE: Final = 512
"""Characters looked at and kept: NFKC can grow text 18-fold, and is quadratic in runs of combining marks."""

_BREAKS: Final = re.compile(r"[\W_]+")
_ASCII_BREAKS: Final = bytes(code for code in range(128) if _BREAKS.match(chr(code)))
_LOWER: Final = bytes(range(128)).lower() + bytes(range(128, 256))


StoryFields = tuple[str, str, str | None, str, float, int, tuple[str, int, int], bool, ItemStatus | None]


@mypyc_attr(acyclic=True)
class Story:
    """The first mention of a negative cluster: what an alert shows as evidence.

    ``place`` is the topic, partition and offset it was read at. ``status`` is None until the item was corrected or
    withdrawn.
    """

    __slots__ = ("degraded", "item_id", "place", "received_at_ms", "score", "source", "status", "title", "url")

    def __init__(
        self,
        *,
        item_id: str,
        title: str,
        url: str | None,
        source: str,
        score: float,
        received_at_ms: int,
        place: tuple[str, int, int],
        degraded: bool,
    ) -> None:
        self.item_id: Final = item_id
        self.title = title
        self.url = url
        self.source: Final = source
        self.score = score
        self.received_at_ms: Final = received_at_ms
        self.place: Final = place
        self.degraded: Final = degraded
        self.status: ItemStatus | None = None

    @staticmethod
    def of(fields: StoryFields) -> "Story":
        """The one that was written so."""
        item_id, title, url, source, score, received_at_ms, place, degraded, status = fields
        story = Story(
            item_id=item_id,
            title=title,
            url=url,
            source=source,
            score=score,
            received_at_ms=received_at_ms,
            place=place,
            degraded=degraded,
        )
        story.status = status
        return story

    def fields(self) -> StoryFields:
        """What is written of it."""
        return (
            self.item_id,
            self.title,
            self.url,
            self.source,
            self.score,
            self.received_at_ms,
            self.place,
            self.degraded,
            self.status,
        )

    def revise(self, event: News) -> None:
        """Say what an item says once it was corrected or withdrawn; what was first received stays."""
        self.status = event.status
        if event.sentiment is not None and event.status is not ItemStatus.withdrawn:
            self.title, self.url, self.score = event.title[:MAX_TITLE], event.url, event.sentiment.score


ClusterFields = tuple[str, bytes, int, int, str, tuple[str, ...], int, tuple[str, ...], StoryFields | None]


@mypyc_attr(acyclic=True)
class Cluster:
    """A story and the number of its copies; ``story`` is kept where it is negative on any key, ``keys`` are those.

    ``seq`` orders clusters as the merge did. ``fold``, ``signature`` and ``entities`` tell its copies; they are empty
    once its window has ended.
    """

    __slots__ = ("clock_ms", "copies", "entities", "fold", "id", "keys", "seq", "signature", "story")

    def __init__(
        self,
        id: str,  # noqa: A002 (its field)
        fold: bytes,
        seq: int,
        clock_ms: int,
        *,
        signature: Signature = NO_SIGNATURE,
        entities: tuple[str, ...] = (),
    ) -> None:
        self.id: Final = id
        self.fold = fold
        self.seq: Final = seq
        self.clock_ms: Final = clock_ms
        self.signature = signature
        self.entities = entities
        self.copies = 0
        self.keys: tuple[str, ...] = ()
        self.story: Story | None = None

    @staticmethod
    def of(fields: ClusterFields) -> "Cluster":
        """The one that was written so."""
        name, fold, seq, clock_ms, signature, entities, copies, keys, story = fields
        cluster = Cluster(name, fold, seq, clock_ms, signature=parse_signature(signature), entities=entities)
        cluster.copies, cluster.keys = copies, keys
        cluster.story = None if story is None else Story.of(story)
        return cluster

    def fields(self) -> ClusterFields:
        """What is written of it."""
        return (
            self.id,
            self.fold,
            self.seq,
            self.clock_ms,
            self.signature.text,
            self.entities,
            self.copies,
            self.keys,
            None if self.story is None else self.story.fields(),
        )

    @property
    def takes_copies(self) -> bool:
        """Whether its window has not ended."""
        return bool(self.fold)


read_cluster: Final[json.Decoder[ClusterFields]] = json.Decoder(ClusterFields)


class Window:
    """The clusters that copies are folded into, oldest first: those of some hours, and no more than ``most``.

    Owned by one thread.
    """

    def __init__(self, least_likeness: float, most: int) -> None:
        self._most = most
        self._clusters: deque[Cluster] = deque()
        self._by_fold: dict[bytes, Cluster] = {}
        self._neighbours: Neighbours[Cluster] = Neighbours(least_likeness)

    @property
    def oldest(self) -> Cluster | None:
        """The one whose window ends first."""
        return self._clusters[0] if self._clusters else None

    def same(self, fold: bytes) -> Cluster | None:
        """The cluster of the same title and words as an item."""
        return self._by_fold.get(fold)

    def alike(self, signature: Signature, entities: Collection[str]) -> Cluster | None:
        """The cluster that an item says again in almost the same words."""
        found = self._neighbours.find(signature)
        apart = found is not None and found.entities and entities and not set(found.entities) & set(entities)
        return None if apart else found

    def add(self, cluster: Cluster) -> Cluster | None:
        """A cluster begins; the oldest, if there is no room for both."""
        self._clusters.append(cluster)
        self._by_fold[cluster.fold] = cluster
        self._neighbours.add(cluster)
        return self.end_oldest() if len(self._clusters) > self._most else None

    def end_oldest(self) -> Cluster:
        """Take the oldest out: what comes is no copy of it."""
        cluster = self._clusters.popleft()
        if self._by_fold.get(cluster.fold) is cluster:
            del self._by_fold[cluster.fold]
        self._neighbours.remove(cluster)
        cluster.fold, cluster.signature, cluster.entities = b"", NO_SIGNATURE, ()
        return cluster


def normalise_title(title: str) -> bytes:
    """Its letters and digits, in UTF-8; case and compatibility forms folded, bounded in length and time."""
    folded = title[:MAX_TITLE]
    if folded.isascii():  # the same, faster
        return folded.encode().translate(_LOWER, _ASCII_BREAKS)
    folded = normalize("NFKC", folded)[:MAX_TITLE]
    return _BREAKS.sub("", folded.casefold()).encode("utf-8", "surrogatepass")


def fold_key(title: str, similarity_key: str) -> bytes:
    """What a story and its copies have in common, as 16 bytes.

    A hash that is no proof against forgers: who wants to be taken for a copy of a story can as well send it again.
    """
    return xxh3_128_digest(normalise_title(title) + b"\0" + similarity_key.encode("utf-8", "surrogatepass"))


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
        place=(event.input.topic, event.input.partition, event.input.offset),
        degraded=event.degraded,
    )
