"""What a text is to the stack: cleaned the same way in training and in service, and its fingerprint."""

import hashlib
import html
import re
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

_URL = re.compile(r"https?://\S+")
_SPACE = re.compile(r"\s+")
_PUNCTUATION = re.compile(r"[\W_]+")
_SURROGATE = re.compile(r"[\ud800-\udfff]")
_HUGE_REFERENCE = re.compile(r"&#[0-9]{1000,};?")  # `html.unescape` raises on 4,301 digits: Python reads no such number
_REFERENCE = re.compile(r"&(?:#[0-9]+;?|#[xX][0-9a-fA-F]+;?|[^\t\n\f <&#;]{1,32};?)")
"""What `html.unescape` takes for a character reference, and leaves as it is where it knows none of that name."""

CHARS_PER_TOKEN = 16
"""Characters kept for each token a member may read: far above the 4 to 5 of English, so it never cuts too early."""
RAW_CHARS_PER_CHAR = 4
"""Characters cleaned for each that may be kept: a text loses by it only where URLs and references are most of it."""


def clean_text(text: str) -> str:
    """Unescape HTML, remove URLs and lone surrogates, fold whitespace."""
    unescaped = _SURROGATE.sub("\N{REPLACEMENT CHARACTER}", _unescape(text))
    return _SPACE.sub(" ", _URL.sub(" ", unescaped)).strip()


def _unescape(text: str) -> str:
    return html.unescape(_HUGE_REFERENCE.sub("\N{REPLACEMENT CHARACTER}", text) if "&" in text else text)


@dataclass(frozen=True, slots=True)
class Cleaned:
    """A cleaned text, and the way back to the text it was made from."""

    text: str
    origins: Sequence[int]
    """For each character of `text`, the first character of the original that it stands for; never falling."""
    ends: Sequence[int]
    """For each character of `text`, one past the last that it stands for; never falling."""

    def to_original(self, start: int, end: int) -> tuple[int, int]:
        """The stretch of the original that `text[start:end]` stands for; an empty stretch stays empty."""
        if start < end:
            return self.origins[start], self.ends[end - 1]
        if start < len(self.origins):
            return self.origins[start], self.origins[start]
        return (self.ends[-1], self.ends[-1]) if self.ends else (0, 0)

    def to_cleaned(self, start: int, end: int) -> tuple[int, int] | None:
        """The stretch of `text` that stands for the original's characters `start` to `end`, no space around it.

        Returns:
            None where nothing but white space is left of them.
        """
        first, last = bisect_right(self.ends, start), bisect_left(self.origins, end)
        piece = self.text[first:last]
        if not piece.strip():
            return None
        return first + len(piece) - len(piece.lstrip()), last - len(piece) + len(piece.rstrip())


def clean_with_origins(text: str) -> Cleaned:
    """`clean_text`, with the way back from each character of the result."""
    cleaned = Cleaned(text, range(len(text)), range(1, len(text) + 1))
    if clean_text(text) == text:
        return cleaned
    cleaned = _replace(_REFERENCE, lambda found: _unescape(found[0]), cleaned)
    cleaned = _replace(_SURROGATE, lambda _: "\N{REPLACEMENT CHARACTER}", cleaned)
    cleaned = _replace(_URL, lambda _: " ", cleaned)
    cleaned = _replace(_SPACE, lambda _: " ", cleaned)
    first = len(cleaned.text) - len(cleaned.text.lstrip())
    kept = slice(first, first + len(cleaned.text.strip()))
    return Cleaned(cleaned.text[kept], cleaned.origins[kept], cleaned.ends[kept])


def _replace(pattern: re.Pattern[str], replacement: Callable[[re.Match[str]], str], before: Cleaned) -> Cleaned:
    """Replace what matches; each character put in stands for all that it replaced, if that was another."""
    parts: list[str] = []
    origins: list[int] = []
    ends: list[int] = []
    done = 0
    for found in pattern.finditer(before.text):
        start, end = found.span()
        put = replacement(found)
        if put == found[0]:
            continue
        parts += before.text[done:start], put
        origins += [*before.origins[done:start], *[before.origins[start]] * len(put)]
        ends += [*before.ends[done:start], *[before.ends[end - 1]] * len(put)]
        done = end
    rest = slice(done, None)
    return Cleaned("".join([*parts, before.text[rest]]), [*origins, *before.origins[rest]], [*ends, *before.ends[rest]])


def cut_raw_text(text: str, max_tokens: int) -> str:
    """Cut characters of a text as given that lie beyond what a reader of `max_tokens` tokens sees of it cleaned.

    It bounds cleaning and the search for names, whose time is linear in the text.
    """
    return text[: max_tokens * CHARS_PER_TOKEN * RAW_CHARS_PER_CHAR]


def truncate_text(text: str, max_tokens: int) -> str:
    """Cut characters that lie beyond what `max_tokens` tokens can hold, so that tokenising is bounded."""
    return text[: max_tokens * CHARS_PER_TOKEN]


def normalise_text(text: str) -> str:
    """Fold a text to what makes two rows the same news: no URLs, no punctuation, no case."""
    return _PUNCTUATION.sub(" ", clean_text(text).casefold()).strip()


def fingerprint(text: str) -> int:
    """The first 64 bits of BLAKE2b over the normalised text, as a signed integer."""
    digest = hashlib.blake2b(normalise_text(text).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little", signed=True)


def fingerprints(texts: list[str]) -> npt.NDArray[np.int64]:
    """Fingerprints of `texts`, in their order; shape [len(texts)]."""
    return np.fromiter((fingerprint(text) for text in texts), dtype=np.int64, count=len(texts))
