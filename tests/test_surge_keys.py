import pytest

from schemas.events import Entity, KeyType, LabelledEvent
from surge_streams import event, sentiment
from worker.surge.keys import MARKET, NEGATIVE, Key, Mentions, Target, Watchlist, count_on


def keys_of(item: LabelledEvent, *watchlists: Watchlist, target: Target = NEGATIVE) -> list[Key]:
    return [Key(mention.type, mention.name, target) for mention in Mentions(watchlists).of(item)]


def hits(item: LabelledEvent, *watchlists: Watchlist, target: Target = NEGATIVE) -> set[str]:
    return {count.mention.name for count in count_on(item, Mentions(watchlists).of(item), [target]) if count.hit}


def say(symbol: str, *, negative: bool) -> Entity:
    return Entity(id=symbol, scheme="symbol", sentiment=sentiment(negative))


def test_an_item_counts_on_market_source_topic_and_entities():
    keys = keys_of(event(0, 0, symbols=("ACME", "XYZ"), source="wire", topic="earnings"))
    assert keys == [
        MARKET,
        Key(KeyType.source, "wire"),
        Key(KeyType.topic, "earnings"),
        Key(KeyType.entity, "symbol:ACME"),
        Key(KeyType.entity, "symbol:XYZ"),
    ]


def test_an_uncertain_topic_is_no_key():
    assert KeyType.topic not in {key.type for key in keys_of(event(0, 0, topic_probability=0.49))}
    assert KeyType.topic in {key.type for key in keys_of(event(0, 0, topic_probability=0.5))}


def test_a_cashtag_and_a_symbol_are_one_key():
    entities = (Entity(id="ACME", scheme="symbol"), Entity(id="ACME", scheme="cashtag"))
    keys = keys_of(event(0, 0).model_copy(update={"entities": entities}))
    assert [key for key in keys if key.type is KeyType.entity] == [Key(KeyType.entity, "symbol:ACME")]


def test_negative_is_a_probability_of_at_least_one_half():
    probabilities = {"negative": 0.5, "neutral": 0.5, "positive": 0.0}
    even = sentiment(True).model_copy(update={"probabilities": probabilities})
    assert "wire" in hits(event(0, 0).model_copy(update={"sentiment": even}))
    assert not hits(event(0, 0, negative=False))
    assert not hits(event(0, 0, abstained=True))


def test_what_an_item_says_of_an_entity_goes_before_what_it_says_as_a_whole():
    entities = (say("BUYER", negative=True), say("BOUGHT", negative=False), Entity(id="OTHER", scheme="symbol"))
    good = event(0, 0, negative=False).model_copy(update={"entities": entities})
    assert hits(good) == {"symbol:BUYER"}
    bad = good.model_copy(update={"sentiment": sentiment(True)})
    assert hits(bad) == {"global", "wire", "markets", "symbol:BUYER", "symbol:OTHER"}


def test_an_item_that_names_no_source_counts_on_none():
    unnamed = event(0, 0)
    unnamed = unnamed.model_copy(update={"source": unnamed.input.topic})
    assert KeyType.source in {key.type for key in keys_of(event(0, 0))}
    assert {key.type for key in keys_of(unnamed)} == {key.type for key in keys_of(event(0, 0))} - {KeyType.source}


def test_a_watchlist_counts_an_item_once_and_is_hit_where_one_of_its_members_is():
    banks = Watchlist("banks", entities=("symbol:A", "symbol:B"), topics=("markets",))
    item = event(0, 0, negative=False, symbols=(), topic="other")
    both = item.model_copy(update={"entities": (say("A", negative=False), say("B", negative=True))})
    assert keys_of(both, banks).count(Key(KeyType.watchlist, "banks")) == 1
    assert "banks" in hits(both, banks)
    assert "banks" not in hits(item.model_copy(update={"entities": (say("A", negative=False),)}), banks)
    assert Key(KeyType.watchlist, "banks") not in keys_of(item, banks)
    assert "banks" in hits(event(0, 0, symbols=(), topic="markets"), banks)


def test_a_member_of_which_nothing_is_said_alone_is_hit_by_the_item_beside_one_of_which_something_is():
    banks = Watchlist("banks", entities=("symbol:A", "symbol:B"), topics=("markets",))
    entities = (say("A", negative=False), Entity(id="B", scheme="symbol"))
    beside = event(0, 0, topic="other").model_copy(update={"entities": entities})
    assert hits(beside, banks) >= {"symbol:B", "banks"}
    topic = event(0, 0, topic="markets").model_copy(update={"entities": entities[:1]})
    assert hits(topic, banks) >= {"markets", "banks"}


def test_any_label_of_a_task_can_be_watched():
    item = event(0, 0, negative=False, topic="fraud")
    assert hits(item, target=Target("topic", "fraud")) == {"global", "wire", "fraud", "symbol:ACME"}
    assert not hits(item, target=Target("topic", "markets"))
    assert "wire" in hits(item, target=Target("sentiment", "neutral"))
    for text in ("sentiment", "sentiment=", "mood=bad", "topic=a\x1fb"):
        with pytest.raises(ValueError, match="is no target"):
            Target.parse(text)


def test_a_key_is_known_again_from_its_name():
    item = event(0, 0, symbols=("NYSE:BRK.A",), source="a:b\x1fentity:c")
    for target in (NEGATIVE, Target("topic", "a: b=c")):
        for key in keys_of(item, target=target):
            assert Key.parse(str(key)) == key
