"""Archives for the tests of back-tests, and the deterministic engine on them."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from worker.backtest.run import Backtest, run_backtest
from worker.demo.stream import load_stream
from worker.deterministic import DeterministicEngine
from worker.settings import EngineSettings, Settings

ENGINE = EngineSettings(kind="deterministic")


def make_settings(*, partitions: int = 3, negatives_a_day: float = 60.0) -> Settings:
    """An archive's settings, under which the demo's week has some alerts by the deterministic engine."""
    return Settings.model_validate(
        {
            "idle_clock": "data",
            "engine": {"kind": "deterministic"},
            "topics": {"partitions": partitions},
            "surge": {"negatives_a_day": negatives_a_day},
        }
    )


def write_lines(path: Path, lines: Iterable[bytes | str]) -> Path:
    path.write_bytes(b"".join((line if isinstance(line, bytes) else line.encode()) + b"\n" for line in lines))
    return path


def write_demo(folder: Path) -> Path:
    """The demo's week, 396 items, as one archive in order."""
    return write_lines(folder / "week.jsonl", (line.value for line in load_stream()))


def backtest(*paths: Path, folder: Path, settings: Settings | None = None, **options: Any) -> Backtest:
    options = {"make_engine": lambda _: DeterministicEngine()} | options
    return run_backtest(paths, settings or make_settings(), cache=folder / "cache", **options)
