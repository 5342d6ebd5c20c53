import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from stacknorm.encoder.member import lower_states
from stacknorm.encoder.trunk import (
    ARCHITECTURES,
    depth_of,
    load_classifier,
    load_encoder,
    take_lower,
    take_upper,
    token_limit,
)
from stacknorm.errors import BundleError
from tiny_bases import LAYERS, write_base

VARIANTS: dict[str, tuple[str, dict[str, Any]]] = {kind: (kind, {}) for kind in ARCHITECTURES} | {
    "electra, one width": ("electra", {"embedding_size": 16}),
    "deberta-v2, with convolution": ("deberta-v2", {"conv_kernel_size": 3, "conv_act": "gelu", "embedding_size": 8}),
    "deberta-v2, own position maps": ("deberta-v2", {"share_att_key": False, "position_biased_input": True}),
    "deberta-v2, absolute positions": ("deberta-v2", {"relative_attention": False, "position_biased_input": True}),
}
"""Every family as it is published, and what its configuration can switch on in the way of a cut."""
every_variant = pytest.mark.parametrize(("kind", "changes"), VARIANTS.values(), ids=VARIANTS.keys())


def edit_config(root: Path, **changes: object) -> None:
    path = root / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def padded_batch(pad_id: int) -> tuple[Tensor, Tensor]:
    """Three rows of 12, 5 and 2 tokens, and one empty row as `pad` makes them."""
    ids = torch.full((4, 12), pad_id)
    mask = torch.zeros_like(ids)
    mask[3, 0] = 1
    random = torch.Generator().manual_seed(5)
    for row, length in enumerate((12, 5, 2)):
        ids[row, :length] = torch.cat(
            [torch.tensor([2]), torch.randint(4, 22, (length - 2,), generator=random), torch.tensor([3])]
        )
        mask[row, :length] = 1
    return ids, mask


def error(ours: Tensor, theirs: Tensor, mask: Tensor) -> float:
    """Largest difference where a token is."""
    return float((ours - theirs)[mask.bool()].abs().max())


@every_variant
def test_every_allowed_architecture_loads_as_transformers_itself_loads_it(
    kind: str, changes: dict[str, Any], tmp_path: Path
) -> None:
    root = write_base(tmp_path, kind, **changes)
    ids, mask = padded_batch(load_encoder(root).config.pad_token_id)
    plain = ARCHITECTURES[kind].encoder.from_pretrained(root).train(mode=False)
    with torch.inference_mode():
        ours = load_encoder(root)(input_ids=ids, attention_mask=mask).last_hidden_state
        theirs = plain(input_ids=ids, attention_mask=mask).last_hidden_state
    assert torch.equal(ours, theirs)


@every_variant
def test_lower_and_upper_layers_together_are_the_whole_encoder_wherever_it_is_cut(
    kind: str, changes: dict[str, Any], tmp_path: Path
) -> None:
    root = write_base(tmp_path, kind, **changes)
    model = load_encoder(root)
    plain = ARCHITECTURES[kind].encoder.from_pretrained(root).train(mode=False)
    ids, mask = padded_batch(model.config.pad_token_id)
    with torch.inference_mode():
        whole = plain(input_ids=ids, attention_mask=mask).last_hidden_state
        for depth in range(LAYERS + 1):
            hidden = lower_states(take_lower(model, depth), ids, mask)
            cut = take_upper(model, depth)(inputs_embeds=hidden, attention_mask=mask).last_hidden_state
            assert error(cut, whole, mask) < 1e-5
    assert depth_of(model) == LAYERS


@pytest.mark.parametrize("task", ["single", "spans"])
@every_variant
def test_lower_and_upper_layers_with_the_checkpoints_own_head_are_the_whole_classifier(
    kind: str, changes: dict[str, Any], task: Any, tmp_path: Path
) -> None:
    root = write_base(tmp_path, kind, labels=5, task=task, **changes)
    architecture = ARCHITECTURES[kind]
    plain = (
        (architecture.tagger if task == "spans" else architecture.classifier).from_pretrained(root).train(mode=False)
    )
    model = load_classifier(root, task)
    ids, mask = padded_batch(model.config.pad_token_id)
    with torch.inference_mode():
        whole = plain(input_ids=ids, attention_mask=mask).logits
        for depth in (0, 2, LAYERS):
            hidden = lower_states(take_lower(model, depth), ids, mask)
            cut = take_upper(model, depth)(inputs_embeds=hidden, attention_mask=mask).logits
            assert error(cut, whole, mask if task == "spans" else torch.ones(4)) < 1e-5
    assert whole.shape == ((4, 12, 5) if task == "spans" else (4, 5))


