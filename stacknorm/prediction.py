"""What a stack says about a text: plain frozen values."""

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class TaskPrediction:
    """One task's answer, pooled and calibrated."""

    label: str
    """The likeliest label."""
    probabilities: Mapping[str, float]
    """For every label of the task, in the order of its label space. Of a `single` task they sum to 1; of a `multi`
    task each says by itself whether its label applies."""
    entropy: float
    """Of `probabilities`, in nats."""
    disagreement: float
    """Mutual information between the label and which member speaks, in nats; 0 when all members agree."""
    margin: float
    """Probability of the likeliest label less that of the second."""
    conformal_set: tuple[str, ...] = ()
    """Labels that cannot be ruled out at the coverage the bundle was fitted for; empty where it has no conformal
    thresholds. One label: sure; several: the stack abstains between them."""


@dataclass(frozen=True, slots=True)
class EntityPrediction:
    """How the text speaks of one entity in it."""

    scheme: str
    """`symbol`, or what kind of thing it is; names are unique within a scheme."""
    entity: str
    """Its symbol or name in the table of aliases."""
    start: int
    """First character of the mention in the text as given; `end` is one past its last."""
    end: int
    tasks: Mapping[str, TaskPrediction]


@dataclass(frozen=True, slots=True)
class Span:
    """A labelled stretch of the text as given, in characters: `text[start:end]`."""

    start: int
    end: int
    label: str
    probability: float
    """Mean over its characters of the pooled probability of `label`."""


@dataclass(frozen=True, slots=True)
class Prediction:
    """All tasks' answers for one text."""

    tasks: Mapping[str, TaskPrediction]
    entities: tuple[EntityPrediction, ...] = ()
    spans: Mapping[str, tuple[Span, ...]] = field(default_factory=dict)
    dropped: tuple[str, ...] = ()
    """Members that raised, were late or gave no number, and were left out of this prediction."""
    stage: int = 1
    """The stage of a cascade that answered, counted from 1."""
    abstained_because: str | None = None
    """Why no label is given; `tasks` is empty then."""

    @property
    def degraded(self) -> bool:
        """Whether a member is missing from this prediction."""
        return bool(self.dropped)


@dataclass(frozen=True, slots=True)
class StackIdentity:
    """Which stack made a prediction."""

    name: str
    digest: str
    """sha256 of the canonical manifest, which holds the digest of every file."""
