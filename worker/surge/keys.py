"""Which keys an item counts on, and whether it counts there as one of those that are watched for."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple, cast

from mypy_extensions import mypyc_attr

from schemas.events import AlertEvent, KeyType
from worker.labelled import News, Said

MIN_PROBABILITY: Final = 0.5
_SCHEMES: Final = {"cashtag": "symbol"}
_TARGET_END: Final = "\x1f"
_KEY_TYPES: Final[dict[str, KeyType]] = {key_type.value: key_type for key_type in KeyType}

ENTITY: Final = KeyType.entity
SOURCE: Final = KeyType.source
TOPIC: Final = KeyType.topic
WATCHLIST: Final = KeyType.watchlist
"""A constant of a compiled module is at hand, a member of an enumeration is searched for."""


class Target(NamedTuple):
    """What is watched for: items whose calibrated probability of this label is at least one half."""

    task: str
    label: str

    def __str__(self) -> str:
        return f"{self.task}={self.label}"

    @property
    def prefix(self) -> str:
        """What the state puts before the name of a key; nothing where negative items are watched for."""
        return "" if self == NEGATIVE else f"{self}{_TARGET_END}"

    @classmethod
    def parse(cls, text: str) -> "Target":
        """The target written so.

        Raises:
            ValueError: it is none.
        """
        task, _, label = text.partition("=")
        if task not in {"sentiment", "topic"} or not label or not label.isprintable():
            raise ValueError(f"{text!r} is no target: sentiment=LABEL or topic=LABEL, such as sentiment=negative")
        return cls(task, label)


NEGATIVE: Final = Target("sentiment", "negative")


class Key(NamedTuple):
    """What items are grouped by, and what is counted among them; ``str(key)`` names it in the state."""

    type: KeyType
    name: str
    target: Target = NEGATIVE

    def __str__(self) -> str:
        return f"{self.target.prefix}{self.type}:{self.name}"

    @classmethod
    def of(cls, alert: AlertEvent) -> "Key":
        """The key that an alert is about."""
        return cls(alert.key_type, alert.key, NEGATIVE if alert.target is None else Target.parse(alert.target))

    @classmethod
    def parse(cls, text: str) -> "Key":
        """The key named ``text`` in the state."""
        begin, _, name = text.partition(":")
        key_type = _KEY_TYPES.get(begin)
        if key_type is not None:
            return cls(key_type, name)
        target, _, key = text.partition(_TARGET_END)
        return cls.parse(key)._replace(target=Target.parse(target))


MARKET = Key(KeyType.market, "global")


@dataclass(frozen=True, slots=True)
class Watchlist:
    """A user's set of entities (``symbol:AAPL``) and topics that counts as one key.

    Attributes:
        name: Its key.
        entities: As alerts name them.
        topics: As the stack names them.
        budget_a_day: F of this key alone; without it the budget of all.
        negatives_a_day: V of this key alone, where it has a budget of its own; without it that of all, which asks for
            more evidence than it must.
    """

    name: str
    entities: tuple[str, ...] = ()
    topics: tuple[str, ...] = ()
    budget_a_day: float | None = None
    negatives_a_day: float | None = None


@mypyc_attr(acyclic=True)
class Mention:
    """An item on one of its keys, and what is said of that key; nothing where nobody said anything of it alone.

    ``key`` is how the state names the key where negative items are watched for.
    """

    __slots__ = ("key", "name", "sentiments", "type")

    def __init__(self, type: KeyType, name: str, sentiments: tuple[Said, ...] = ()) -> None:  # noqa: A002 (its field)
        self.type: Final = type
        self.name: Final = name
        self.sentiments: Final = sentiments
        self.key: Final = f"{type}:{name}"


OF_THE_MARKET: Final = Mention(MARKET.type, MARKET.name)


@mypyc_attr(acyclic=True)
class Count:
    """An item on one of its keys for one target: how the state names that key, and whether the item is a hit there."""

    __slots__ = ("hit", "mention", "state")

    def __init__(self, state: str, mention: Mention, hit: bool) -> None:
        self.state: Final = state
        self.mention: Final = mention
        self.hit: Final = hit


def count_on(event: News, mentions: Sequence[Mention], targets: Iterable[Target]) -> list[Count]:
    """An item on each of its keys for each target.

    What the item says of the key itself goes before what it says as a whole: of a takeover the buyer's news may be bad
    and the target's good. A watch-list is hit where one of its members is.
    """
    counts = []
    for target in targets:
        prefix, whole, of_sentiment = target.prefix, _says(event, target), target.task == "sentiment"
        for mention in mentions:
            hit = whole
            if mention.sentiments and of_sentiment:
                hit = any(_holds(each, target.label) for each in mention.sentiments)
            counts.append(Count(prefix + mention.key, mention, hit))
    return counts


class Mentions:
    """Finds the keys of items, the user's watch-lists among them."""

    def __init__(self, watchlists: Iterable[Watchlist] = ()) -> None:
        self._by_entity: dict[str, list[str]] = {}
        self._by_topic: dict[str, list[str]] = {}
        for watchlist in watchlists:
            _list_by(self._by_entity, watchlist.entities, watchlist.name)
            _list_by(self._by_topic, watchlist.topics, watchlist.name)

    def of(self, event: News) -> list[Mention]:
        """The market first, since it is the parent of the others, then source, topic, entities and watch-lists.

        An item that names no source has none here: all those of a feed together are but the market once more.
        A cashtag is a ticker symbol by definition: ``$AAPL`` and the symbol ``AAPL`` are one key, ``symbol:AAPL``. An
        entity without a symbol is named by its kind: ``authority:European Central Bank``. Each key stands once.
        """
        found, source = [OF_THE_MARKET], event.source
        if source != event.input.topic:  # which stands where no source is named
            found.append(Mention(SOURCE, source))
        topic = _topic_of(event)
        if topic is not None:
            found.append(Mention(TOPIC, topic))
        entities = _entities_of(event)
        found += entities.values()
        if self._by_entity or self._by_topic:
            found += self._watched(entities, topic, event.sentiment)
        return found

    def _watched(self, entities: Mapping[str, Mention], topic: str | None, whole: Said | None) -> Iterable[Mention]:
        """Of a member of which nobody said anything alone, what the item says as a ``whole`` is said."""
        said = () if whole is None else (whole,)
        found: dict[str, tuple[Said, ...]] = {}
        for name in self._by_topic.get(topic or "", ()):
            found[name] = found.get(name, ()) + said
        for entity, mention in entities.items():
            for name in self._by_entity.get(entity, ()):
                found[name] = found.get(name, ()) + (mention.sentiments or said)
        return [Mention(WATCHLIST, name, sentiments) for name, sentiments in found.items()]


