"""Which keys an item counts on, and whether it is negative."""

from functools import lru_cache
from typing import NamedTuple

from schemas.events import AlertEvent, KeyType
from worker.labelled import News

MIN_PROBABILITY = 0.5
_SCHEMES = {"cashtag": "symbol"}


class Key(NamedTuple):
    """What items are grouped by; ``str(key)`` names it in the state."""

    type: KeyType
    name: str

    def __str__(self) -> str:
        return f"{self.type.value}:{self.name}"

    @classmethod
    def of(cls, alert: AlertEvent) -> "Key":
        """The key that an alert is about."""
        return cls(alert.key_type, alert.key)

    @classmethod
    def parse(cls, text: str) -> "Key":
        """The key named ``text`` in the state."""
        key_type, _, name = text.partition(":")
        return cls(KeyType(key_type), name)


MARKET = Key(KeyType.market, "global")


def is_negative(event: News) -> bool:
    """Whether the calibrated p(negative) is at least one half."""
    return event.sentiment is not None and event.sentiment.probabilities.get("negative", 0.0) >= MIN_PROBABILITY


def keys_of(event: News) -> list[Key]:
    """The market first, since it is the parent of the others, then source, topic and entities, each once.

    A cashtag is a ticker symbol by definition: ``$AAPL`` and the symbol ``AAPL`` are one key, ``symbol:AAPL``. An
    entity without a symbol is named by its kind: ``authority:European Central Bank``.
    """
    keys = [MARKET, _key(KeyType.source, event.source)]
    topic = event.topic
    if topic is not None and topic.probabilities.get(topic.label, 0.0) >= MIN_PROBABILITY:
        keys.append(_key(KeyType.topic, topic.label))
    keys += dict.fromkeys([_key(KeyType.entity, f"{_SCHEMES.get(e.scheme, e.scheme)}:{e.id}") for e in event.entities])
    return keys


_key = lru_cache(maxsize=1 << 14)(Key)
name_key = lru_cache(maxsize=1 << 14)(str)
"""``str`` of a key; most items are on keys that others were on a moment ago."""
