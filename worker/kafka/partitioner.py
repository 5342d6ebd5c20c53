"""Which partition a keyed record goes to: the choice of Kafka's own producers, without a producer."""

from aiokafka.partitioner import DefaultPartitioner

_choose = DefaultPartitioner()


def partition_of(key: bytes, partitions: int) -> int:
    """The partition of a record with this key in a topic of so many partitions (murmur2, as Java's producer)."""
    numbers = list(range(partitions))
    chosen: int = _choose(key, numbers, numbers)
    return chosen
