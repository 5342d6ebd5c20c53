from schemas.events import Entity, KeyType
from surge_streams import event, sentiment
from worker.surge.keys import MARKET, Key, is_negative, keys_of


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
    assert is_negative(event(0, 0).model_copy(update={"sentiment": even}))
    assert not is_negative(event(0, 0, negative=False))
    assert not is_negative(event(0, 0, abstained=True))


def test_a_key_is_known_again_from_its_name():
    for key in keys_of(event(0, 0, symbols=("NYSE:BRK.A",), source="a:b")):
        assert Key.parse(str(key)) == key
