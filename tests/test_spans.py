"""Tagging schemes, words from tokens, decoding, votes and strict scores of spans."""

import itertools
import random
import warnings
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer
from tokenizers.models import BPE, Unigram, WordPiece
from tokenizers.pre_tokenizers import BertPreTokenizer, ByteLevel, Metaspace
from tokenizers.trainers import BpeTrainer, UnigramTrainer, WordPieceTrainer

from stacknorm.dataset import read_spans
from stacknorm.errors import LabelError
from stacknorm.labels import label_space
from stacknorm.pooling.pool import PowerPool, Probabilities, mean_pool
from stacknorm.prediction import Span
from stacknorm.spans.decode import decode_spans, likeliest_tags, vote_spans
from stacknorm.spans.score import Exact, count_spans, micro_f1, score_spans
from stacknorm.spans.tags import Run, Scheme, head_tags, read_tags, repair_tags, tag_matrix, write_tags
from stacknorm.spans.words import Places, read_words, split_words

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # seqeval's own imports
    from seqeval.metrics import classification_report
    from seqeval.scheme import IOB2

FINENTITY = Path(__file__).parents[2] / "shared" / "data" / "finentity.json"
LABELS = ("loss", "gain")
TAGS = head_tags(LABELS)
SPACE = label_space("mood", LABELS)
ANY_TAG = st.sampled_from(["O", *(f"{prefix}-{label}" for prefix in "BILUES" for label in LABELS)])
BIO_TAG = st.sampled_from(TAGS)


@st.composite
def runs_of(draw: st.DrawFn, length: int) -> list[Run]:
    """Runs of a sequence, some side by side."""
    cuts = sorted(draw(st.sets(st.integers(0, length))))
    labels = [draw(st.sampled_from([None, *LABELS])) for _ in cuts]
    return [Run(a, b, label) for (a, b), label in zip(itertools.pairwise(cuts), labels, strict=False) if label]


@given(st.integers(0, 12).flatmap(lambda n: st.tuples(st.just(n), runs_of(n))), st.sampled_from(["BIO", "BILOU"]))
def test_runs_come_back_from_their_tags(sequence: tuple[int, list[Run]], scheme: Scheme) -> None:
    length, runs = sequence
    assert read_tags(write_tags(runs, length, scheme)) == runs


@given(st.lists(ANY_TAG), st.sampled_from(["BIO", "BILOU"]))
def test_repair_keeps_the_meaning_and_leaves_nothing_to_repair(tags: list[str], scheme: Scheme) -> None:
    repaired = repair_tags(tags, scheme)
    assert read_tags(repaired) == read_tags(tags)
    assert repair_tags(repaired, scheme) == repaired
    assert [tag == "O" for tag in repaired] == [tag == "O" for tag in tags]


def test_an_inside_without_its_start_starts_a_span() -> None:
    tags = ["I-gain", "I-gain", "O", "I-loss", "I-gain", "L-gain", "I-gain", "U-gain", "U-gain"]
    assert read_tags(tags) == [
        Run(0, 2, "gain"),
        Run(3, 4, "loss"),
        Run(4, 6, "gain"),
        Run(6, 7, "gain"),
        Run(7, 8, "gain"),
        Run(8, 9, "gain"),
    ]


def test_bilou_marks_last_and_single_positions() -> None:
    runs = [Run(0, 1, "gain"), Run(1, 3, "gain"), Run(4, 7, "loss")]
    assert write_tags(runs, 7, "BILOU") == ["U-gain", "B-gain", "L-gain", "O", "B-loss", "I-loss", "L-loss"]


@pytest.mark.parametrize("runs", [[Run(0, 2, "gain"), Run(1, 3, "gain")], [Run(2, 5, "gain")], [Run(1, 1, "gain")]])
def test_runs_that_overlap_or_leave_the_sequence_are_refused(runs: list[Run]) -> None:
    with pytest.raises(ValueError, match="run"):
        write_tags(runs, 4)


def test_a_members_tags_of_either_scheme_are_mapped_by_type() -> None:
    order = ["B-GAIN", "O", "L-GAIN", "U-bad", "I-other"]
    matrix = tag_matrix(SPACE, order, {"bad": "loss", "other": "O"})
    assert [TAGS[place] for place in matrix.argmax(axis=1)] == ["B-gain", "O", "I-gain", "B-loss", "O"]
    assert matrix.sum(axis=1).tolist() == [1] * 5


