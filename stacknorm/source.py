"""Where a base transformer lies (a package, a directory, the hub), and proof that its files are the ones meant."""

import hashlib
import importlib.util
import re
from collections.abc import Iterable, Mapping
from pathlib import Path

from stacknorm.errors import BundleError

CONFIG_FILE, TOKENIZER_FILE, WEIGHTS_FILE = "config.json", "tokenizer.json", "model.safetensors"
BASE_FILES = (CONFIG_FILE, TOKENIZER_FILE, WEIGHTS_FILE)
"""All that is read of a base; whatever else lies beside them is never opened."""

_REVISION = re.compile(r"[0-9a-f]{40}")


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
        if (found := digest_file(path)) != digest:
            raise BundleError(
                f"{path} is not the file this bundle was made with: expected sha256 {digest}, found {found}"
            )


def _existing(root: Path, name: str) -> Path:
    path = root / name
    if path.is_file():
        return path
    pickles = sorted(p.name for p in root.glob("*.bin")) if name == WEIGHTS_FILE else []
    if pickles:
        raise BundleError(f"{root / pickles[0]} is a pickle and can run code: only {WEIGHTS_FILE} is read")
    raise BundleError(f"{path} is missing")


def resolve_base(reference: str, beside: Path) -> Path:
    """Find the directory that a base reference names.

    Args:
        reference: `package:NAME/folder` (an installed package, which is located, never imported),
            `hub:OWNER/NAME@REVISION` (a full commit hash), or a directory, absolute or relative to `beside`.
        beside: the directory of the bundle or training config that holds the reference.

    Raises:
        BundleError: there is no such place, or a hub reference is not pinned.
    """
    kind, _, rest = reference.partition(":")
    if kind == "package" and rest:
        return _package_directory(rest)
    if kind == "hub" and rest:
        return _hub_directory(rest)
    path = beside / reference
    if not path.is_dir():
        raise BundleError(f"base {reference!r}: {path} is not a directory")
    return path


def _package_directory(location: str) -> Path:
    package, _, folder = location.partition("/")
    spec = importlib.util.find_spec(package) if package.isidentifier() else None
    if spec is None or not spec.submodule_search_locations:
        raise BundleError(f"base 'package:{location}': the package {package} is not installed")
    for root in spec.submodule_search_locations:
        if (path := Path(root, folder)).is_dir():
            return path
    raise BundleError(f"base 'package:{location}': {package} is installed but has no folder {folder!r}")


def _hub_directory(location: str) -> Path:
    repository, _, revision = location.partition("@")
    if not _REVISION.fullmatch(revision):
        raise BundleError(
            f"base 'hub:{location}': pin the revision, hub:{repository}@<40 hexadecimal digits>; a branch can change"
        )
    # Slow to import, and most bundles never ask the hub.
    from huggingface_hub import snapshot_download  # noqa: PLC0415
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError  # noqa: PLC0415

    try:
        return Path(snapshot_download(repository, revision=revision, allow_patterns=list(BASE_FILES)))
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError) as exc:
        raise BundleError(f"base 'hub:{location}' cannot be fetched: {exc}") from exc
