"""The contracts hold: generated schemas are current, good examples survive a round trip, bad ones are refused."""

import json
from pathlib import Path

import pytest
from pydantic import ValidationError

import schemas
from schemas.__main__ import render_schema
from schemas.events import EVENTS

FOLDER = Path(schemas.__file__).parent


def examples(name: str, kind: str) -> list[dict]:
    return [json.loads(line) for line in (FOLDER / "examples" / f"{name}.{kind}.jsonl").read_text().splitlines()]


GOOD = [(name, example) for name in EVENTS for example in examples(name, "good")]
BAD = [
    pytest.param(name, case["value"], id=f"{name}: {case['why']}") for name in EVENTS for case in examples(name, "bad")
]


@pytest.mark.parametrize("name", EVENTS)
def test_the_checked_in_schema_is_what_the_model_gives(name):
    assert (FOLDER / f"{name}.schema.json").read_text() == render_schema(EVENTS[name]), "run `make schemas`"


@pytest.mark.parametrize(("name", "example"), GOOD)
def test_a_good_example_survives_a_round_trip(name, example):
    event = EVENTS[name].model_validate_json(json.dumps(example))
    assert EVENTS[name].model_validate_json(event.to_json()) == event
    assert json.loads(event.to_json())["schema_version"] == 1


@pytest.mark.parametrize(("name", "example"), BAD)
def test_a_bad_example_is_refused(name, example):
    with pytest.raises(ValidationError):
        EVENTS[name].model_validate_json(json.dumps(example))


def test_absent_fields_stay_absent():
    event = EVENTS["news_item"].model_validate_json('{"title": "t"}')
    assert "body" not in json.loads(event.to_json())
