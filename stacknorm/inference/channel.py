"""Members joined before the answer: one trained head on what several members read of a text.

Joining what encoders read, instead of what they say, is how Akbik et al. 2019 (flair) and Wang et al. 2021 (ACE) stack
embeddings. To the pool a channel is one more member.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from stacknorm.bundle import HEADS_FILE, Bundle, ChannelSpec
from stacknorm.encoder.member import FEATURES
from stacknorm.encoder.trunk import load_tensors
from stacknorm.errors import BundleError
from stacknorm.inference.readings import Places, Readings
from stacknorm.pooling.pool import Probabilities, softmax


@dataclass(frozen=True, slots=True)
class Channel:
    """A loaded channel; numpy alone, for its head is small."""

    spec: ChannelSpec
    weights: Mapping[str, Probabilities]
    """Task -> [head labels, features]."""
    biases: Mapping[str, Probabilities]
    """Task -> [head labels]."""
    multi: frozenset[str]
    """Tasks whose labels apply each by itself."""

    def listen(self, readings: Readings, texts: Places) -> None:
        """Add what the channel says of those texts whose features all its members have given."""
        features = readings.of(FEATURES)
        if not features.keys() >= set(self.spec.members) or not len(texts):
            return
        joined = join([features[name][texts] for name in self.spec.members], self.spec.combine)
        known = ~np.isnan(joined).any(axis=1)
        readings.ask([self.spec.name], texts[known])
        for task, weight in self.weights.items():
            logits = joined[known] @ weight.T + self.biases[task]
            said = 1 / (1 + np.exp(-logits)) if task in self.multi else softmax(logits)
            readings.record(task, self.spec.name, texts[known], said, of=readings.texts)


def join(features: Sequence[Probabilities], combine: str) -> Probabilities:
    """Features of several members, each [n, width], end to end or added; each is first scaled to unit length.

    Without the scaling the member with the largest states would drown the others.
    """
    unit = [given / np.linalg.norm(given, axis=1, keepdims=True).clip(min=1e-12) for given in features]
    return np.concatenate(unit, axis=1) if combine == "concat" else np.sum(unit, axis=0)


def load_channels(bundle: Bundle) -> tuple[Channel, ...]:
    """Load the channels of a bundle.

    Raises:
        BundleError: a head's file is malformed or does not fit its labels.
    """
    tasks = bundle.manifest.tasks
    multi = frozenset(task for task, spec in tasks.items() if spec.kind == "multi")
    return tuple(_load(bundle, spec, multi) for spec in bundle.manifest.channels)


def _load(bundle: Bundle, spec: ChannelSpec, multi: frozenset[str]) -> Channel:
    path = bundle.root / spec.name / HEADS_FILE
    tensors = {name: tensor.double().numpy() for name, tensor in load_tensors(path).items()}
    expected = {f"{task}.{part}" for task in spec.heads for part in ("weight", "bias")}
    if tensors.keys() != expected:
        raise BundleError(f"{path} holds {sorted(tensors)}, the heads of channel {spec.name} are {sorted(expected)}")
    for task, head in spec.heads.items():
        if tensors[f"{task}.weight"].shape[0] != len(head.labels):
            raise BundleError(f"{path} does not fit the {len(head.labels)} labels of {task} of channel {spec.name}")
    return Channel(
        spec,
        {task: tensors[f"{task}.weight"] for task in spec.heads},
        {task: tensors[f"{task}.bias"] for task in spec.heads},
        multi,
    )
