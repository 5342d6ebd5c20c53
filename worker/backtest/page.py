"""A back-test as one HTML page that loads nothing and runs no script, in the look of the evaluation's."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from jinja2 import ChoiceLoader, Environment, PackageLoader, StrictUndefined

from schemas.events import AlertEvent
from worker.backtest.picture import Subject, Timeline, draw_alert, draw_whole
from worker.backtest.run import Backtest
from worker.backtest.sentences import (
    KINDS,
    alerts_a_day,
    chance_a_day,
    explain_alert,
    figure,
    spell_moment,
    summarise,
    warn,
)
from worker.backtest.trust import STORY_TICKS, place_stories, show_trust, spell_hours
from worker.sinks.terminal import name_key
from worker.surge.keys import Key

MAX_DRAWN = 100
"""Alerts shown one by one; the table has all."""


@dataclass(frozen=True, slots=True)
class ShownAlert:
    """An alert, and what is said and drawn of it."""

    first: AlertEvent
    last: AlertEvent
    sentences: tuple[str, ...]
    picture: Timeline


@dataclass(frozen=True, slots=True)
class ShownKey:
    """A key that fired: the whole archive, and its alerts."""

    id: str
    name: str
    type: str
    picture: Timeline
    alerts: tuple[ShownAlert, ...]
    fired: int


def render_backtest(found: Backtest) -> str:
    """The page."""
    lives = found.lives
    by_key: dict[Key, list[list[AlertEvent]]] = {}
    for life in lives:
        by_key.setdefault(Key.of(life[0]), []).append(life)
    drawn = {life[0].alert_id for life in lives[:MAX_DRAWN]}
    return (
        _environment()
        .get_template("backtest.html.j2")
        .render(
            found=found,
            rules=found.rules,
            lives=lives,
            drawn=len(drawn),
            ids={key: f"key-{number}" for number, key in enumerate(by_key, 1)},
            keys=[_show_key(key, number, by_key[key], found, drawn) for number, key in enumerate(by_key, 1)],
            key_of=Key.of,
            kinds=KINDS,
            summary=tuple(summarise(found)),
            warnings=tuple(warn(found)),
            rate=alerts_a_day(found) if found.watched_days else None,
            chance=chance_a_day(found) if found.watched_days else None,
            trust=None if found.judgement is None else show_trust(found, found.judgement),
            story_ticks=STORY_TICKS,
        )
    )


def _show_key(
    key: Key, number: int, lives: Sequence[list[AlertEvent]], found: Backtest, drawn: Collection[str]
) -> ShownKey:
    assert found.watched_from is not None  # it fired
    subject = Subject(found.histories[key], lives, found.first, found.watched_from, found.last)
    return ShownKey(
        id=f"key-{number}",
        name=name_key(lives[0][0]),
        type="" if key.type.value == "global" else key.type.value,
        picture=draw_whole(subject),
        fired=len(lives),
        alerts=tuple(
            ShownAlert(
                first=life[0],
                last=life[-1],
                sentences=tuple(explain_alert(life, found.rules)),
                picture=draw_alert(subject, life),
            )
            for life in lives
            if life[0].alert_id in drawn
        ),
    )


def _environment() -> Environment:
    made = Environment(
        loader=ChoiceLoader([PackageLoader("worker.backtest"), PackageLoader("stacknorm.evaluation")]),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters |= {"figure": figure, "moment": spell_moment, "key_name": name_key}
    made.filters |= {"place_stories": place_stories, "hours": spell_hours}
    return made
