"""The primer: a file of what `backfill` learned from an archive, from which a detector starts instead of learning."""

import gzip
import zlib
from dataclasses import replace
from datetime import datetime
from hashlib import blake2b
from pathlib import Path
from typing import Annotated, Literal

import orjson
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from schemas.events import KeyType, StackRef
from worker.errors import Misconfigured
from worker.surge.exposure import Profile
from worker.surge.rules import Primed, Prior, Rules

FAR = 2.0
"""A setting that is off by more than this factor is worth a word."""

Amount = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Week = tuple[Annotated[int, Field(ge=1)], ...]


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class ArchiveSpan(_Part):
    """What the primer was learned from; ``days`` are of exposure."""

    first: datetime
    last: datetime
    days: Positive
    stories: int
    keyed_negatives: int


class Volume(_Part):
    """V as the archive has it: negative stories a day, each counted once for each of its keys, and a 95 % interval."""

    proposed: Amount
    low: Amount
    high: Amount


class KeyPrior(_Part):
    """See `Prior`."""

    mean_a_day: Positive
    a0: Positive


class Primer(_Part):
    """The file. Profiles are thousandths for each hour of the week, Monday 0:00 UTC first.

    Baselines are decayed negatives, clusters and days of exposure of each key, at the archive's end.
    """

    version: Literal[1] = 1
    stack: StackRef
    archive: ArchiveSpan
    negatives_a_day: Volume
    priors: dict[KeyType, KeyPrior]
    profiles: dict[KeyType, Week]
    baselines: dict[str, tuple[Amount, Amount, Amount]]

    @field_validator("profiles")
    @classmethod
    def _are_profiles(cls, profiles: dict[KeyType, Week]) -> dict[KeyType, Week]:
        for weights in profiles.values():
            Profile(weights)
        return profiles

    def encode(self) -> bytes:
        """As it stands in a file: the same primer, the same bytes."""
        return orjson.dumps(self.model_dump(mode="json"), option=orjson.OPT_SORT_KEYS | orjson.OPT_APPEND_NEWLINE)

    @property
    def digest(self) -> str:
        """Names everything in it."""
        return blake2b(self.encode(), digest_size=16).hexdigest()

    def apply(self, rules: Rules) -> Rules:
        """The rules with what was learned."""
        priors = {key_type.name: Prior(prior.mean_a_day, prior.a0) for key_type, prior in self.priors.items()}
        profiles = {key_type.name: Profile(weights) for key_type, weights in self.profiles.items()}
        return replace(
            rules,
            priors=replace(rules.priors, **priors),
            profiles=replace(rules.profiles, **profiles),
            primed=Primed(self.digest, self.stack.digest, self.baselines),
        )

    def judge_volume(self, negatives_a_day: float) -> str | None:
        """What to say of a V that is far from the archive's; None where it is near."""
        proposed = self.negatives_a_day.proposed
        if proposed <= 0 or 1 / FAR <= negatives_a_day / proposed <= FAR:
            return None
        wrong = "too many false alerts" if negatives_a_day < proposed else "alerts come later than they need to"
        return (
            f"surge.negatives_a_day is {negatives_a_day:,.0f}, and the archive has {proposed:,.0f} a day "
            f"({self.negatives_a_day.low:,.0f} to {self.negatives_a_day.high:,.0f}): {wrong}; "
            f"set surge.negatives_a_day = {proposed:.0f}"
        )


def write_primer(primer: Primer, path: Path) -> None:
    """Write the file, compressed where its name ends with `.gz`; the same primer gives the same bytes."""
    content = primer.encode()
    path.write_bytes(gzip.compress(content, mtime=0) if path.suffix == ".gz" else content)


def read_primer(path: Path) -> Primer:
    """Read the file.

    Raises:
        Misconfigured: it cannot be read, or is no primer of this version; names the file and what is wrong.
    """
    remedy = "`stacknorm-worker backfill` makes one"
    try:
        content = path.read_bytes()
        return Primer.model_validate_json(gzip.decompress(content) if path.suffix == ".gz" else content)
    except (OSError, EOFError, zlib.error) as error:
        raise Misconfigured(f"primer {path} cannot be read: {error}; {remedy}") from error
    except ValidationError as error:
        problem = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(map(str, problem["loc"])) or "the file"
        raise Misconfigured(f"primer {path} is no primer of version 1: {where}: {problem['msg']}; {remedy}") from error
