"""From tokens to words: what a member says of its tokens, told of the words of the text, which all members share.

Tokenizers cut differently (word pieces, bytes with the space before them, sentence pieces), so tokens are compared
by the characters they stand for, and characters are gathered into words: no span starts or ends inside of one.
"""

import re

import numpy as np
import numpy.typing as npt

from stacknorm.pooling.pool import Probabilities

Places = npt.NDArray[np.int64]
"""First character and one past the last, [n, 2]."""

_WORD = re.compile(r"\w+|[^\w\s]")


def split_words(text: str) -> Places:
    """The words of a text, a mark being a word of its own; [words, 2], from left to right."""
    return np.array([match.span() for match in _WORD.finditer(text)], dtype=np.int64).reshape(-1, 2)


def read_words(text: str, words: Places, offsets: Places, tokens: Probabilities) -> Probabilities:
    """Gather what a member says of tokens into what it says of words.

    A token's first character has its tag; on its further characters a span can only go on, not start. The type of a
    word is the mean over its characters, whether a span starts there is for its first character to say.

    Args:
        text: the text that was cut into tokens.
        words: of the text, [words, 2].
        offsets: characters of each token, [tokens, 2], in code points; empty of special tokens. Spaces at its ends
            do not count as part of a token, and of tokens that share a character the first has it.
        tokens: tags of each token, [tokens, tags], in the order of `head_tags`.

    Returns:
        Tags of each word, [words, tags]; NaN where no token covers it, for it was not read.
    """
    owners, firsts = _own_characters(text, offsets)
    places = np.concatenate([np.arange(start, end) for start, end in words]) if len(words) else np.empty(0, np.int64)
    of_word = np.repeat(np.arange(len(words)), words[:, 1] - words[:, 0])
    read = owners[places] >= 0
    places, of_word = places[read], of_word[read]
    gathered = np.full((len(words), tokens.shape[1]), np.nan)
    if not len(places):
        return gathered
    present, starts, counts = np.unique(of_word, return_index=True, return_counts=True)
    share = tokens[owners[places]]  # [characters, tags]
    types = share[:, 1::2] + share[:, 2::2]
    mean = np.add.reduceat(types, starts) / counts[:, None]  # [present, types]
    first = places[starts]
    begins = np.where(firsts[first, None], share[starts, 1::2] / np.maximum(types[starts], np.finfo(float).tiny), 0)
    gathered[present, 0] = (1 - mean.sum(axis=1)).clip(min=0)
    gathered[present, 1::2] = mean * begins
    gathered[present, 2::2] = mean * (1 - begins)
    return gathered


def _own_characters(text: str, offsets: Places) -> tuple[Places, npt.NDArray[np.bool_]]:
    """For each character the token that has it, -1 where none has, and whether it is that token's first."""
    owners = np.full(len(text), -1, dtype=np.int64)
    firsts = np.zeros(len(text), dtype=bool)
    for token in reversed(range(len(offsets))):
        start, end = offsets[token]
        piece = text[start:end]
        start, end = end - len(piece.lstrip()), start + len(piece.rstrip())
        if start < end:
            owners[start:end] = token
            firsts[start:end] = False
            firsts[start] = True
    return owners, firsts
