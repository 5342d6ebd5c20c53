"""Writes the JSON Schema of every event beside this file: ``python -m schemas``."""

import json
from pathlib import Path

from schemas.events import EVENTS, Event


def render_schema(event: type[Event]) -> str:
    """The JSON Schema (2020-12) of one event, as it is checked in."""
    schema = {"$schema": "https://json-schema.org/draft/2020-12/schema", **event.model_json_schema(mode="validation")}
    return json.dumps(schema, indent=2, ensure_ascii=False) + "\n"


def write_schemas(folder: Path) -> None:
    """Write ``<event>.schema.json`` for every event into ``folder``."""
    for name, event in EVENTS.items():
        (folder / f"{name}.schema.json").write_text(render_schema(event), encoding="utf-8")


if __name__ == "__main__":
    write_schemas(Path(__file__).parent)
