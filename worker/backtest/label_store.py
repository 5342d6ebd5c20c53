"""Labels kept on disk, so that an archive is labelled once: an engine that asks another only for what it lacks."""

import hashlib
import sqlite3
from collections.abc import Sequence
from datetime import date
from pathlib import Path
from typing import Any

import orjson
from pydantic import TypeAdapter

from stacknorm import __version__
from stacknorm.bases.source import cache_directory
from stacknorm.prediction import Prediction, StackIdentity
from worker.errors import Misconfigured
from worker.labeller import Engine
from worker.settings import EngineSettings

_PREDICTION: TypeAdapter[Prediction] = TypeAdapter(Prediction)
_WITHOUT_MEANING = {"bundle", "form", "deterministic_seconds_per_text", "member_timeout_seconds", "aliases"}
"""Settings that the digest of the stack speaks for, or that change no label; aliases count by their content."""


def default_folder() -> Path:
    """Where labels are kept unless told otherwise: beside the bases."""
    return cache_directory() / "labels"


def place_of(folder: Path, identity: StackIdentity, settings: EngineSettings) -> Path:
    """The file of a stack: its digest, this version of the library, and every setting that may change a label."""
    chosen = settings.model_dump(mode="json", exclude=_WITHOUT_MEANING)
    aliases = settings.aliases.read_bytes() if settings.aliases else b""
    stated = orjson.dumps([__version__, identity.digest, chosen], option=orjson.OPT_SORT_KEYS) + aliases
    name = identity.name.replace("/", "-")
    return folder / f"{name}-{identity.digest[:12]}-{hashlib.sha256(stated).hexdigest()[:12]}.sqlite"


class KeptLabels:
    """Predictions by text and day, in one file. Owned by one thread; a second process may use the file too."""

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._connection = sqlite3.connect(path, timeout=60)
            self._connection.execute(
                "CREATE TABLE IF NOT EXISTS labels (text BLOB PRIMARY KEY, said BLOB) WITHOUT ROWID"
            )
        except (OSError, sqlite3.Error) as error:
            raise Misconfigured(
                f"labels cannot be kept in {path}: {error}; delete it, or name another --cache"
            ) from error

    def look_up(self, keys: Sequence[bytes]) -> dict[bytes, Prediction]:
        """What is known of these keys."""
        found = (self._connection.execute("SELECT said FROM labels WHERE text = ?", (key,)).fetchone() for key in keys)
        return {key: decode(row[0]) for key, row in zip(keys, found, strict=True) if row is not None}

    def keep(self, said: dict[bytes, Prediction]) -> None:
        """Add these, at once or not at all."""
        with self._connection:
            rows = ((key, encode(prediction)) for key, prediction in said.items())
            self._connection.executemany("INSERT OR REPLACE INTO labels VALUES (?, ?)", rows)

    def close(self) -> None:
        """Close the file."""
        self._connection.close()


class RememberingEngine:
    """Says what is kept, and asks the engine for the rest; each text of one day once.

    What a stack said without one of its members is not kept.
    """

    def __init__(self, engine: Engine, kept: KeptLabels) -> None:
        self._engine = engine
        self._kept = kept
        self.asked = 0

    @property
    def identity(self) -> StackIdentity:
        """The engine's."""
        return self._engine.identity

    @property
    def languages(self) -> tuple[str, ...]:
        """The engine's."""
        return self._engine.languages

    def predict(self, texts: Sequence[str], *, days: Sequence[date] | None = None) -> list[Prediction]:
        """One prediction for each text, in order; see `Engine`."""
        dates = [None] * len(texts) if days is None else days
        keys = [_key(text, day) for text, day in zip(texts, dates, strict=True)]
        said = self._kept.look_up(keys)
        lacking = {key: number for number, key in enumerate(keys) if key not in said}
        if lacking:
            places = list(lacking.values())
            asked_days = None if days is None else [days[place] for place in places]
            new = self._engine.predict([texts[place] for place in places], days=asked_days)
            said |= dict(zip(lacking, new, strict=True))
            self._kept.keep({key: said[key] for key in lacking if not said[key].degraded})
            self.asked += len(places)
        return [said[key] for key in keys]


def _key(text: str, day: date | None) -> bytes:
    return hashlib.blake2b(f"{day or ''}\0{text}".encode("utf-8", "surrogatepass"), digest_size=16).digest()


def encode(prediction: Prediction) -> bytes:
    """As it is kept."""
    return orjson.dumps(_PREDICTION.dump_python(prediction))


def decode(said: bytes) -> Prediction:
    """What was kept, to the last bit."""
    value: Any = orjson.loads(said)
    return _PREDICTION.validate_python(value)
