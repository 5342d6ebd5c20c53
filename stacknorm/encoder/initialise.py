"""First weights by name: an encoder from a configuration alone, and heads, whose bias may be the classes' priors."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from transformers import PreTrainedConfig, PreTrainedModel

from stacknorm.bundle import TaskKind
from stacknorm.encoder.trunk import build_encoder

_HEAD_SPREAD = 0.02
"""Standard deviation of a head's first weights, as BERT's own (Devlin et al. 2019): no class is preferred yet."""


def init_encoder(config: PreTrainedConfig, seed: int) -> PreTrainedModel:
    """A bare encoder with random weights as its family draws them: fp32, on the processor, in eval mode, frozen.

    The same configuration and seed give the same weights; the caller's random numbers are left as they are.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = build_encoder(config)
    model.train(mode=False).requires_grad_(requires_grad=False)
    return model


def init_head(
    kind: TaskKind, inputs: int, outputs: int, *, seed: int, priors: Sequence[float] | None = None
) -> nn.Linear:
    """A trainable head with small random weights.

    Args:
        kind: of its task, which says how its logits are read.
        inputs: see `head_width`.
        outputs: its labels.
        seed: of its weights; the caller's random numbers are left as they are.
        priors: the share of each label among training rows, [outputs]. The head then starts by saying just that
            (Lin et al. 2017, Focal loss, section 3.3); without them it starts by preferring none.

    Raises:
        ValueError: priors that are no shares, or not one for each output.
    """
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        head = nn.Linear(inputs, outputs)
        head.weight.normal_(0, _HEAD_SPREAD, generator=torch.Generator().manual_seed(seed))
        head.bias.copy_(torch.zeros(outputs) if priors is None else prior_bias(kind, priors, outputs))
    return head


def prior_bias(kind: TaskKind, priors: Sequence[float], outputs: int) -> Tensor:
    """Logits that say the priors: by sigmoid where labels stand by themselves, else by softmax; [outputs]."""
    shares = torch.tensor(priors, dtype=torch.float64)
    if len(shares) != outputs or not bool(((shares > 0) & (shares < 1)).all()):
        raise ValueError(f"priors must be {outputs} shares between 0 and 1, not {list(priors)}")
    return (shares.logit() if kind == "multi" else (shares / shares.sum()).log()).float()
