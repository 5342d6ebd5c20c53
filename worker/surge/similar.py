"""Near copies: among the stories of a window, the one that an item says again in almost the same words.

Locality-sensitive hashing over MinHash signatures (Broder 1997; banding: Leskovec, Rajaraman and Ullman, Mining of
Massive Datasets, 3.4): two signatures that agree on all of one band are compared position by position. Pure.
"""

from collections import deque
from itertools import islice
from typing import Final, Generic, Protocol, TypeVar

from librt.base64 import urlsafe_b64decode
from librt.strings import read_i64_le
from librt.vecs import append, vec
from mypy_extensions import i64, mypyc_attr

from worker.surge.places import NOWHERE, Places

SIGNATURE: Final = "m1:"
"""How a similarity key that can be compared begins; any other is known again only if it is the same."""

POSITIONS: Final = 64
BYTES_EACH: Final = 2
ROWS: Final = 7
BANDS: Final = POSITIONS // ROWS
"""Nine bands of seven: an item with 0.8 of a story's words (Jaccard) is found nine times in ten, one with half of them
one time in fifteen, and then it fails the comparison."""

_BAND_BYTES: Final = ROWS * BYTES_EACH
_LAST: Final = _BAND_BYTES - 8
_PADDING: Final = "=" * (-POSITIONS * BYTES_EACH % 3)

COMPARED_IN_A_BAND: Final = 4
"""The oldest; of forms that are filled in by the thousand, each with another name, nearly all agree on a band."""


_HIGH: Final = int.from_bytes(b"\0\x80" * POSITIONS, "little")
_LOW: Final = int.from_bytes(b"\xff\x7f" * POSITIONS, "little")


@mypyc_attr(acyclic=True)
class Signature:
    """The ``text`` of 64 positions of 16 bits each, empty in a story without, and the keys of its bands, each once.

    The key of a band is its first and its last eight bytes, as numbers, combined by XOR. Equal bands have equal keys.
    That others have them too is chance (2^-16 at most) and costs a comparison.
    """

    __slots__ = ("bands", "text")

    def __init__(self, text: str, bands: vec[i64]) -> None:
        self.text: Final = text
        self.bands: Final = bands

    def positions(self) -> bytes:
        """As bytes."""
        return urlsafe_b64decode(self.text + _PADDING)


NO_SIGNATURE: Final = Signature("", vec[i64]())


def _bands_of(positions: bytes) -> vec[i64]:
    bands = vec[i64]()
    for start in range(0, BANDS * _BAND_BYTES, _BAND_BYTES):
        band = read_i64_le(positions, start) ^ read_i64_le(positions, start + _LAST)
        if band not in bands:
            bands = append(bands, band)
    return bands


class Signed(Protocol):
    """What has a signature, and a place in the order of the stories, above 0."""

    signature: Signature

    @property
    def seq(self) -> int: ...  # noqa: D102 (see above)


Story = TypeVar("Story", bound=Signed)


def read_signature(similarity_key: str) -> Signature:
    """The signature in a similarity key; none where it holds none that is known here."""
    return parse_signature(similarity_key[len(SIGNATURE) :]) if similarity_key.startswith(SIGNATURE) else NO_SIGNATURE


def parse_signature(text: str) -> Signature:
    """The signature written so, in base64; none where it is no such thing."""
    try:
        positions = urlsafe_b64decode(text + _PADDING)
    except ValueError:
        return NO_SIGNATURE
    return Signature(text, _bands_of(positions)) if len(positions) == POSITIONS * BYTES_EACH else NO_SIGNATURE


def likeness(one: Signature, other: Signature) -> float:
    """The share of equal positions: an unbiased estimate of the Jaccard similarity, but for 2^-16.

    All at once (multiple byte processing, Lamport 1975): the high bit of each unequal position is set, and they are
    counted.
    """
    differ = int.from_bytes(one.positions(), "little") ^ int.from_bytes(other.positions(), "little")
    return 1 - (((differ & _LOW) + _LOW | differ) & _HIGH).bit_count() / POSITIONS


class Neighbours(Generic[Story]):
    """The stories of the window by the bands of their signatures. Owned by one thread.

    Hardly any band is shared by two stories, so the oldest of each stands by itself, and behind it, by band, those that
    have the band too. Bands of other places that agree by chance cost a comparison.
    """

    def __init__(self, least: float) -> None:
        self._least = least
        self._stories: dict[int, Story] = {}
        self._oldest = Places()
        self._behind: dict[int, dict[int, deque[int]]] = {}

    def add(self, story: Story) -> None:
        """A story begins; later ones are compared with it until it is removed."""
        seq = story.seq
        self._stories[seq] = story
        for band in story.signature.bands:
            oldest = self._oldest.find(band)
            if oldest == NOWHERE:
                self._oldest.put(band, seq)
            else:
                self._behind.setdefault(oldest, {}).setdefault(band, deque()).append(seq)

    def remove(self, story: Story) -> None:
        """It has left the window; the oldest does."""
        del self._stories[story.seq]
        behind = self._behind.pop(story.seq, None)
        for band in story.signature.bands:
            later = None if behind is None else behind.get(band)
            if later is None:
                self._oldest.remove(band)
                continue
            oldest = later.popleft()
            self._oldest.put(band, oldest)
            if later:
                self._behind.setdefault(oldest, {})[band] = later

    def find(self, signature: Signature) -> Story | None:
        """The story most alike, the earliest of several; None where none is alike enough."""
        seqs: set[int] = set()
        for band in signature.bands:
            oldest = self._oldest.find(band)
            if oldest != NOWHERE:
                seqs.add(oldest)
                if oldest in self._behind:
                    seqs.update(islice(self._behind[oldest].get(band, ()), COMPARED_IN_A_BAND - 1))
        best: Story | None = None
        most = self._least
        for seq in sorted(seqs):
            story = self._stories[seq]
            alike = likeness(story.signature, signature)
            if alike > most or (best is None and alike == most):
                best, most = story, alike
        return best