@pytest.mark.parametrize("order", [["O", "gain"], ["O", "I-gain"], ["O", "B-win"], ["O", "O"], ["LABEL_0", "LABEL_1"]])
def test_tags_that_cannot_be_placed_are_refused(order: list[str]) -> None:
    with pytest.raises(LabelError):
        tag_matrix(SPACE, order)


def test_the_likeliest_sequence_never_goes_on_where_nothing_started() -> None:
    tags = np.array([[0.6, 0.4, 0, 0, 0], [0.35, 0, 0.65, 0, 0], [0.1, 0, 0, 0, 0.9]])
    assert [TAGS[tag] for tag in likeliest_tags(tags)] == ["B-loss", "I-loss", "O"]


@given(st.integers(0, 5), st.integers(0, 10_000))
def test_viterbi_finds_what_trying_all_sequences_finds(length: int, seed: int) -> None:
    tags = np.random.default_rng(seed).dirichlet(np.full(len(TAGS), 0.5), size=length)
    found = [TAGS[tag] for tag in likeliest_tags(tags)]
    assert repair_tags(found) == found

    def likelihood(sequence: tuple[str, ...]) -> float:
        return float(np.prod([tags[place, TAGS.index(tag)] for place, tag in enumerate(sequence)]))

    possible = [s for s in itertools.product(TAGS, repeat=length) if repair_tags(s) == list(s)]
    assert likelihood(tuple(found)) == pytest.approx(max(map(likelihood, possible)))


TEXT = "Dell Technologies HP-Inc.  S&P 500 fell, Élan gains 3%"
WORDS = split_words(TEXT)


def cut(words: Places, runs: list[Run], rng: random.Random) -> Places:
    """Random tokens: words in pieces, some with the space before them, words of one run at times in one."""
    offsets: list[list[int]] = [[0, 0]]
    for place, (start, end) in enumerate(words.tolist()):
        in_run = next((run for run in runs if run.start < place < run.end), None)
        if in_run and rng.random() < 0.3:
            offsets[-1][1] = end
            continue
        inner = sorted(rng.sample(range(start + 1, end), rng.randint(0, min(3, end - start - 1))))
        pieces = list(itertools.pairwise([start, *inner, end]))
        space = rng.randint(0, start - (words[place - 1, 1] if place else 0))
        offsets += [[pieces[0][0] - space, pieces[0][1]], *map(list, pieces[1:])]
    return np.array([*offsets, [0, 0]], dtype=np.int64)


def truth_of(offsets: Places, runs: list[Run], sharpness: float = 1.0) -> Probabilities:
    """Tags of tokens that a perfect BIO member gives."""
    tags = np.full((len(offsets), len(TAGS)), (1 - sharpness) / len(TAGS))
    for token, (offset, end) in enumerate(offsets.tolist()):
        start = end - len(TEXT[offset:end].lstrip())
        tag = "O"
        for first, last, label in runs:
            if WORDS[first, 0] <= start < end <= WORDS[last - 1, 1]:
                tag = f"{'B' if start == WORDS[first, 0] else 'I'}-{label}"
        tags[token, TAGS.index(tag)] += sharpness
    return tags


def exact(runs: list[Run]) -> list[Exact]:
    return [(int(WORDS[run.start, 0]), int(WORDS[run.end - 1, 1]), run.label) for run in runs]


def places_of(spans: tuple[Span, ...]) -> list[Exact]:
    return [(span.start, span.end, span.label) for span in spans]


@given(runs_of(len(WORDS)), st.integers(0, 10_000))
def test_spans_do_not_depend_on_how_a_member_cuts_the_text(runs: list[Run], seed: int) -> None:
    offsets = cut(WORDS, runs, random.Random(seed))
    tags = read_words(TEXT, WORDS, offsets, truth_of(offsets, runs))
    spans = decode_spans(WORDS, tags, LABELS)
    assert places_of(spans) == exact(runs)
    assert all(span.probability == pytest.approx(1) for span in spans)


def train(kind: str) -> Tokenizer:
    """A small real tokenizer of one of the three families."""
    trainers = {
        "wordpiece": (WordPiece(unk_token="[UNK]"), BertPreTokenizer(), WordPieceTrainer(special_tokens=["[UNK]"])),
        "bytes": (BPE(), ByteLevel(trim_offsets=False), BpeTrainer(initial_alphabet=ByteLevel.alphabet())),
        "sentencepiece": (Unigram(), Metaspace(), UnigramTrainer(unk_token="<unk>", special_tokens=["<unk>"])),
    }
    model, pre_tokenizer, trainer = trainers[kind]
    tokenizer = Tokenizer(model)
    tokenizer.pre_tokenizer = pre_tokenizer
    trainer.vocab_size, trainer.show_progress = 300, False
    tokenizer.train_from_iterator(["Dell Technologies gains", "S&P 500 fell", "HP-Inc. fell 3%"], trainer)
    return tokenizer


