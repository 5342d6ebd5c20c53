"""Keys go to the partitions that Kafka's own producers choose."""

import pytest

from worker.kafka.partitioner import partition_of


@pytest.mark.parametrize(
    ("key", "hashed"),  # of Apache Kafka's own tests of murmur2
    [
        (b"21", -973932308),
        (b"foobar", -790332482),
        (b"a-little-bit-long-string", -985981536),
        (b"a-little-bit-longer-string", -1486304829),
        (b"abc", 479470107),
    ],
)
@pytest.mark.parametrize("partitions", [1, 6, 1000])
def test_a_key_goes_where_the_java_producer_sends_it(key, hashed, partitions):
    assert partition_of(key, partitions) == (hashed & 0x7FFFFFFF) % partitions
