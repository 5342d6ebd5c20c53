"""Which companies, indices, currencies, commodities and authorities a text names, and where.

A table holds each entity's names and symbols with the days on which they meant it, so that `$FB` in 2019 and `$META`
today are one entity. Finding is a walk over words with look-ups in dictionaries: its time is linear in the text.
"""

import re
from collections import defaultdict
from collections.abc import Sequence
from datetime import date
from pathlib import Path
from typing import Annotated, Literal, NamedTuple, Self

from pydantic import BeforeValidator, StringConstraints, ValidationError, model_validator

from stacknorm.errors import DataError
from stacknorm.frozen import Frozen

PACKAGED_ALIASES = Path(__file__).parent / "data" / "aliases.json"
"""Large companies (those of India in greater depth), indices, currencies, commodities and authorities."""

_CASHTAG = r"(?<![\w$])\$(?P<cashtag>[A-Za-z]{1,6}(?:\.[A-Za-z]{1,2})?)(?![\w$])"
_LISTING = r"\b(?:NYSE|NASDAQ|Nasdaq|AMEX|OTC|OTCMKTS):\s?(?P<listing>[A-Z]{1,5}(?:\.[A-Z]{1,2})?)(?!\w)"
_TOKEN = re.compile(rf"{_CASHTAG}|{_LISTING}|\w+|[^\w\s]")
_QUOTES = str.maketrans("\N{RIGHT SINGLE QUOTATION MARK}", "'")

_BEHIND_COMPANIES = (
    "announces beats ceo cfo co corp corporation cuts declares earnings group holdings inc launches ltd misses plans "
    "plc posts profit reports revenue sales says sees shares stock stores unveils"
)
_COMPANY_WORDS = frozenset(_BEHIND_COMPANIES.split())
"""What, right behind a name that is a common word too, shows that a company is meant."""

EntityKind = Literal["company", "index", "currency", "commodity", "authority", "economy"]
Text = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1)]


class Alias(Frozen):
    """A name or a symbol, and when it means what it stands for. In a file, a bare text is one that always does."""

    text: Text
    valid_from: date | None = None
    """First day, None: from the beginning."""
    valid_to: date | None = None
    """Last day, None: to this day."""
    ambiguous: bool = False
    """Whether it is a common word too (Target, Gap): it counts only where something near it speaks for the entity."""

    @model_validator(mode="after")
    def _lasts(self) -> Self:
        if self.valid_from and self.valid_to and self.valid_from > self.valid_to:
            raise ValueError(f"{self.text!r} is valid from {self.valid_from} to {self.valid_to}, which is no time")
        return self

    def holds(self, at: date | None) -> bool:
        """Whether it is valid on a day; on an unknown day everything is."""
        return at is None or ((self.valid_from or at) <= at <= (self.valid_to or at))


def _from_text(value: object) -> object:
    return {"text": value} if isinstance(value, str) else value


Aliases = tuple[Annotated[Alias, BeforeValidator(_from_text)], ...]


class EntityEntry(Frozen):
    """One entity of the table.

    Capital letters in a name matter: a word written in small letters is found in any case (`crude oil`), one that
    starts with a capital only so (`Apple`), one all in capitals only so (`AMD`).
    """

    id: Text
    """The symbol it is known by where it has one, else its name."""
    kind: EntityKind = "company"
    names: Aliases = ()
    symbols: Aliases = ()
    """Found behind a dollar sign, in any case, and behind an American exchange (NYSE: GE). One that shall be found by
    itself is a name too."""

    @property
    def scheme(self) -> str:
        """`symbol` where the id is one, else the kind: ids are unique within a scheme."""
        return "symbol" if any(symbol.text == self.id for symbol in self.symbols) else self.kind


class AliasTable(Frozen):
    """All entities that can be found, the more important first where two claim a name."""

    format: Literal[1] = 1
    phrases: tuple[Text, ...] = ()
    """They hold a name and mean something else (silver lining): nothing is found in them."""
    entities: tuple[EntityEntry, ...]

    @model_validator(mode="after")
    def _names_each_once(self) -> Self:
        ids = [entity.id for entity in self.entities]
        if repeated := {name for name in ids if ids.count(name) > 1}:
            raise ValueError(f"entities stand more than once: {', '.join(sorted(repeated))}")
        return self

    def overridden_by(self, user: "AliasTable") -> "AliasTable":
        """This table with a user's: an entity of the user's replaces the one of its id, and its names go first."""
        own = {entity.id for entity in user.entities}
        kept = (entity for entity in self.entities if entity.id not in own)
        return AliasTable(phrases=(*user.phrases, *self.phrases), entities=(*user.entities, *kept))


def load_aliases(path: Path = PACKAGED_ALIASES) -> AliasTable:
    """Read a table from JSON.

    Raises:
        DataError: unreadable or malformed; names the file and the problem.
    """
    try:
        return AliasTable.model_validate_json(path.read_bytes())
    except OSError as exc:
        raise DataError(f"{path} cannot be read: {exc.strerror}") from exc
    except ValidationError as exc:
        problems = "; ".join(f"{'.'.join(map(str, e['loc'])) or 'table'}: {e['msg']}" for e in exc.errors()[:5])
        raise DataError(f"{path} is not a table of aliases: {problems}") from exc