@every_variant
def test_what_pads_a_row_changes_nothing_in_it(kind: str, changes: dict[str, Any], tmp_path: Path) -> None:
    model = load_encoder(write_base(tmp_path, kind, **changes))
    ids, mask = padded_batch(model.config.pad_token_id)
    lower, upper = take_lower(model, 2), take_upper(model, 2)
    with torch.inference_mode():
        padded = upper(inputs_embeds=lower_states(lower, ids, mask), attention_mask=mask).last_hidden_state[1, :5]
        hidden = lower_states(lower, ids[1:2, :5], mask[1:2, :5])
        alone = upper(inputs_embeds=hidden, attention_mask=mask[1:2, :5]).last_hidden_state[0]
    assert torch.allclose(padded, alone, atol=1e-5)


@pytest.mark.parametrize("kind", ARCHITECTURES)
def test_a_text_may_be_as_long_as_a_base_has_positions_and_no_longer(kind: str, tmp_path: Path) -> None:
    model = load_encoder(write_base(tmp_path, kind))
    counted_from_padding = {"camembert", "mpnet", "roberta", "xlm-roberta"}
    assert token_limit(model) == (62 if kind in counted_from_padding else 64)
    ids = torch.full((1, token_limit(model)), 5)
    assert torch.isfinite(lower_states(take_lower(model, 1), ids, torch.ones_like(ids))).all()


def test_an_architecture_outside_the_list_and_code_of_its_own_are_refused(tmp_path: Path) -> None:
    root = write_base(tmp_path)
    edit_config(root, auto_map={"AutoModel": "evil.Model"})
    with pytest.raises(BundleError, match="auto_map"):
        load_encoder(root)
    (root / "config.json").write_text(json.dumps({"model_type": "gpt2"}))
    with pytest.raises(BundleError, match="architecture 'gpt2' is not allowed; allowed are bert, camembert"):
        load_encoder(root)


def test_weights_that_are_not_finite_are_refused_by_tensor(tmp_path: Path) -> None:
    root = write_base(tmp_path)
    tensors = load_file(root / "model.safetensors")
    tensors["encoder.layer.1.output.dense.bias"][3] = float("nan")
    save_file(tensors, root / "model.safetensors")
    with pytest.raises(BundleError, match=r"encoder\.layer\.1\.output\.dense\.bias is not finite"):
        load_encoder(root)


def test_weights_that_do_not_fit_the_configuration_are_refused(tmp_path: Path) -> None:
    root = write_base(tmp_path)
    edit_config(root, num_hidden_layers=5)
    with pytest.raises(BundleError, match=r"missing \['encoder\.layer\.4"):
        load_encoder(root)


def test_a_tensor_nobody_knows_is_refused(tmp_path: Path) -> None:
    root = write_base(tmp_path)
    save_file(load_file(root / "model.safetensors") | {"encoder.extra": torch.ones(1)}, root / "model.safetensors")
    with pytest.raises(BundleError, match=r"unexpected \['encoder\.extra'\]"):
        load_encoder(root)


@pytest.mark.parametrize("kind", ARCHITECTURES)
def test_the_encoder_of_a_whole_classifier_is_taken_without_its_head(kind: str, tmp_path: Path) -> None:
    root = write_base(tmp_path, kind, labels=3)
    ids, mask = padded_batch(load_encoder(root).config.pad_token_id)
    inside = load_classifier(root).base_model
    with torch.inference_mode():
        ours = load_encoder(root)(input_ids=ids, attention_mask=mask).last_hidden_state
        theirs = inside(input_ids=ids, attention_mask=mask).last_hidden_state
    assert torch.equal(ours, theirs)


def test_a_tagger_may_carry_the_pooler_of_its_pretraining_and_old_names_of_tensors(tmp_path: Path) -> None:
    root = write_base(tmp_path, labels=3, task="spans")
    tensors = load_file(root / "model.safetensors")
    old = {name.replace("LayerNorm.weight", "LayerNorm.gamma"): tensor for name, tensor in tensors.items()}
    extra = {"bert.pooler.dense.weight": torch.ones(16, 16), "bert.embeddings.position_ids": torch.arange(64)[None]}
    save_file(old | extra, root / "model.safetensors")
    loaded = load_classifier(root, "spans").state_dict()
    assert all(torch.equal(loaded[name], tensor) for name, tensor in tensors.items())


@pytest.mark.parametrize(
    ("written", "wanted", "message"),
    [
        ("spans", "single", "describes a BertForTokenClassification; a task of kind single needs a BertForSequence"),
        ("single", "spans", "describes a BertForSequenceClassification; a task of kind spans needs a BertForToken"),
        ("multi", "single", "a head for multi_label_classification cannot serve a task of kind single"),
    ],
)
def test_a_head_made_for_something_else_is_refused(written: str, wanted: Any, message: str, tmp_path: Path) -> None:
    root = write_base(tmp_path, labels=3, task=written)
    with pytest.raises(BundleError, match=message):
        load_classifier(root, wanted)
