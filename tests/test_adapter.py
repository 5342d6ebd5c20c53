import json
from pathlib import Path

import pytest
import torch
from peft import PeftModel
from safetensors.torch import save_file

from stacknorm.encoder.adapter import lowest_adapted_layer, merge_adapter
from stacknorm.encoder.trunk import ARCHITECTURES, load_encoder, share
from stacknorm.errors import BundleError
from tiny_bases import WIDTH, write_adapter, write_base


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
