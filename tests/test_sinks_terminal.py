"""What a person reads in the terminal: one line a label, and a box that says why an alert fired."""

from pathlib import Path

from rich.console import Console, RenderableType

import schemas
from schemas.events import AlertEvent, AlertStatus, KeyType, LabelledEvent
from worker.sinks.terminal import describe_key, render_alert, render_label

EXAMPLES = Path(schemas.__file__).parent / "examples"
LABELLED, ABSTAINED = (
    LabelledEvent.model_validate_json(line)
    for line in (EXAMPLES / "labelled_event.good.jsonl").read_text().splitlines()
)
FIRING, RESOLVED = (
    AlertEvent.model_validate_json(line) for line in (EXAMPLES / "alert_event.good.jsonl").read_text().splitlines()
)


def shown(what: RenderableType) -> str:
    console = Console(width=120, no_color=True)
    with console.capture() as captured:
        console.print(what)
    return captured.get()


def test_a_label_is_one_line_with_clock_sentiment_topic_symbol_and_title():
    (line,) = shown(render_label(LABELLED)).splitlines()
    for part in ("Thu 05 Mar 08:30", "▼ negative", "-0.93", "Financials", "HRVL", "Harrow & Vale shares fall"):
        assert part in line


def test_an_abstained_item_says_why():
    assert "language 'de' is not one the stack knows (en)" in shown(render_label(ABSTAINED))


def test_an_alert_says_what_came_what_was_expected_and_by_which_stories():
    box = shown(render_alert(FIRING))
    assert "Negative news surges: entity HRVL" in box
    assert "5 negative stories of 6 in 0.3 h, from 3 sources, 2 copies folded; 0.02 were expected" in box
    assert "Harrow & Vale shares fall" in box
    assert "W 14.2 >= h 12.1" in box


def test_later_revisions_and_the_end_take_one_line_each():
    later = FIRING.model_copy(update={"revision": 2})
    assert len(shown(render_alert(later)).splitlines()) == 1
    assert RESOLVED.status is AlertStatus.resolved
    assert shown(render_alert(RESOLVED)).startswith("■ resolved: entity HRVL at Thu 05 Mar 14:30 (quiet)")


def test_the_market_is_called_by_its_name():
    market = FIRING.model_copy(update={"key_type": KeyType.market, "key": "global"})
    assert describe_key(market) == "the whole market"


def test_what_a_feed_wrote_in_an_alert_is_no_markup_and_steers_no_terminal():
    story = FIRING.evidence[0].model_copy(update={"title": "[Update] shares [/b] fall \x1b[2J", "source": "[red]wire"})
    changes = {"evidence": (story,), "key_type": KeyType.source, "key": "[/wire]\x1b[1m"}
    box = shown(render_alert(FIRING.model_copy(update=changes)))
    for part in (r"[Update] shares [/b] fall \x1b[2J", "[red]wire", r"source [/wire]\x1b[1m"):
        assert part in box
    assert "\x1b" not in box


def test_an_end_stands_above_the_box_of_an_alert_shown_whole():
    whole = shown(render_alert(RESOLVED, whole=True))
    assert whole.startswith("■ resolved: entity HRVL")
    assert "Harrow & Vale shares fall" in whole
