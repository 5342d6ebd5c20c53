"""The command: what it prints, what it writes, and what it refuses."""

from pathlib import Path

import polars as pl
import pytest
from typer.testing import CliRunner

from backtests import write_demo
from schemas.events import AlertEvent, TrendEvent
from worker.cli import app
from worker.errors import Misconfigured
from worker.lives import fired_lives

ENVIRONMENT = {"STACKNORM_ENGINE__KIND": "deterministic", "STACKNORM_SURGE__NEGATIVES_A_DAY": "60"}


def run(*arguments: object):
    return CliRunner().invoke(app, ["backtest", *map(str, arguments)], env=ENVIRONMENT)


def test_alerts_are_shown_and_written_and_labels_are_kept(tmp_path: Path):
    alerts, page = tmp_path / "alerts.jsonl", tmp_path / "report.html"
    done = run(write_demo(tmp_path), "--cache", tmp_path / "kept", "--out", alerts, "--html", page)
    assert done.exit_code == 0, done.output
    assert "entity HRVL" in done.stdout
    assert f"wrote {alerts}" in done.stdout
    assert f"wrote {page}" in done.stdout
    assert f"labels are kept in {tmp_path / 'kept'}" in done.stderr
    revisions = [AlertEvent.model_validate_json(line) for line in alerts.read_bytes().splitlines()]
    assert f"{len(fired_lives(revisions))} alerts in" in done.stdout
    assert page.read_text().startswith("<!doctype html>")


def test_trends_are_written_where_asked_for(tmp_path: Path):
    week, lines, table = write_demo(tmp_path), tmp_path / "trends.jsonl", tmp_path / "trends.parquet"
    assert run(week, "--cache", tmp_path / "kept", "--trends", lines).exit_code == 0
    assert run(week, "--cache", tmp_path / "kept", "--trends", table).exit_code == 0
    trends = [TrendEvent.model_validate_json(line) for line in lines.read_bytes().splitlines()]
    assert len({trend.record_key for trend in trends}) == len(trends) > 1000
    days = [trend for trend in trends if (trend.key, trend.window) == ("global", "1d")]
    assert [trend.final for trend in days] == 6 * [True] + [False]
    assert sum(trend.n_items for trend in days) == 395  # the hour of the last item is not over
    told = [trend.model_dump() | {"key_type": trend.key_type.value} for trend in trends]
    assert pl.read_parquet(table).to_dicts() == told


def test_a_stretch_is_read_in_utc(tmp_path: Path):
    page = tmp_path / "report.html"
    done = run(write_demo(tmp_path), "--cache", tmp_path, "--to", "2026-03-04", "--from", "2026-03-03T00:00:00Z",
               "--html", page)  # fmt: skip
    assert "Nothing could fire" in done.stdout
    assert "Tue 3 Mar 2026" in page.read_text()


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (["--from", "yesterday"], "--from yesterday is no time"),
        (["--zone", "Mars/Olympus"], "--zone Mars/Olympus is not known here"),
        (["--out", "alerts.csv"], r"not to alerts\.csv"),
        (["--html", "nowhere/report.html"], "there is no folder nowhere"),
    ],
)
def test_what_cannot_be_done_is_said_before_the_work(tmp_path: Path, arguments, problem):
    done = run(write_demo(tmp_path), "--cache", tmp_path, *arguments)
    assert isinstance(done.exception, Misconfigured)
    with pytest.raises(Misconfigured, match=problem):
        raise done.exception
    assert not list(tmp_path.glob("*.sqlite"))