@pytest.mark.parametrize("kind", ["wordpiece", "bytes", "sentencepiece"])
def test_spans_come_back_from_the_tokens_of_a_real_tokenizer(kind: str) -> None:
    runs = [Run(0, 2, "gain"), Run(2, 5, "loss"), Run(6, 10, "loss"), Run(12, 13, "gain")]
    encoding = train(kind).encode(TEXT)
    offsets = np.array(encoding.offsets, dtype=np.int64)
    assert len(offsets) > 10
    tags = read_words(TEXT, WORDS, offsets, truth_of(offsets, runs))
    assert places_of(decode_spans(WORDS, tags, LABELS)) == exact(runs)


@given(runs_of(len(WORDS)), st.integers(0, 10_000), st.permutations(range(3)), st.sampled_from([0.0, 0.5, 1.0]))
def test_a_pool_of_members_with_different_tokens_gives_the_same_spans_in_any_order(
    runs: list[Run], seed: int, order: list[int], exponent: float
) -> None:
    rng = random.Random(seed)
    cuts = [cut(WORDS, runs, rng) for _ in range(3)]
    members = np.stack([read_words(TEXT, WORDS, c, truth_of(c, runs, sharpness=0.8)) for c in cuts])
    pool = PowerPool(weights=(0.5, 0.3, 0.2), exponent=exponent)
    spans = decode_spans(WORDS, pool(members), LABELS)
    again = decode_spans(WORDS, pool.only(order)(members[order]), LABELS)
    assert places_of(spans) == places_of(again) == exact(runs)
    assert [span.probability for span in spans] == pytest.approx([span.probability for span in again])


@given(st.integers(0, 10_000))
def test_words_get_distributions_whatever_tokens_say(seed: int) -> None:
    rng = np.random.default_rng(seed)
    offsets = np.sort(rng.integers(0, len(TEXT) + 1, size=(rng.integers(0, 30), 2)), axis=1)
    words = read_words(TEXT, WORDS, offsets, rng.dirichlet(np.full(len(TAGS), 0.3), size=len(offsets)))
    read = ~np.isnan(words).any(axis=1)
    assert words[read].sum(axis=1) == pytest.approx(1)
    assert (words[read] >= 0).all()
    spans = decode_spans(WORDS, words, LABELS)
    assert all(left.end <= right.start for left, right in itertools.pairwise(spans))
    assert all(0 <= span.probability <= 1 for span in spans)


def test_two_adjacent_spans_of_one_type_stay_two() -> None:
    text = "Dell HP"
    words = split_words(text)
    offsets = np.array([[0, 2], [2, 4], [4, 7]])
    start, inside = np.eye(5)[1], np.eye(5)[2]
    tags = read_words(text, words, offsets, np.stack([start, inside, start]))
    assert places_of(decode_spans(words, tags, LABELS)) == [(0, 4, "loss"), (5, 7, "loss")]


def test_what_no_token_covers_is_unread_and_outside() -> None:
    tags = read_words("Dell HP", split_words("Dell HP"), np.array([[0, 4]]), np.eye(5)[[1]])
    assert np.isnan(tags[1]).all()
    assert places_of(decode_spans(split_words("Dell HP"), tags, LABELS)) == [(0, 4, "loss")]


@pytest.mark.parametrize("text", ["", "   ", "\n\t"])
def test_a_text_without_words_has_no_spans(text: str) -> None:
    words = split_words(text)
    tags = read_words(text, words, np.array([[0, 0], [0, 0]]), np.eye(5)[[0, 0]])
    assert tags.shape == (0, 5)
    assert decode_spans(words, tags, LABELS) == ()


def test_a_span_needs_more_than_half_of_the_vote_and_gets_the_mean_probability() -> None:
    one, two = Span(0, 4, "gain", 0.9), Span(0, 4, "gain", 0.6)
    assert vote_spans([[one], [two], []], [0.4, 0.2, 0.4]) == (Span(0, 4, "gain", pytest.approx(0.8)),)
    assert vote_spans([[one], []], [0.5, 0.5]) == ()


