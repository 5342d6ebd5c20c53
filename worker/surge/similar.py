"""Near copies: among the stories of a window, the one that an item says again in almost the same words.

Locality-sensitive hashing over MinHash signatures (Broder 1997; banding: Leskovec, Rajaraman and Ullman, Mining of
Massive Datasets, 3.4): two signatures that agree on all of one band are compared position by position. Pure.
"""

from binascii import a2b_base64
from collections.abc import Sequence
from functools import lru_cache
from operator import eq
from struct import Struct
from typing import Generic, Protocol, TypeVar

SIGNATURE = "m1:"
"""How a similarity key that can be compared begins; any other is known again only if it is the same."""

POSITIONS = 64
BYTES_EACH = 2
ROWS = 7
BANDS = POSITIONS // ROWS
"""Nine bands of seven: an item with 0.8 of a story's words (Jaccard) is found nine times in ten, one with half of them
one time in fifteen, and then it fails the comparison."""


_cut = Struct(f"{ROWS * BYTES_EACH}s" * BANDS + f"{(POSITIONS - BANDS * ROWS) * BYTES_EACH}x").unpack

_FROM_URL = bytes.maketrans(b"-_", b"+/")
_PADDING = b"=" * (-POSITIONS * BYTES_EACH % 3)

COMPARED_IN_A_BAND = 4
"""The oldest; of forms that are filled in by the thousand, each with another name, nearly all agree on a band."""


class Signed(Protocol):
    """What has a signature of 64 positions, 16 bits each (empty: none), and a place in the order of the stories."""

    signature: bytes

    @property
    def seq(self) -> int: ...  # noqa: D102 (see above)


Story = TypeVar("Story", bound=Signed)


def read_signature(similarity_key: str) -> bytes:
    """The signature in a similarity key; empty where it holds none that is known here."""
    if not similarity_key.startswith(SIGNATURE):
        return b""
    try:
        signature = a2b_base64(similarity_key.encode()[len(SIGNATURE) :].translate(_FROM_URL) + _PADDING)
    except ValueError:
        return b""
    return signature if len(signature) == POSITIONS * BYTES_EACH else b""


def likeness(one: bytes, other: bytes) -> float:
    """The share of equal positions: an unbiased estimate of the Jaccard similarity, but for 2^-16."""
    equal: int = sum(map(eq, memoryview(one).cast("H"), memoryview(other).cast("H")))
    return equal / POSITIONS


class Neighbours(Generic[Story]):
    """The stories of the window by the bands of their signatures. Owned by one thread.

    Hardly any band is shared by two stories, so the oldest of each stands by itself. Bands of other places that agree
    by chance cost a comparison.
    """

    def __init__(self, least: float) -> None:
        self._least = least
        self._oldest: dict[bytes, Story] = {}
        self._later: dict[bytes, list[Story]] = {}

    def add(self, story: Story) -> None:
        """A story begins; later ones are compared with it until it is removed."""
        bands = _bands(story.signature)
        if self._oldest.keys().isdisjoint(bands):
            self._oldest.update(dict.fromkeys(bands, story))
            return
        for band in bands:
            if self._oldest.setdefault(band, story) is not story:
                self._later.setdefault(band, []).append(story)

    def remove(self, story: Story) -> None:
        """It has left the window; the oldest does."""
        oldest, later = self._oldest, self._later
        for band in _bands(story.signature):
            if band in later:
                oldest[band] = later[band].pop(0)
                if not later[band]:
                    del later[band]
            else:
                del oldest[band]

    def find(self, signature: bytes) -> Story | None:
        """The story most alike, the earliest of several; None where none is alike enough."""
        bands = _bands(signature)
        if self._oldest.keys().isdisjoint(bands):
            return None
        found: dict[int, Story] = {}
        for band in bands:
            if band in self._oldest:
                found[self._oldest[band].seq] = self._oldest[band]
                found.update((story.seq, story) for story in self._later.get(band, ())[: COMPARED_IN_A_BAND - 1])
        best: Story | None = None
        most = self._least
        for seq in sorted(found):
            alike = likeness(found[seq].signature, signature)
            if alike > most or (best is None and alike == most):
                best, most = found[seq], alike
        return best


@lru_cache(maxsize=1)  # an item is looked for, and then added where nothing is like it
def _bands(signature: bytes) -> Sequence[bytes]:
    """Each once; none of an item without a signature."""
    return tuple(dict.fromkeys(_cut(signature))) if signature else ()
