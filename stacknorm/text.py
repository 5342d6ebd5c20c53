"""What a text is to the stack: cleaned the same way in training and in service, and its fingerprint."""

import hashlib
import html
import re

import numpy as np
import numpy.typing as npt

_URL = re.compile(r"https?://\S+")
_SPACE = re.compile(r"\s+")
_PUNCTUATION = re.compile(r"[\W_]+")
_SURROGATE = re.compile(r"[\ud800-\udfff]")

CHARS_PER_TOKEN = 16
"""Characters kept for each token a member may read: far above the 4 to 5 of English, so it never cuts too early."""


def clean_text(text: str) -> str:
    """Unescape HTML, remove URLs and lone surrogates, fold whitespace."""
    unescaped = _SURROGATE.sub("\N{REPLACEMENT CHARACTER}", html.unescape(text))
    return _SPACE.sub(" ", _URL.sub(" ", unescaped)).strip()


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
