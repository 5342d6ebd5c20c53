from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

from stacknorm.bundle import WindowSpec
from stacknorm.encoder.tokens import (
    Row,
    cut_windows,
    load_tokenizer,
    pad,
    pool_windows,
    read_rows,
    tokenise,
    tokens_within,
)
from stacknorm.errors import BundleError
from tiny_bases import WORDS, write_tokenizer

SPECIAL = 2  # [CLS] and [SEP]
words = st.lists(st.sampled_from(WORDS), max_size=40)


@pytest.fixture(scope="module")
def short(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    """Reads at most 10 tokens, so 8 of a text."""
    root = tmp_path_factory.mktemp("tokenizer")
    write_tokenizer(root)
    return load_tokenizer(root, 10)


@given(st.lists(words, min_size=1, max_size=5))
def test_a_text_is_cut_at_the_limit_where_no_windows_are_asked_for(short: Tokenizer, given_: list[list[str]]) -> None:
    texts = [" ".join(text) for text in given_]
    rows = read_rows(short, texts)
    assert [row.ids for row in rows] == tokenise(short, texts)
    assert [row.text for row in rows] == list(range(len(texts)))
    assert all(len(row.ids) == min(len(text), 8) + SPECIAL for row, text in zip(rows, given_, strict=True))
    assert all(row.types is None and row.offsets is None for row in rows)


@given(words, st.integers(0, 7), st.integers(1, 60))
def test_every_token_of_a_text_is_in_a_window_and_new_in_just_one(
    short: Tokenizer, given_: list[str], overlap: int, most: int
) -> None:
    text = " ".join(given_)
    rows = read_rows(short, [text], windows=WindowSpec(overlap_tokens=overlap, max_windows=most))
    contents = [row.ids[1:-1] for row in rows]
    assert 1 <= len(rows) <= most
    assert all(row.ids[0] == 2 and row.ids[-1] == 3 and len(row.ids) <= 10 for row in rows)
    assert all(before[-overlap:] == after[:overlap] for before, after in pairwise(contents) if overlap)
    new = [content[overlap if number else 0 :] for number, content in enumerate(contents)]
    whole = [short.token_to_id(word) for word in given_]
    joined = [number for part in new for number in part]
    assert joined == (whole if len(rows) < most else whole[: len(joined)])
    assert len(rows) == 1 or [row.new_tokens for row in rows] == [len(part) for part in new]


@given(words.filter(lambda text: len(text) <= 8))
def test_a_text_within_the_limit_is_read_the_same_with_and_without_windows(short: Tokenizer, given_: list[str]) -> None:
    text = " ".join(given_)
    windows = WindowSpec(overlap_tokens=4, max_windows=3)
    assert read_rows(short, [text], windows=windows) == read_rows(short, [text])


@given(st.integers(0, 500), st.integers(1, 60), st.data())
def test_windows_move_on_by_their_size_less_the_overlap_and_the_last_one_ends_the_text(
    tokens: int, size: int, data: st.DataObject
) -> None:
    windows = WindowSpec(overlap_tokens=data.draw(st.integers(0, size - 1)), max_windows=1000)
    cuts = cut_windows(tokens, size, windows)
    assert [cut.start for cut in cuts] == [number * (size - windows.overlap_tokens) for number in range(len(cuts))]
    assert cuts[-1].stop == tokens
    assert all(cut.stop < tokens for cut in cuts[:-1])


def test_windows_that_would_not_move_on_are_refused(short: Tokenizer) -> None:
    with pytest.raises(BundleError, match="windows of 8 tokens cannot overlap by 8"):
        read_rows(short, ["oil " * 20], windows=WindowSpec(overlap_tokens=8, max_windows=3))


def test_the_probabilities_of_windows_are_averaged_by_the_tokens_new_in_each() -> None:
    rows = [Row(0, [2, 3], 1), Row(1, [2, 3], 8), Row(1, [2, 3], 2), Row(2, [2, 3], 1)]
    shares = np.array([[0.3, 0.7], [1.0, 0.0], [0.5, 0.5], [0.1, 0.9]])
    pooled = pool_windows(shares, rows)
    assert pooled == pytest.approx(np.array([[0.3, 0.7], [0.9, 0.1], [0.1, 0.9]]))
    assert np.array_equal(pooled[[0, 2]], shares[[0, 3]])


@given(st.lists(st.integers(1, 4), min_size=1, max_size=6))
def test_pooled_windows_stay_a_distribution_between_the_least_and_the_most_of_them(counts: list[int]) -> None:
    rows = [Row(text, [], 1 + number * 3) for text, count in enumerate(counts) for number in range(count)]
    shares = np.random.default_rng(len(rows)).dirichlet([1, 1, 1], len(rows))
    pooled = pool_windows(shares, rows)
    assert pooled.sum(axis=1) == pytest.approx(np.ones(len(counts)))
    for text in range(len(counts)):
        own = shares[[row.text == text for row in rows]]
        assert (own.min(axis=0) - 1e-12 <= pooled[text]).all()
        assert (pooled[text] <= own.max(axis=0) + 1e-12).all()


@given(words, words)
def test_of_a_pair_the_longer_text_is_cut_first_and_the_second_is_marked(
    short: Tokenizer, one: list[str], two: list[str]
) -> None:
    (row,) = read_rows(short, [(" ".join(one), " ".join(two))])
    assert row.types is not None
    content = 10 - 3
    assert len(row.ids) == min(len(one) + len(two), content) + 3
    second = row.types.count(1) - 1
    assert second >= min(len(two), content // 2)
    assert len(row.ids) - 3 - second >= min(len(one), content // 2)


def test_pairs_are_not_cut_into_windows(short: Tokenizer) -> None:
    windows = WindowSpec(overlap_tokens=2, max_windows=9)
    assert len(read_rows(short, [("oil " * 30, "gold"), "oil " * 9], windows=windows)) == 1 + 2


def test_types_of_pairs_are_padded_with_zeros_and_texts_alone_have_none() -> None:
    tokens, types = [[2, 5, 3], [2, 6, 3, 7, 3]], [None, [0, 0, 0, 1, 1]]
    mixed = pad([1, 0], tokens, 0, 6, 3, types=types)
    assert mixed.types is not None
    assert mixed.types.tolist() == [[0, 0, 0, 1, 1, 0], [0] * 6, [0] * 6]
    assert pad([0], tokens, 0, 3, types=types).types is None
    assert pad([0], tokens, 0, 3).types is None


def words_of(text: str, row: Row) -> list[str]:
    assert row.offsets is not None
    return [text[start:end] for start, end in row.offsets]


@given(words, st.integers(0, 6))
def test_offsets_name_the_characters_of_each_token_in_every_window(
    short: Tokenizer, given_: list[str], overlap: int
) -> None:
    text = "  ".join(given_)
    windows = WindowSpec(overlap_tokens=overlap, max_windows=99)
    for row in read_rows(short, [text], windows=windows, offsets=(0,)):
        assert words_of(text, row) == ["", *(short.id_to_token(number) for number in row.ids[1:-1]), ""]


def test_offsets_of_a_pair_are_those_of_its_first_text(short: Tokenizer) -> None:
    (row,) = read_rows(short, [("acme falls", "oil rises")], offsets=(0,))
    assert words_of("acme falls", row) == ["", "acme", "falls", "", "", "", ""]


def test_asking_for_offsets_changes_no_token(short: Tokenizer) -> None:
    given_: list[str | tuple[str, str]] = ["oil 😀 falls", "", ("a b", "gold"), "up " * 30]
    plain, placed = (read_rows(short, given_, offsets=offsets) for offsets in ((), range(len(given_))))
    assert [(row.ids, row.types) for row in plain] == [(row.ids, row.types) for row in placed]


@pytest.mark.parametrize("family", ["space marks", "bytes"])
def test_the_space_before_a_word_is_no_part_of_it_whatever_the_tokenizer_thinks(family: str, tmp_path: Path) -> None:
    text = "Acme  é falls"
    if family == "bytes":
        tokenizer = Tokenizer(models.BPE())
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        pieces = pre_tokenizers.ByteLevel.alphabet()
        tokenizer.model = models.BPE(vocab={piece: n for n, piece in enumerate(sorted(pieces))}, merges=[])
        tokenizer.post_processor = processors.ByteLevel(trim_offsets=False)
    else:
        vocabulary = [("<unk>", 0.0), ("▁", -9.0), ("▁Acme", -1.0), ("▁falls", -1.0), ("é", -2.0), ("▁é", -1.0)]
        tokenizer = Tokenizer(models.Unigram(vocabulary, unk_id=0))
        tokenizer.normalizer = normalizers.NFC()
        tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    (row,) = read_rows(load_tokenizer(tmp_path, 40), [text], offsets=(0,))
    assert row.offsets is not None
    pieces_of_text = [text[start:end] for start, end in row.offsets if end > start]
    assert all(piece and piece == piece.strip() for piece in pieces_of_text)
    assert set("".join(pieces_of_text)) == set(text) - {" "}
    start = text.index("falls")
    (first, *_), last = tokens_within(row.offsets, start, start + 5), len(row.offsets) - 1
    assert row.offsets[first][0] == start
    assert row.offsets[last][1] == len(text)


def test_tokens_within_a_stretch_are_those_that_share_a_character_with_it() -> None:
    offsets = [(0, 0), (0, 4), (5, 8), (8, 10), (0, 0)]
    assert tokens_within(offsets, 0, 4) == (1,)
    assert tokens_within(offsets, 3, 9) == (1, 2, 3)
    assert tokens_within(offsets, 4, 5) == ()


def test_a_malformed_tokenizer_is_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(BundleError, match=r"tokenizer\.json is not a tokenizer"):
        load_tokenizer(tmp_path, 10)
