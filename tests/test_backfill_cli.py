"""The command: what it prints and writes, and that a back-test takes what it wrote."""

from pathlib import Path

import pytest
from typer.testing import CliRunner

from backtests import write_demo, write_lines
from surge_streams import DAY_SECONDS, at, event
from worker.cli import app
from worker.errors import Misconfigured
from worker.primer import read_primer

ENVIRONMENT = {"STACKNORM_ENGINE__KIND": "deterministic", "STACKNORM_SURGE__NEGATIVES_A_DAY": "60"}


def run(command: str, *arguments: object, **environment: str):
    return CliRunner().invoke(app, [command, *map(str, arguments)], env=ENVIRONMENT | environment)


def test_a_backfill_says_what_it_learned_and_a_back_test_starts_from_it(tmp_path: Path):
    archive, primer, cache = write_demo(tmp_path), tmp_path / "primer.json.gz", tmp_path / "kept"
    done = run("backfill", archive, "--to", "2026-03-06", "--out", primer, "--cache", cache)
    assert done.exit_code == 0, done.output
    keys = len(read_primer(primer).baselines)
    assert f"{keys:,} keys in " in done.stdout
    assert "surge.negatives_a_day is 60" in done.stdout
    assert f"surge.primer = {primer}" in done.stdout
    assert "labelled by deterministic" in done.stdout
    later = ("backtest", archive, "--from", "2026-03-06", "--cache", cache)
    learning, primed = run(*later), run(*later, STACKNORM_SURGE__PRIMER=str(primer))
    assert "0 texts labelled" not in learning.stderr
    assert "Nothing could fire" in learning.stdout
    assert "Nothing could fire" not in primed.stdout


def test_the_same_archive_gives_the_same_file_and_a_primer_of_before_bears_on_nothing(tmp_path: Path):
    archive, primer = write_demo(tmp_path), tmp_path / "primer.json"
    arguments = ("backfill", archive, "--out", primer, "--cache", tmp_path)
    assert run(*arguments).exit_code == 0
    first = primer.read_bytes()
    assert run(*arguments, STACKNORM_SURGE__PRIMER=str(primer)).exit_code == 0
    assert primer.read_bytes() == first


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (["--to", "2026-03-04"], "less than 3 days under the stack deterministic"),
        (["--from", "yesterday"], "--from yesterday is no time"),
        (["--out", "nowhere/primer.json"], "there is no folder nowhere"),
    ],
)
def test_what_cannot_be_done_is_said_and_nothing_is_written(tmp_path: Path, arguments, problem):
    done = run("backfill", write_demo(tmp_path), "--out", tmp_path / "primer.json", "--cache", tmp_path, *arguments)
    assert problem in str(done.exception)
    assert not (tmp_path / "primer.json").exists()


def test_labelled_events_cannot_be_labelled_by_another_bundle(tmp_path: Path):
    archive = write_lines(tmp_path / "labelled.jsonl", [event(n, n * DAY_SECONDS / 10).to_json() for n in range(50)])
    done = run("backfill", archive, "--bundle", "finance", "--out", tmp_path / "primer.json")
    assert isinstance(done.exception, Misconfigured)
    assert "labelled already" in str(done.exception)
    assert run("backfill", archive, "--out", tmp_path / "primer.json").exit_code == 0
    assert read_primer(tmp_path / "primer.json").archive.first == at(0)
