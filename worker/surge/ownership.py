"""Which shard of how many a key belongs to: a stable hash of its name in the state. Pure."""

from functools import lru_cache
from hashlib import blake2b
from typing import NamedTuple

from schemas.events import KeyType

COMMON = frozenset({KeyType.market, KeyType.topic})
"""Every shard keeps these: the market is the parent of all shares, topics inhibit entities."""


@lru_cache(maxsize=1 << 16)
def find_owner(name: str, shards: int) -> int:
    """The shard that a key belongs to; the same in every program, for as long as there are so many."""
    return int.from_bytes(blake2b(name.encode("utf-8", "surrogatepass"), digest_size=8).digest()) % shards


class Ownership(NamedTuple):
    """Shard ``shard`` of ``shards``: it keeps its own keys and the common ones, and publishes its own alone."""

    shard: int = 0
    shards: int = 1

    def __str__(self) -> str:
        return f"shard {self.shard} of {self.shards}"

    @property
    def whole(self) -> bool:
        """Whether it is the only one."""
        return self.shards == 1

    def owns(self, name: str) -> bool:
        """Whether the key of this name is its own: its alerts and trends are published here."""
        return self.shards == 1 or find_owner(name, self.shards) == self.shard

    def keeps(self, key_type: KeyType, name: str) -> bool:
        """Whether the state of the key of this name is kept here."""
        return key_type in COMMON or self.owns(name)


WHOLE = Ownership()
"""One shard for all keys."""