def test_overlapping_spans_are_settled_by_their_share_of_the_vote() -> None:
    long, short, other = Span(0, 9, "gain", 0.9), Span(0, 4, "gain", 0.9), Span(5, 9, "loss", 0.5)
    assert places_of(vote_spans([[long], [short, other], [short]], [0.3, 0.3, 0.4], 0.1)) == [
        (0, 4, "gain"),
        (5, 9, "loss"),
    ]


@given(st.permutations(range(3)))
def test_votes_do_not_depend_on_the_order_of_members(order: list[int]) -> None:
    members = [[Span(0, 4, "gain", 0.5)], [Span(0, 4, "gain", 0.5), Span(5, 6, "loss", 0.25)], [Span(3, 6, "loss", 1)]]
    weights = [0.25, 0.5, 0.25]
    voted = vote_spans([members[i] for i in order], [weights[i] for i in order], 0.2)
    assert voted == vote_spans(members, weights, 0.2) == (Span(0, 4, "gain", 0.5), Span(5, 6, "loss", 0.25))


def spans_of(tags: list[str]) -> set[Exact]:
    return set(map(tuple, read_tags(tags)))  # type: ignore[arg-type]


@given(st.lists(st.lists(st.tuples(BIO_TAG, BIO_TAG), min_size=1, max_size=8), min_size=1, max_size=5))
def test_scores_are_those_of_seqeval_in_strict_mode(texts: list[list[tuple[str, str]]]) -> None:
    truth = [repair_tags([true for true, _ in text]) for text in texts]
    said = [repair_tags([tag for _, tag in text]) for text in texts]
    counts = count_spans([spans_of(tags) for tags in said], [spans_of(tags) for tags in truth], LABELS)
    ours = score_spans(counts, LABELS)
    if not any(counts.any(axis=(0, 2))):
        assert ours.micro.f1 == ours.macro.f1 == 0
        return
    theirs = classification_report(truth, said, mode="strict", scheme=IOB2, output_dict=True, zero_division=0)
    pairs = [("micro avg", ours.micro), ("macro avg", ours.macro)]
    pairs += [(label, score) for label, score in ours.types.items() if label in theirs]
    for name, score in pairs:
        assert score.precision == pytest.approx(theirs[name]["precision"])
        assert score.recall == pytest.approx(theirs[name]["recall"])
        assert score.f1 == pytest.approx(theirs[name]["f1-score"])
        assert score.support == theirs[name]["support"]


def test_counts_of_texts_add_up_to_the_score_of_a_sample() -> None:
    truth: list[list[Exact]] = [[(0, 4, "gain")], [(0, 2, "loss"), (3, 5, "loss")]]
    said: list[list[Exact]] = [[(0, 4, "loss")], [(0, 2, "loss")]]
    counts = count_spans(said, truth, LABELS)
    assert counts.tolist() == [[[0, 1, 0], [0, 0, 1]], [[1, 0, 1], [0, 0, 0]]]
    assert micro_f1(counts).tolist() == pytest.approx([0, 2 / 3])
    assert micro_f1(counts[[1, 1]].sum(axis=0)) == pytest.approx(2 / 3)
    assert score_spans(counts, LABELS).micro.f1 == pytest.approx(0.4)


def test_mean_pool_of_one_member_changes_nothing() -> None:
    offsets = cut(WORDS, [Run(0, 2, "gain")], random.Random(0))
    tags = read_words(TEXT, WORDS, offsets, truth_of(offsets, [Run(0, 2, "gain")], 0.7))
    assert mean_pool(1)(tags[None]) == pytest.approx(tags)


@pytest.mark.skipif(not FINENTITY.is_file(), reason="the data sets are not beside the project")
def test_spans_of_finentity_start_and_end_with_words() -> None:
    labels = ("negative", "neutral", "positive")
    for row in read_spans(FINENTITY, label_space("entities", labels)):
        words = split_words(row.text)
        starts, ends = words[:, 0].tolist(), words[:, 1].tolist()
        runs = [Run(starts.index(s.start), ends.index(s.end) + 1, labels[s.label_index]) for s in row.spans]
        tags = np.eye(7)[[head_tags(labels).index(tag) for tag in write_tags(runs, len(words))]]
        assert [(s.start, s.end) for s in decode_spans(words, tags, labels)] == [(s.start, s.end) for s in row.spans]
