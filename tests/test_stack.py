from pathlib import Path

import numpy as np
import pytest
import torch

from stacknorm.bundle import Bundle, load_bundle
from stacknorm.encoder.member import load_member, lower_states
from stacknorm.encoder.tokens import pad
from stacknorm.encoder.trunk import ARCHITECTURES, load_encoder, take_lower
from stacknorm.engine import Engine
from stacknorm.errors import BundleError
from stacknorm.inference.deadline import wait_forever
from stacknorm.inference.stack import load_stack
from tiny_bases import member_spec, native_spec, write_base, write_stack

TEXTS = ["acme profit falls", "bank", "oil surges up of the down gold", "acme bank cuts loss"]


def build(root: Path, kind: str = "bert", layers: tuple[tuple[int, ...], ...] = ((2, 3), (3,), (2, 3))) -> Bundle:
    base = write_base(root / "base", kind)
    members = [member_spec(root / "bundle", f"m{n}", base, layers=which) for n, which in enumerate(layers)]
    return load_bundle(write_stack(root / "bundle", members))


@pytest.mark.parametrize("kind", ARCHITECTURES)
def test_members_on_shared_lower_layers_say_what_they_say_apart(kind: str, tmp_path: Path) -> None:
    bundle = build(tmp_path, kind)
    (reader,) = load_stack(bundle)
    tokens = [encoding.ids for encoding in reader.tokenizer.encode_batch(TEXTS)]
    batch = pad(range(len(TEXTS)), tokens, reader.pad_id, 12)
    together = reader.read(batch, None, reader.names, wait_forever).logits
    with torch.inference_mode():
        for spec in bundle.manifest.members:
            model = load_encoder(bundle.base_directory(spec))
            alone = load_member(spec, bundle.root / spec.name, model, 0)
            apart = alone(lower_states(take_lower(model, 0), batch.ids, batch.mask), batch.mask)
            assert torch.allclose(together[spec.name]["sentiment"], apart["sentiment"], atol=1e-6)


@pytest.mark.parametrize(
    ("layers", "shared"), [(((2, 3), (3,)), 2), (((3,), (3,)), 3), (((0, 3), (2,)), 0), (((), ()), 4)]
)
def test_what_is_shared_is_found_from_the_adapters(
    layers: tuple[tuple[int, ...], ...], shared: int, tmp_path: Path
) -> None:
    (reader,) = load_stack(build(tmp_path, layers=layers))
    (group,) = reader.groups
    assert len(group.lower.encoder.layer) == shared


def test_shared_layers_run_once_for_a_batch_and_texts_are_tokenised_once(tmp_path: Path) -> None:
    (reader,) = load_stack(build(tmp_path))
    (group,) = reader.groups
    calls: list[int] = []
    group.lower.encoder.layer[0].register_forward_hook(lambda *_: calls.append(0))
    reader.read(pad([0], [[2, 5, 3]], reader.pad_id, 4), None, reader.names, wait_forever)
    assert len(calls) == 1


def test_equal_files_in_two_places_are_one_base_and_other_files_another(tmp_path: Path) -> None:
    bases = [write_base(tmp_path / "one"), write_base(tmp_path / "copy"), write_base(tmp_path / "other", seed=9)]
    members = [member_spec(tmp_path / "bundle", f"m{n}", base) for n, base in enumerate(bases)]
    (reader,) = load_stack(load_bundle(write_stack(tmp_path / "bundle", members)))
    assert [list(group.members) for group in reader.groups] == [["m0", "m1"], ["m2"]]


def test_checkpoints_with_other_label_orders_and_their_own_heads_stand_beside_adapters(tmp_path: Path) -> None:
    base = write_base(tmp_path / "base")
    finished = write_base(tmp_path / "native", "roberta", labels=3)
    orders = (("negative", "neutral", "positive"), ("bullish", "bearish", "neutral"))
    probabilities = []
    for number, order in enumerate(orders):
        bundle = tmp_path / f"bundle{number}"
        members = [member_spec(bundle, "adapted", base), native_spec("native", finished, order)]
        engine = Engine.load(write_stack(bundle, members), precision="fp32")
        probabilities.append(engine.member_probabilities(TEXTS)["sentiment"])
    plain, permuted = probabilities
    assert np.allclose(plain[0], permuted[0])
    assert np.allclose(plain[1], permuted[1][:, [2, 0, 1]])


def test_a_checkpoint_with_another_number_of_labels_is_refused(tmp_path: Path) -> None:
    finished = write_base(tmp_path / "native", labels=2)
    bundle = write_stack(tmp_path / "bundle", [native_spec("native", finished, ("neg", "neu", "pos"))])
    with pytest.raises(BundleError, match="names 3 labels, its checkpoint has 2"):
        Engine.load(bundle)


def test_a_token_limit_beyond_the_positions_of_a_base_is_refused(tmp_path: Path) -> None:
    base = write_base(tmp_path / "base")
    bundle = write_stack(tmp_path / "bundle", [member_spec(tmp_path / "bundle", "one", base)], max_tokens=65)
    with pytest.raises(BundleError, match="max_tokens 65 exceeds the 64 positions"):
        Engine.load(bundle)