def _list_by(index: dict[str, list[str]], members: Iterable[str], watchlist: str) -> None:
    for member in dict.fromkeys(members):
        index.setdefault(member, []).append(watchlist)


def _topic_of(event: News) -> str | None:
    topic = event.topic
    if topic is None:
        return None
    label = topic.label
    return label if topic.probabilities.get(label, 0.0) >= MIN_PROBABILITY else None


def _entities_of(event: News) -> dict[str, Mention]:
    found: dict[str, Mention] = {}
    for entity in event.entities:
        scheme, sentiment = entity.scheme, entity.sentiment
        name = f"{_SCHEMES.get(scheme, scheme)}:{entity.id}"
        said = () if sentiment is None else (sentiment,)
        known = found.get(name)
        found[name] = Mention(ENTITY, name, said if known is None else known.sentiments + said)
    return found


def _says(event: News, target: Target) -> bool:
    """Whether the item as a whole is one of those that are watched for."""
    if target.task == "topic":
        return event.topic is not None and event.topic.probabilities.get(target.label, 0.0) >= MIN_PROBABILITY
    return event.sentiment is not None and _holds(event.sentiment, target.label)


def _holds(sentiment: Said, label: str) -> bool:
    probabilities = cast("Mapping[str, float]", sentiment.probabilities)
    return probabilities.get(label, 0.0) >= MIN_PROBABILITY
