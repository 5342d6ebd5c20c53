"""The rule version: every number an alert depends on beside the data, and the hash that names them."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from hashlib import blake2b

import orjson

from schemas.events import KeyType
from worker.surge.exposure import FLAT, Profile
from worker.surge.keys import NEGATIVE, Target, Watchlist

ALGORITHM = 5
"""Raised whenever the same data and numbers would give other alerts."""


@dataclass(frozen=True, slots=True)
class Prior:
    """Gamma belief about the negative clusters a day of a key nobody has seen: mean and shape ``a0``.

    Shape 0.5 is the floor: a coefficient of variation of 1.4, as wide as the spread between real keys, so a prior that
    is wrong by an order of magnitude is soon outweighed by data instead of firing for ever.
    """

    mean_a_day: float
    a0: float = 0.5

    @property
    def b0(self) -> float:
        """Rate parameter, in days of exposure."""
        return self.a0 / self.mean_a_day


@dataclass(frozen=True, slots=True)
class Priors:
    """The prior of each key type.

    The errors are not alike: a mean that is too low makes false alarms of every busier key until data outweigh it (a
    baseline 20 % low costs a factor of eight in run length), one too high costs a new key a few more clusters. So the
    means are those of the busier keys of each type, and every prior weighs half a day of exposure or less.
    """

    entity: Prior = Prior(1.0)
    source: Prior = Prior(5.0)
    topic: Prior = Prior(5.0)
    market: Prior = Prior(50.0)
    watchlist: Prior = Prior(5.0)

    def of(self, key_type: KeyType) -> Prior:
        """The prior of a key type."""
        prior: Prior = getattr(self, key_type.name)
        return prior


@dataclass(frozen=True, slots=True)
class Profiles:
    """How the week usually goes for each key type."""

    entity: Profile = FLAT
    source: Profile = FLAT
    topic: Profile = FLAT
    market: Profile = FLAT
    watchlist: Profile = FLAT

    def of(self, key_type: KeyType) -> Profile:
        """The profile of a key type."""
        profile: Profile = getattr(self, key_type.name)
        return profile


@dataclass(frozen=True, slots=True)
class Primed:
    """What a primer knows of the keys that one stack met in an archive.

    Attributes:
        digest: The primer's; it stands for all that is here.
        stack_digest: Of the stack that labelled the archive.
        baselines: Decayed negatives, clusters and days of exposure of each key, at the archive's end.
    """

    digest: str
    stack_digest: str
    baselines: Mapping[str, tuple[float, float, float]] = field(repr=False, hash=False)


@dataclass(frozen=True, slots=True)
class Rules:
    """The settings of the detector; ``version`` names them in every alert.

    Attributes:
        targets: What is watched for.
        watchlists: Sets of entities and topics that count as one key.
        negatives_a_day: V, key-attributed negative clusters a day (a story on four keys counts four).
        budget_a_day: F, the false alerts a day the desk accepts.
        priors: What is believed of a key before there are data, by its type.
        profiles: How much each hour of the week counts, by key type.
        primed: Where the keys of one stack start from; there is then nothing to learn under it.
        half_life_days: Exposure after which data weigh half in a baseline.
        guard_hours: The latest hours that are not yet baseline.
        learning_days: Exposure under a stack before anything may fire.
        min_clusters: Distinct negative clusters an alert needs where their share is up.
        min_volume_clusters: The same where only their volume is.
        min_sources: Independent sources an alert needs, where the key has ``active_sources`` of them.
        active_sources: See ``min_sources``.
        active_days: How long a source counts as active after its last cluster.
        resolve_below: An alert ends when every W is below this share of its h.
        quiet_hours: An alert ends when no negative cluster has come for so much exposure.
        quiet_chance: And for longer than a gap of its surge lasts with this chance: a rare key's surge is slow.
        severity_ratios: W/h at its height from which an alert is a warning, and critical.
        model_changed_days: Exposure under a new stack in which alerts say so.
        max_frozen_hours: An alert ends after so long: as the new normal, if clusters came since it fired.
        max_run_days: Age at which a run ends, so that its baseline and evidence do not grow stale.
        forget_key_days: A key without a cluster for so long is forgotten.
        copy_window_hours: How long after its first mention a story's copies are known as such.
        copy_likeness: Share of words that a copy and its story have in common (Jaccard similarity).
        max_window_stories: Stories whose copies are known; more of them in a window make it shorter.
        max_silence_hours: Exposure stands still when the whole feed has been silent for longer.
        share_prior_mean: The market's negative share before there are data.
        share_prior_clusters: How many clusters a key's parent share weighs in its own.
    """

    targets: tuple[Target, ...] = (NEGATIVE,)
    watchlists: tuple[Watchlist, ...] = ()
    negatives_a_day: float = 20_000.0
    budget_a_day: float = 2.0
    priors: Priors = Priors()
    profiles: Profiles = Profiles()
    primed: Primed | None = None
    half_life_days: float = 14.0
    guard_hours: int = 6
    learning_days: float = 3.0
    min_clusters: int = 4
    min_volume_clusters: int = 8
    min_sources: int = 2
    active_sources: int = 3
    active_days: float = 14.0
    resolve_below: float = 0.4
    quiet_hours: float = 6.0
    quiet_chance: float = 5e-5
    severity_ratios: tuple[float, float] = (1.5, 2.5)
    model_changed_days: float = 14.0
    max_frozen_hours: float = 48.0
    max_run_days: float = 45.0
    forget_key_days: float = 90.0
    copy_window_hours: float = 24.0
    copy_likeness: float = 0.8
    max_window_stories: int = 200_000
    max_silence_hours: float = 6.0
    share_prior_mean: float = 0.25
    share_prior_clusters: float = 20.0

    def __post_init__(self) -> None:
        for budget_a_day, negatives_a_day in (self.stakes(None), *map(self.stakes, self.watchlists)):
            if not 0 < budget_a_day <= negatives_a_day:
                raise ValueError(f"a budget of {budget_a_day} false alerts a day out of {negatives_a_day} clusters")

    def stakes(self, watchlist: Watchlist | None) -> tuple[float, float]:
        """F and V of a watch-list that has its own, else those of all keys."""
        if watchlist is None or watchlist.budget_a_day is None:
            return self.budget_a_day, self.negatives_a_day
        return watchlist.budget_a_day, watchlist.negatives_a_day or self.negatives_a_day

    @property
    def version(self) -> str:
        """A short hash of the algorithm and of every number here."""
        numbers = asdict(replace(self, primed=None)) | {"primed": self.primed and self.primed.digest}
        text = orjson.dumps([ALGORITHM, numbers], default=list, option=orjson.OPT_SORT_KEYS)
        return blake2b(text, digest_size=8).hexdigest()
