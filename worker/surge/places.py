"""A map from numbers of 64 bits to places, in two flat arrays: for what is looked up dozens of times for each item.

Open addressing with linear probing, and deletion that leaves no gap (Knuth, The Art of Computer Programming 3, 6.4,
algorithm R). Pure.
"""

from typing import Final

from librt.vecs import vec
from mypy_extensions import i64

NOWHERE: Final = 0
SMALLEST: Final = 1024
"""A power of two, as is every size."""


class Places:
    """Numbers to places above 0. The numbers are to be well mixed, as hashes are. Owned by one thread."""

    def __init__(self) -> None:
        self._keys = vec[i64]([0] * SMALLEST)
        self._places = vec[i64]([NOWHERE] * SMALLEST)
        self._mask: i64 = SMALLEST - 1
        self._count: i64 = 0

    def __len__(self) -> int:
        return self._count

    def find(self, key: i64) -> i64:
        """Its place; ``NOWHERE`` where it has none."""
        return self._places[self._slot_of(key)]

    def put(self, key: i64, place: i64) -> None:
        """Give it a place, instead of the one that it had."""
        slot = self._slot_of(key)
        if self._places[slot] == NOWHERE:
            self._count += 1
        self._keys[slot], self._places[slot] = key, place
        if 2 * self._count > self._mask:
            self._grow()

    def remove(self, key: i64) -> None:
        """Take its place away. What was put behind it moves up, as if it had never been there."""
        keys, places, mask = self._keys, self._places, self._mask
        hole = self._slot_of(key)
        self._count -= places[hole] != NOWHERE
        slot = (hole + 1) & mask
        while places[slot] != NOWHERE:
            home = _mix(keys[slot]) & mask
            if (slot - home) & mask >= (slot - hole) & mask:
                keys[hole], places[hole] = keys[slot], places[slot]
                hole = slot
            slot = (slot + 1) & mask
        places[hole] = NOWHERE

    def _slot_of(self, key: i64) -> i64:
        """Where the key is, or may be put."""
        keys, places, mask = self._keys, self._places, self._mask
        slot = _mix(key) & mask
        while places[slot] != NOWHERE and keys[slot] != key:
            slot = (slot + 1) & mask
        return slot

    def _grow(self) -> None:
        keys, places, size = self._keys, self._places, 2 * (self._mask + 1)
        self._keys, self._places = vec[i64]([0] * size), vec[i64]([NOWHERE] * size)
        self._mask, self._count = size - 1, 0
        for slot in range(len(keys)):
            if places[slot] != NOWHERE:
                self.put(keys[slot], places[slot])


def _mix(key: i64) -> i64:
    return key ^ key >> 32
