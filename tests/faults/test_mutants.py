"""Real workers that are broken on purpose are found out by a campaign of the same kind that good ones survive."""

from pathlib import Path

import pytest

from . import mutants
from .campaign import Size, run_campaign
from .plan import Kind
from .tally import Report

pytestmark = [pytest.mark.kafka, pytest.mark.slow, pytest.mark.timeout(1800)]

SEED = 1124


def run_mutant(name: str, folder: Path, **faults: int) -> Report:
    assert mutants.__file__ is not None
    size = Size(600, {Kind(kind): count for kind, count in faults.items()})
    return run_campaign(SEED, size, folder, print, program=(mutants.__file__, name))


def test_a_worker_that_loses_one_event_of_ten_thousand_is_found_out(tmp_path: Path) -> None:
    report = run_mutant("lose_some", tmp_path)
    assert report.count("lost") > 0
    assert report.count("duplicated") == 0


def test_a_worker_that_repeats_one_event_of_ten_thousand_is_found_out(tmp_path: Path) -> None:
    report = run_mutant("repeat_some", tmp_path)
    assert report.count("duplicated") > 0
    assert report.count("lost") == 0


def test_a_worker_that_commits_before_it_has_written_is_found_out_when_it_is_killed(tmp_path: Path) -> None:
    report = run_mutant("commit_early", tmp_path, sigkill=3)
    assert report.count("lost") > 0


def test_a_zombie_that_is_not_fenced_is_found_out(tmp_path: Path) -> None:
    report = run_mutant("skip_fencing", tmp_path, zombie=1)
    assert report.count("duplicated") > 0


def test_a_zombie_that_hears_late_of_its_end_is_fenced(tmp_path: Path) -> None:
    """The control of the one before: it writes on as that one does, and only its membership is refused."""
    report = run_mutant("hear_late", tmp_path, zombie=1)
    assert list(report.find_faults()) == []
