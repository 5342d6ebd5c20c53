"""The detector's hot modules run as machine code or as Python, and nobody can tell from what comes of them."""

import os
import shutil
import subprocess
import sys
from dataclasses import replace
from hashlib import blake2b
from pathlib import Path
from random import Random

import pytest

from worker.detector import is_compiled, run_through
from worker.judging.jumps import SYMBOL, calm_symbol
from worker.judging.streams import WALL, draw_story, draw_times, write_timed
from worker.surge.rules import Rules

ROOT = Path(__file__).parents[1]


def digest_run() -> str:
    """Of all alerts, trends and state records of three weeks with a surge, beside how often an alert was revised."""
    random = Random(7)
    surge = [(seconds, draw_story(random, SYMBOL, negative=True)) for seconds in draw_times(random, 200, 18, 18.5)]
    events = write_timed([*calm_symbol(random, 10, 21), *surge])
    rules, digest, revisions = replace(Rules(), negatives_a_day=100.0), blake2b(digest_size=16), 0
    for batch in run_through(rules, events[::2], events[1::2], emitted_at=WALL, run_out=True, trends=True):
        revisions += len(batch.alerts)
        told = [alert.to_json() for alert in batch.alerts], [trend.event.to_json() for trend in batch.trends]
        digest.update(repr((told, sorted(batch.changelog))).encode())
    return f"{digest.hexdigest()} {revisions}"


def test_as_python_the_detector_tells_the_same_as_compiled(tmp_path: Path) -> None:
    if not is_compiled():
        pytest.skip("the detector is not compiled here")
    shutil.copytree(ROOT / "worker", tmp_path / "worker", ignore=shutil.ignore_patterns("*.so", "*.pyd", "__pycache__"))
    paths = os.pathsep.join(map(str, (tmp_path, ROOT)))
    command = (sys.executable, __file__)
    done = subprocess.run(
        command, env={**os.environ, "PYTHONPATH": paths}, stdout=subprocess.PIPE, text=True, check=True
    )
    told = digest_run()
    assert done.stdout.split() == ["False", *told.split()]
    assert int(told.split()[1]) > 10


if __name__ == "__main__":
    print(is_compiled(), digest_run())
