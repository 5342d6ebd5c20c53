"""A bundle made from another one: a copy of its files in a directory that becomes the new bundle once all went well."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from stacknorm.bases.source import BASE_FILES, HUB, PACKAGE, WHEELS
from stacknorm.bundle import Bundle, MemberSpec, save_manifest
from stacknorm.errors import BundleError

_ELSEWHERE = (f"{HUB}:", f"{PACKAGE}:", f"{WHEELS}:")


@contextmanager
def draft_bundle(bundle: Bundle, out: Path) -> Iterator[Bundle]:
    """Give a copy of a bundle to change, which then lies in `out`; if an error is raised, nothing does.

    Files are copied, and bases that lie under the bundle's directory too. Other directories that it names by their
    way from there are named by their way from `out`.

    Raises:
        BundleError: `out` is there and not empty.
    """
    home = out.absolute()
    if home.exists() and (not home.is_dir() or any(home.iterdir())):
        raise BundleError(f"{home} is not empty")
    draft = home.with_name(home.name + ".draft")
    shutil.rmtree(draft, ignore_errors=True)
    draft.mkdir(parents=True)
    try:
        yield copy_bundle(bundle, draft)
        draft.rename(home)
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def copy_bundle(bundle: Bundle, out: Path) -> Bundle:
    """Copy a bundle into a directory."""
    manifest = bundle.manifest
    for name in manifest.files:
        shutil.copyfile(bundle.root / name, out / name)
    for voice in manifest.voices():
        _copy(bundle.root / voice.name, out / voice.name, tuple(voice.files))
    members = tuple(_move(member, bundle.root, out) for member in manifest.members)
    return save_manifest(out, manifest.model_copy(update={"members": members}))


def _move(member: MemberSpec, root: Path, out: Path) -> MemberSpec:
    """Bring along the bases that lie under the bundle, and name the others so that they are found from `out`."""
    references = tuple(_seen_from(out, root, reference) for reference in member.base.references)
    for reference in references:
        if _lies_inside(reference) and (root / reference).is_dir():
            _copy(root / reference, out / reference, BASE_FILES)
    return member.model_copy(update={"base": member.base.model_copy(update={"references": references})})


def _seen_from(out: Path, root: Path, reference: str) -> str:
    if reference.startswith(_ELSEWHERE) or Path(reference).is_absolute() or _lies_inside(reference):
        return reference
    return os.path.relpath(root / reference, out)


def _lies_inside(reference: str) -> bool:
    """Whether a reference names a directory under that of its bundle."""
    outside = reference.startswith(_ELSEWHERE) or Path(reference).is_absolute()
    return not outside and not os.path.normpath(reference).startswith(os.pardir)


def _copy(source: Path, target: Path, names: tuple[str, ...]) -> None:
    if names:
        target.mkdir(parents=True, exist_ok=True)
    for name in names:
        shutil.copyfile(source / name, target / name)
