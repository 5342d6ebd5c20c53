import pytest
from hypothesis import given
from hypothesis import strategies as st

from stacknorm.text import clean_text, clean_with_origins

PIECES = [
    "Acme", "AT&T", "R&D;", "&amp;", "&ampx", "&notit;", "&nbsp;", "&#8217;", "&#x1F600;", "&#xD800;", "&#2;", "&",
    "&NotEqualTilde;", "&lt;b&gt;", "&amp;amp;", "https://t.co/a?b=1&amp;c", "http://", "\ud800", "\udfff", " ", "  ",
    "&#" + "9" * 5000 + ";",
    "\n\t", "\u00a0", "\u2003", "\x1c", "\x85", "é", "e\u0301", "😀", "falls", ".", "$ACME", "&#", "&#x;", "\x00",
]  # fmt: skip
"""What wire news and tweets hold beside words, and what is one step beside it."""
noisy = st.lists(st.sampled_from(PIECES), max_size=12).map("".join) | st.text(st.characters())


@given(noisy)
def test_cleaning_with_the_way_back_gives_the_same_text_as_cleaning(text: str) -> None:
    assert clean_with_origins(text).text == clean_text(text)


@given(noisy)
def test_every_character_stands_for_a_stretch_of_the_original_in_order(text: str) -> None:
    cleaned = clean_with_origins(text)
    assert len(cleaned.text) == len(cleaned.origins) == len(cleaned.ends)
    assert list(cleaned.origins) == sorted(cleaned.origins)
    assert list(cleaned.ends) == sorted(cleaned.ends)
    assert all(0 <= start < end <= len(text) for start, end in zip(cleaned.origins, cleaned.ends, strict=True))


@given(noisy, st.data())
def test_a_stretch_goes_to_the_original_and_comes_back_with_all_of_itself(text: str, data: st.DataObject) -> None:
    cleaned = clean_with_origins(text)
    if not cleaned.text:
        return
    start = data.draw(st.integers(0, len(cleaned.text) - 1))
    end = data.draw(st.integers(start + 1, len(cleaned.text)))
    inner = cleaned.text[start:end]
    back = cleaned.to_cleaned(*cleaned.to_original(start, end))
    if not inner.strip():
        assert back is None
        return
    assert back is not None
    assert back[0] <= start + len(inner) - len(inner.lstrip())
    assert back[1] >= start + len(inner.rstrip())
    assert cleaned.text[slice(*back)] == cleaned.text[slice(*back)].strip()


@given(st.text(st.characters(categories=("L", "N", "P")), min_size=1).filter(lambda text: "&" not in text))
def test_plain_text_stands_for_itself(text: str) -> None:
    cleaned = clean_with_origins(text)
    assert (cleaned.text, cleaned.origins) == (text, range(len(text)))
    assert cleaned.to_original(0, len(text)) == cleaned.to_cleaned(0, len(text)) == (0, len(text))


@pytest.mark.parametrize(
    ("text", "word", "original"),
    [
        ("Acme &amp; Sons  fall", "Acme & Sons", "Acme &amp; Sons"),
        ("Acme &amp; Sons  fall", "&", "&amp;"),
        ("buy\n$ACME https://t.co/x now", "$ACME", "$ACME"),
        ("buy https://t.co/x\n\nnow", "now", "now"),
        ("buy https://t.co/x\n\nnow", "buy now", "buy https://t.co/x\n\nnow"),
        ("&nbsp;AT&T &#8217;up&#8217;", "AT&T", "AT&T"),
        ("&nbsp;AT&T &#8217;up&#8217;", "\u2019up\u2019", "&#8217;up&#8217;"),
        ("a &NotEqualTilde; b", "\u0338", "&NotEqualTilde;"),
    ],
)
def test_a_word_of_the_cleaned_text_is_found_in_the_original(text: str, word: str, original: str) -> None:
    cleaned = clean_with_origins(text)
    start = cleaned.text.index(word)
    found = cleaned.to_original(start, start + len(word))
    assert text[slice(*found)] == original


@pytest.mark.parametrize(
    ("text", "part", "left"),
    [
        ("Acme &amp; Sons", "Acme &amp; Sons", "Acme & Sons"),
        ("Acme &amp; Sons", "amp", "&"),
        ("Acme https://t.co/x falls", "Acme ", "Acme"),
        ("Acme https://t.co/x falls", "Acme https", "Acme"),
        ("Acme https://t.co/x falls", "t.co", None),
        ("Acme https://t.co/x falls", " ", None),
        ("https://t.co/x", "t.co", None),
    ],
)
def test_a_stretch_of_the_original_is_found_in_the_cleaned_text_if_anything_is_left_of_it(
    text: str, part: str, left: str | None
) -> None:
    cleaned = clean_with_origins(text)
    start = text.index(part)
    found = cleaned.to_cleaned(start, start + len(part))
    assert (None if found is None else cleaned.text[slice(*found)]) == left


def test_a_reference_to_no_character_is_a_replacement_however_many_digits_it_has() -> None:
    assert clean_text("a &#99999999; b") == clean_text(f"a &#{'9' * 5000}; b") == "a \N{REPLACEMENT CHARACTER} b"


def test_an_empty_stretch_stays_empty() -> None:
    assert clean_with_origins("").to_original(0, 0) == (0, 0)
    assert clean_with_origins(" a&amp;").to_original(1, 1) == (2, 2)
    assert clean_with_origins(" a&amp;").to_original(2, 2) == (7, 7)
