"""Near copies: among the stories of a window, the one that an item says again in almost the same words.

Locality-sensitive hashing over MinHash signatures (Broder 1997; banding: Leskovec, Rajaraman and Ullman, Mining of
Massive Datasets, 3.4): two signatures that agree on all of one band are compared position by position. Pure.
"""

from base64 import urlsafe_b64decode
from operator import eq
from typing import Generic, Protocol, TypeVar

SIGNATURE = "m1:"
"""How a similarity key that can be compared begins; any other is known again only if it is the same."""

POSITIONS = 64
BYTES_EACH = 2
ROWS = 7
BANDS = POSITIONS // ROWS
"""Nine bands of seven: an item with 0.8 of a story's words (Jaccard) is found nine times in ten, one with half of them
one time in fifteen, and then it fails the comparison."""


COMPARED_IN_A_BAND = 4
"""The oldest; of forms that are filled in by the thousand, each with another name, nearly all agree on a band."""


class Signed(Protocol):
    """What has a signature of 64 positions, 16 bits each (empty: none), and a place in the order of the stories."""

    signature: bytes
    seq: int


Story = TypeVar("Story", bound=Signed)


def read_signature(similarity_key: str) -> bytes:
    """The signature in a similarity key; empty where it holds none that is known here."""
    if not similarity_key.startswith(SIGNATURE):
        return b""
    encoded = similarity_key.removeprefix(SIGNATURE)
    try:
        signature = urlsafe_b64decode(encoded + "=" * (-len(encoded) % 4))
    except ValueError:
        return b""
    return signature if len(signature) == POSITIONS * BYTES_EACH else b""


def likeness(one: bytes, other: bytes) -> float:
    """The share of equal positions: an unbiased estimate of the Jaccard similarity, but for 2^-16."""
    equal: int = sum(map(eq, memoryview(one).cast("H"), memoryview(other).cast("H")))
    return equal / POSITIONS


class Neighbours(Generic[Story]):
    """The stories of the window by the bands of their signatures. Owned by one thread.

    Hardly any band is shared by two stories, so the oldest of each stands by itself.
    """

    def __init__(self, least: float) -> None:
        self._least = least
        self._oldest: tuple[dict[bytes, Story], ...] = tuple({} for _ in range(BANDS))
        self._later: tuple[dict[bytes, list[Story]], ...] = tuple({} for _ in range(BANDS))

    def add(self, story: Story) -> None:
        """A story begins; later ones are compared with it until it is removed."""
        for band, oldest, later in zip(_bands(story.signature), self._oldest, self._later, strict=False):
            if band in oldest:
                later.setdefault(band, []).append(story)
            else:
                oldest[band] = story

    def remove(self, story: Story) -> None:
        """It has left the window; the oldest does."""
        for band, oldest, later in zip(_bands(story.signature), self._oldest, self._later, strict=False):
            if band not in later:
                del oldest[band]
                continue
            oldest[band] = later[band].pop(0)
            if not later[band]:
                del later[band]

    def find(self, signature: bytes) -> Story | None:
        """The story most alike, the earliest of several; None where none is alike enough."""
        found: dict[int, Story] = {}
        for band, oldest, later in zip(_bands(signature), self._oldest, self._later, strict=False):
            if band in oldest:
                found[oldest[band].seq] = oldest[band]
                found.update((story.seq, story) for story in later.get(band, ())[: COMPARED_IN_A_BAND - 1])
        best: Story | None = None
        most = self._least
        for seq in sorted(found):
            alike = likeness(found[seq].signature, signature)
            if alike > most or (best is None and alike == most):
                best, most = found[seq], alike
        return best


def _bands(signature: bytes) -> list[bytes]:
    """None of an item without a signature."""
    width = ROWS * BYTES_EACH
    return [signature[start : start + width] for start in range(0, BANDS * width, width)] if signature else []
