"""What a stack is asked about in one call: cleaned texts, the entities mentioned in them, and their words.

An answer is about a text, a mention or a word, as the kind of task wants; `owners` says whose texts these are.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from stacknorm.bundle import TaskKind
from stacknorm.encoder.tokens import Text
from stacknorm.entities import Mention
from stacknorm.spans.words import Places, split_words
from stacknorm.text import Cleaned, clean_text, clean_with_origins, cut_raw_text, truncate_text

Owners = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Stretch:
    """A mention, in characters of a cleaned text."""

    text: int
    start: int
    end: int
    mention: Mention
    """In characters of the text as given."""


@dataclass(frozen=True, slots=True)
class Passages:
    """Everything members read in one call of the engine."""

    texts: Sequence[Text]
    """Cleaned."""
    cleaned: Sequence[Cleaned]
    """The way back to the texts as given; empty where no task needs characters. Of a pair, its first text."""
    mentions: Sequence[Stretch] = ()
    words: Sequence[Places] = ()
    """Of each text, [words, 2]; empty where no task labels words."""

    def owners(self, kind: TaskKind) -> Owners:
        """The text of each thing that a task of this kind answers about."""
        if kind == "entity":
            return np.array([mention.text for mention in self.mentions], dtype=np.int64)
        if kind == "spans":
            return np.repeat(np.arange(len(self.texts)), [len(words) for words in self.words])
        return np.arange(len(self.texts))

    @property
    def first_words(self) -> Owners:
        """The position of each text's first word among all words, and how many there are in all; [texts + 1]."""
        return np.cumsum([0, *(len(words) for words in self.words)])


def prepare(
    texts: Sequence[Text], most_tokens: int, kinds: frozenset[TaskKind], mentions: Sequence[Sequence[Mention]]
) -> Passages:
    """Clean texts and find again in them what was found in the texts as given.

    Args:
        texts: as given.
        most_tokens: of a text that can be read; characters that lie beyond them are cut off, and mentions in them left
            out.
        kinds: of the tasks to answer.
        mentions: of each text as given; one whose characters are cleaned away (in a URL) is left out.
    """
    if not kinds & {"entity", "spans"}:
        return Passages([_clean(text, most_tokens) for text in texts], ())
    cleaned = [clean_with_origins(cut_raw_text(first_of(text), most_tokens)) for text in texts]
    read = [_replace_first(text, c.text, most_tokens) for text, c in zip(texts, cleaned, strict=True)]
    stretches = [
        Stretch(text, *place, mention)
        for text, found in enumerate(mentions)
        for mention in found
        if (place := cleaned[text].to_cleaned(mention.start, mention.end)) is not None
    ]
    words = [split_words(first_of(text)) for text in read] if "spans" in kinds else ()
    return Passages(read, cleaned, stretches, words)


def first_of(text: Text) -> str:
    """The text itself; of a pair, the first."""
    return text if isinstance(text, str) else text[0]


def _clean(text: Text, most_tokens: int) -> Text:
    if isinstance(text, str):
        return _clean_one(text, most_tokens)
    return _clean_one(text[0], most_tokens), _clean_one(text[1], most_tokens)


def _clean_one(text: str, most_tokens: int) -> str:
    return truncate_text(clean_text(cut_raw_text(text, most_tokens)), most_tokens)


def _replace_first(text: Text, first: str, most_tokens: int) -> Text:
    kept = truncate_text(first, most_tokens)
    return kept if isinstance(text, str) else (kept, _clean_one(text[1], most_tokens))
