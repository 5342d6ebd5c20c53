import math
from pathlib import Path

import numpy as np
import pytest
import torch

from stacknorm.bundle import load_bundle
from stacknorm.encoder.trunk import load_encoder
from stacknorm.training.corpus import Example, Mark
from stacknorm.training.recipe import MemberRecipe
from stacknorm.training.targets import (
    IGNORED,
    Objective,
    Target,
    answer_units,
    encode_target,
    head_labels,
    mentions_of,
    tokens_of,
)
from stacknorm.training.train import train_bundle
from stacknorm.training.trainee import HeadPlan, make_trainee
from tiny_bases import write_base
from toy_training import FATES, FIRMS, HEAD, MOOD, ONE, THEMES, quiet, write_toys

TEXT = "Acme Bank falls"
OFFSETS = [(0, 0), (0, 2), (2, 4), (5, 9), (10, 15), (0, 0)]
"""[CLS] Ac ##me Bank falls [SEP]"""


def test_one_member_learns_tasks_of_every_kind_together(tmp_path: Path) -> None:
    write_toys(tmp_path)
    head = HEAD.replace("epochs = 2", "epochs = 10").replace("rank = 4", "rank = 8")
    (tmp_path / "toy.toml").write_text(head + MOOD + THEMES + FIRMS + FATES + ONE)
    train_bundle(tmp_path / "toy.toml", tmp_path / "data", tmp_path / "out", quiet())
    manifest = load_bundle(tmp_path / "out").manifest
    assert {task: spec.kind for task, spec in manifest.tasks.items()} == {
        "sentiment": "single",
        "themes": "multi",
        "firms": "spans",
        "fates": "entity",
    }
    accuracies = {task: scores["one"]["accuracy"].value for task, scores in manifest.scores.items()}
    assert all(accuracy > 0.75 for accuracy in accuracies.values()), accuracies
    heads = manifest.members[0].heads
    assert heads["firms"].labels == ("O", "B-negative", "I-negative", "B-positive", "I-positive")
    assert (heads["firms"].pooling, heads["fates"].pooling) == ("tokens", "entity")


def test_spans_become_tags_of_tokens_and_special_tokens_are_ignored() -> None:
    example = Example(TEXT, "firms", marks=(Mark(0, 9, 1),))
    assert encode_target(example, "spans", OFFSETS).labels == (IGNORED, 3, 4, 4, 0, IGNORED)
    assert head_labels("spans", ["bad", "good"])[3:] == ("B-good", "I-good")


def test_a_mention_is_read_at_its_tokens_or_where_the_text_was_cut_at_all_of_them() -> None:
    assert tokens_of(0, 4, OFFSETS) == (1, 2)
    assert tokens_of(5, 9, OFFSETS) == (3,)
    assert tokens_of(200, 204, OFFSETS) == (0, 1, 2, 3, 4, 5)


def test_mentions_of_a_batch_keep_their_rows_and_order() -> None:
    targets = [Target((0,)), Target((1, 0), ((1, 2), (4,))), Target((1,), ((3,),))]
    mentions = mentions_of(targets, 6)
    assert mentions is not None
    assert mentions.rows.tolist() == [1, 1, 2]
    assert mentions.mask.tolist() == [[0, 1, 1, 0, 0, 0], [0, 0, 0, 0, 1, 0], [0, 0, 0, 1, 0, 0]]
    assert mentions_of(targets[:1], 6) is None


def test_the_loss_of_many_labels_is_that_of_each_by_itself() -> None:
    logits = torch.tensor([[0.0, 2.0], [1.0, -1.0]])
    objective = Objective("multi", torch.ones(2), 0.0, 1.0)
    by_hand = math.log(2) + math.log1p(math.exp(-2)) + math.log1p(math.exp(1)) + math.log1p(math.exp(-1))
    assert objective.loss(logits, [Target((1,)), Target(())]).item() == pytest.approx(by_hand)


def test_the_loss_of_spans_is_the_mean_over_a_texts_tokens_without_the_ignored() -> None:
    logits = torch.zeros(2, 4, 3)
    short, long = Target((IGNORED, 1, IGNORED)), Target((IGNORED, 0, 2, 1))
    objective = Objective("spans", torch.ones(3), 0.0, 2.0)
    assert objective.loss(logits, [short, long]).item() == pytest.approx(2 * 2 * math.log(3))


def test_the_loss_of_one_label_is_torchs_own() -> None:
    logits, weights = torch.randn(5, 3, generator=torch.Generator().manual_seed(0)), torch.tensor([0.5, 1.0, 2.0])
    labels = [0, 2, 1, 2, 0]
    expected = torch.nn.CrossEntropyLoss(weights, reduction="sum", label_smoothing=0.1)(logits, torch.tensor(labels))
    found = Objective("single", weights, 0.1, 1.0).loss(logits, [Target((label,)) for label in labels])
    assert torch.equal(found, expected)


def test_what_is_said_of_tokens_is_told_of_words_and_a_word_beyond_the_cut_is_unknown() -> None:
    example = Example(TEXT + " today", "firms")
    logits = torch.full((1, 6, 3), -20.0)
    for token, tag in enumerate((0, 1, 2, 2, 0, 0)):
        logits[0, token, tag] = 20.0
    said = answer_units("spans", logits, example, OFFSETS).numpy()
    assert np.allclose(said[:3], [[0, 1, 0], [0, 0, 1], [1, 0, 0]], atol=1e-4)
    assert np.allclose(said[3], 1 / 3)


def member(**fields: object) -> MemberRecipe:
    return MemberRecipe.model_validate({"name": "one", "seed": 1, "base": "base", "top_layers": 2} | fields)


def test_random_layers_come_from_their_seed_and_only_where_layers_are_trained(tmp_path: Path) -> None:
    base = load_encoder(write_base(tmp_path))
    first, again, other = (
        make_trainee(base, member(mode="full", init=f"random({seed})"), {}, "fp32").encoder.state_dict()
        for seed in (1, 1, 2)
    )
    kept = base.state_dict()
    for name, tensor in first.items():
        assert torch.equal(tensor, again[name])
        # Biases and norms start the same whatever the seed.
        is_top = name.startswith(("encoder.layer.2", "encoder.layer.3"))
        is_random = is_top and name.endswith("weight") and "LayerNorm" not in name
        assert torch.equal(tensor, other[name]) or is_random, name
        assert torch.equal(tensor, kept[name]) or is_top, name


def test_a_head_starts_at_the_priors_it_is_given(tmp_path: Path) -> None:
    base = load_encoder(write_base(tmp_path))
    plan = HeadPlan("single", ("a", "b"), "mean", (0.9, 0.1))
    bias = make_trainee(base, member(), {"mood": plan}, "fp32").model.heads.state_dict()["mood.1.bias"]
    assert bias.softmax(dim=0).tolist() == pytest.approx([0.9, 0.1])


def test_frozen_linear_maps_are_kept_in_bf16_beside_adapters_and_nothing_else_is(tmp_path: Path) -> None:
    base = load_encoder(write_base(tmp_path))
    halved = make_trainee(base, member(), {}, "bf16")
    assert {weight.dtype for weight in halved.weights().values()} == {torch.float32}
    assert {w.dtype for n, w in halved.model.named_parameters() if "base_layer" in n} == {torch.bfloat16}
    whole = make_trainee(base, member(mode="full"), {}, "bf16")
    assert {weight.dtype for weight in whole.encoder.parameters()} == {torch.float32}
    assert {weight.dtype for weight in base.parameters()} == {torch.float32}
