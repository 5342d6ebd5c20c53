from base64 import urlsafe_b64encode
from dataclasses import dataclass
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.events import NewsItem
from worker.codec import similarity_keys
from worker.surge.similar import (
    BANDS,
    BYTES_EACH,
    NO_SIGNATURE,
    POSITIONS,
    ROWS,
    Neighbours,
    Signature,
    likeness,
    read_signature,
)

VOCABULARY = [f"word{n}" for n in range(500)]


@dataclass
class Told:
    signature: Signature
    seq: int


def sign(*words: str) -> Signature:
    (key,) = similarity_keys([NewsItem(title=" ".join(words))])
    return read_signature(key)


def vary(words: list[str], jaccard: float, random: Random) -> list[str]:
    """As many words, so many of them others that the two sets have this similarity."""
    kept = round(2 * jaccard * len(words) / (1 + jaccard))
    fresh = [word for word in random.sample(VOCABULARY, len(VOCABULARY)) if word not in words]
    return [*random.sample(words, kept), *fresh[: len(words) - kept]]


@pytest.mark.parametrize(("jaccard", "least", "most"), [(0.5, 0.0, 0.02), (0.7, 0.0, 0.1), (0.9, 0.9, 1.0)])
def test_what_has_most_words_in_common_is_a_copy_and_what_has_half_is_none(jaccard, least, most):
    random, found = Random(3), 0
    for _ in range(300):
        words = random.sample(VOCABULARY, 40)
        neighbours = Neighbours[Told](0.8)
        neighbours.add(Told(sign(*words), 1))
        found += neighbours.find(sign(*vary(words, jaccard, random))) is not None
    assert least <= found / 300 <= most


def test_likeness_estimates_the_share_of_words_in_common():
    random = Random(5)
    for jaccard in (0.2, 0.5, 0.8):
        estimates = []
        for _ in range(200):
            words = random.sample(VOCABULARY, 40)
            estimates.append(likeness(sign(*words), sign(*vary(words, jaccard, random))))
        assert sum(estimates) / 200 == pytest.approx(jaccard, abs=0.02)


@given(st.lists(st.integers(0, 5), max_size=30), st.randoms(use_true_random=False))
def test_only_stories_of_the_window_are_found_and_the_earliest_of_those_alike(words, random):
    signatures = [sign(*(f"{group}{n}" for n in range(12))) for group in "abcdef"]
    neighbours = Neighbours[Told](0.8)
    inside: list[Told] = []
    for seq, which in enumerate(words, 1):
        if inside and random.random() < 0.4:
            neighbours.remove(inside.pop(0))
        expected = next((told for told in inside if told.signature == signatures[which]), None)
        assert neighbours.find(signatures[which]) is expected
        inside.append(Told(signatures[which], seq))
        neighbours.add(inside[-1])


@pytest.mark.parametrize("key", ["", "s1", "m2:AAAA", "m1:", "m1:AAAA", "m1:\N{SNOWMAN}", "m1:" + "A" * 500])
def test_a_key_without_a_signature_that_is_known_has_no_neighbours(key):
    assert read_signature(key) is NO_SIGNATURE
    assert Neighbours[Told](0.8).find(NO_SIGNATURE) is None


def test_likeness_is_the_share_of_equal_positions_and_two_signatures_share_the_bands_that_are_equal():
    random = Random(9)
    for equal in range(POSITIONS + 1):
        values = [random.randrange(1 << 16) for _ in range(POSITIONS)]
        changed = set(random.sample(range(POSITIONS), POSITIONS - equal))
        others = [value ^ random.randrange(1, 1 << 16) if n in changed else value for n, value in enumerate(values)]
        one, other = signature_of(values), signature_of(others)
        assert likeness(one, other) == equal / POSITIONS
        bands = [range(ROWS * n, ROWS * (n + 1)) for n in range(BANDS)]
        assert len({*one.bands} & {*other.bands}) == sum(changed.isdisjoint(band) for band in bands)


def test_a_band_that_a_signature_has_twice_counts_once():
    assert len(signature_of([5] * POSITIONS).bands) == 1


def signature_of(values: list[int]) -> Signature:
    positions = b"".join(value.to_bytes(BYTES_EACH, "little") for value in values)
    return read_signature("m1:" + urlsafe_b64encode(positions).decode().rstrip("="))
