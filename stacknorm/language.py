"""Which language a text is in, asked for one purpose: to abstain where a stack was never taught to read.

The answer is one-sided. A text counts as readable unless it is certainly in another language: a headline wrongly
withheld is lost to the reader, one wrongly labelled only adds noise.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from py3langid.langid import MODEL_FILE, LanguageIdentifier

from stacknorm.errors import BundleError
from stacknorm.text import clean_text

CERTAIN = 0.995
"""Least probability that a text is in none of the known languages, for its whole and for its words without names.

Names mislead: `Société Générale posts surprise profit` as a whole looks French. Chosen on 58,036 rows of English news
(both Twitter sets, SEntFiN, Reuters): the 38 rows that reach it are indeed in other languages, and so do all of 132
headlines in eleven other languages."""
_LEAST_BYTES = 12
"""Of letters in UTF-8: four Chinese characters, six Cyrillic ones or twelve Latin ones. Less is a word or two."""
_MOST_CHARS = 300
"""Read of a text; more does not change the answer."""

_CODES = (
    "ar az bg bn ca cs da de el en es et fa fi fr gu he hi hr hu hy id is it ja ka kk km kn ko lo lt lv mk ml mr ms my "
    "ne nl no pa pl pt ro ru si sk sl sq sr sv sw ta te th tr uk ur uz vi zh"
)
LANGUAGES = frozenset(_CODES.split())
"""Languages told apart, ISO 639-1. Small relatives of large languages are left out: they draw short texts to them."""

_NO_LANGUAGE = re.compile(r"[$#@]\w+|[\d_]+|[^\w\s'\N{RIGHT SINGLE QUOTATION MARK}-]")
_LATIN_NAME = re.compile(r"[A-Z][A-Za-z\u00C0-\u024F'-]*")  # by itself or amid Chinese, where no space parts words


@dataclass(frozen=True, slots=True)
class Verdict:
    """What is known about the language of one text."""

    language: str | None
    """The likeliest, ISO 639-1; None where the text has too few words to tell."""
    probability: float
    """Of `language`, normalised over the languages told apart; 0 where it is None."""
    foreign: bool
    """Whether the text is certainly in none of the languages the guard knows."""


class LanguageGuard:
    """Judges texts against the languages of a bundle.

    Holds a naive Bayes model over byte sequences that is never changed after loading (about a second): one guard may
    serve any number of threads.
    """

    def __init__(self, known: Sequence[str]) -> None:
        """Load the model.

        Args:
            known: languages the stack reads, ISO 639-1.

        Raises:
            BundleError: a language the model cannot tell.
        """
        identifier = LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)
        if strange := set(known) - set(identifier.labels):
            raise BundleError(f"languages {sorted(strange)} of the bundle cannot be told apart from others")
        identifier.set_languages(LANGUAGES | set(known))
        self._identifier = identifier
        self._known = frozenset(known)

    def judge(self, texts: Sequence[str]) -> list[Verdict]:
        """Judge each text, in order; URLs, cashtags, names and numbers are no evidence."""
        return [self._judge(text) for text in texts]

    def _judge(self, text: str) -> Verdict:
        whole = _NO_LANGUAGE.sub(" ", clean_text(text[: 10 * _MOST_CHARS])[:_MOST_CHARS])
        words = _without_names(whole)
        if len(words.replace(" ", "").encode()) < _LEAST_BYTES:
            return Verdict(None, 0.0, foreign=False)
        language, probability = self._identifier.classify(words)
        # The likeliest of so many languages alone has a larger share than a certainty leaves to all that are known; few
        # texts get further, so what is asked of them costs next to nothing.
        foreign = language not in self._known and all(self._is_foreign(self._rank(text)) for text in (words, whole))
        return Verdict(language, min(probability, 1.0), foreign)

    def _rank(self, words: str) -> list[tuple[str, float]]:
        ranked: list[tuple[str, float]] = self._identifier.rank(words)
        return ranked

    def _is_foreign(self, ranked: list[tuple[str, float]]) -> bool:
        return 1 - sum(probability for language, probability in ranked if language in self._known) >= CERTAIN


def _without_names(whole: str) -> str:
    """The words that start with no capital letter; all of them where the text is in capitals."""
    if whole.isupper():
        return whole
    return " ".join(word for word in _LATIN_NAME.sub(" ", whole).split() if not word[0].isupper())