class EntityKey(NamedTuple):
    """What mentions are grouped by."""

    scheme: str
    id: str


class Mention(NamedTuple):
    """An entity and where the text names it: `text[start:end]`."""

    scheme: str
    entity: str
    """Its id in the table; unique within the scheme."""
    start: int
    end: int


class _Claim(NamedTuple):
    alias: Alias
    words: tuple[str, ...]
    key: EntityKey | None
    """None of a phrase that means no entity."""


class _Token(NamedTuple):
    """A word, a mark, a cashtag or a listing of a text."""

    text: str
    folded: str
    start: int
    end: int
    symbol: str | None
    """Of a cashtag or a listing (NYSE: GE), as written."""


class EntityFinder:
    """Finds the entities of a table in texts. Never changed after it is built: any number of threads may use it."""

    def __init__(self, table: AliasTable) -> None:
        self._symbols: dict[str, list[_Claim]] = defaultdict(list)
        self._names: dict[tuple[str, ...], list[_Claim]] = defaultdict(list)
        self._lengths: dict[str, list[int]] = {}
        for phrase in table.phrases:
            self._claim(Alias(text=phrase), None)
        for entity in table.entities:
            key = EntityKey(entity.scheme, entity.id)
            for alias in entity.symbols:
                self._symbols[alias.text.upper()].append(_Claim(alias, (), key))
            for alias in entity.names:
                self._claim(alias, key)

    def _claim(self, alias: Alias, key: EntityKey | None) -> None:
        tokens = _tokenise(alias.text)
        claim = _Claim(alias, tuple(token.text for token in tokens), key)
        self._names[tuple(token.folded for token in tokens)].append(claim)
        lengths = {len(tokens), *self._lengths.get(tokens[0].folded, ())}
        self._lengths[tokens[0].folded] = sorted(lengths, reverse=True)

    def find(self, text: str, at: date | None = None) -> tuple[Mention, ...]:
        """Find names, cashtags and listings, none overlapping another, the longest name at each place.

        A symbol that the table does not know stands for itself. A possessive ending is no part of a mention.

        Args:
            text: as it was written; capital letters tell names from words.
            at: the day of the text; None: every alias of the table counts.
        """
        tokens = _tokenise(text)
        tagged = {token.symbol: self.resolve(token.symbol, at) for token in tokens if token.symbol}
        keys = frozenset(tagged.values())
        mentions: list[Mention] = []
        place = 0
        while place < len(tokens):
            token, length = tokens[place], 1
            if token.symbol:
                mentions.append(Mention(*tagged[token.symbol], token.start, token.end))
            elif claim := self._longest(tokens, place, at, keys):
                length = len(claim.words)
                if claim.key:
                    mentions.append(Mention(*claim.key, token.start, tokens[place + length - 1].end))
            place += length
        return tuple(mentions)

    def resolve(self, symbol: str, at: date | None = None) -> EntityKey:
        """The entity that a symbol stands for on a day; the symbol itself, upper case, where the table has none."""
        for claim in self._symbols.get(symbol.upper(), ()):
            if claim.key and claim.alias.holds(at):
                return claim.key
        return EntityKey("symbol", symbol.upper())

    def _longest(
        self, tokens: Sequence[_Token], place: int, at: date | None, tagged: frozenset[EntityKey]
    ) -> _Claim | None:
        for length in self._lengths.get(tokens[place].folded, ()):
            words = tokens[place : place + length]
            for claim in self._names.get(tuple(token.folded for token in words), ()):
                if not claim.alias.holds(at) or not _fits_case(words, claim.words):
                    continue
                if (
                    not claim.alias.ambiguous
                    or claim.key in tagged
                    or _speaks_of_company(tokens, place, place + length)
                ):
                    return claim
        return None


def _tokenise(text: str) -> list[_Token]:
    plain = text.translate(_QUOTES)
    return [
        _Token(found[0], found[0].casefold(), found.start(), found.end(), found["cashtag"] or found["listing"])
        for found in _TOKEN.finditer(plain)
    ]


def _fits_case(words: Sequence[_Token], alias: Sequence[str]) -> bool:
    """Whether a text's words have the capital letters that an alias asks for."""
    return all(
        own[0].islower() or token.text == own or (token.text[0].isupper() and not own.isupper())
        for token, own in zip(words, alias, strict=True)
    )


def _speaks_of_company(tokens: Sequence[_Token], start: int, stop: int) -> bool:
    """Whether what stands around a common word shows that it names a company.

    Either a word such as shares or a possessive follows, or it stands with its capital in the midst of words without.
    """
    after = tokens[stop : stop + 2]
    if after and (after[0].folded in _COMPANY_WORDS or [token.folded for token in after] == ["'", "s"]):
        return True
    return start > 0 and tokens[start - 1].text.islower() and not (after and after[0].text[0].isupper())
