from time import perf_counter

from hypothesis import given
from hypothesis import strategies as st

from worker.surge.copies import MAX_TITLE, fold_key, normalise_title


def test_case_punctuation_spacing_and_compatibility_forms_are_folded():
    assert normalise_title("  Acme\u00a0Corp. — PROFIT  warning! ") == normalise_title("acme corp profit warning")
    assert normalise_title("\uff21CME \ufb01nds Straße") == b"acmefindsstrasse"


def test_other_words_or_another_similarity_key_are_another_story():
    assert fold_key("Acme sues", "k") != fold_key("Acme sued", "k")
    assert fold_key("Acme sues", "k") != fold_key("Acme sues", "other")


def test_hostile_titles_take_bounded_time_and_space():
    started = perf_counter()
    for title in ("a" + "\u0301\u0327" * 200_000, "\ufdfa" * 400_000, "!" * 10**6, "\ud800"):
        assert len(normalise_title(title).decode("utf-8", "surrogatepass")) <= 2 * MAX_TITLE
        assert len(fold_key(title, "k")) == 16
    assert perf_counter() - started < 1


@given(
    st.lists(st.from_regex(r"[a-zA-Z0-9]{1,8}", fullmatch=True), max_size=8), st.sampled_from([" ", "  ", " - ", "_"])
)
def test_the_words_alone_make_the_title(words, between):
    assert normalise_title(between.join(words).upper()) == "".join(words).lower().encode()
