"""Makes machine code of the detector's pure core with mypyc, where a C compiler is there; the same modules run without.

Hatchling calls it whenever it builds the project, in place too. It never fails a build.
"""

import os
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

GROUP = "surge"
FLAGS = ["-fno-semantic-interposition", "-fvisibility=hidden"]
"""Nothing else calls into it, so that its functions may be inlined."""


class CompiledCore(BuildHookInterface[Any]):
    """Compiles the modules listed in pyproject.toml as one group, so that calls between them are calls in C."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Put a binary beside each module, which Python then prefers to it, and into the wheel."""
        root = Path(self.root)
        modules = [Path(name) for name in self.config["modules"]]
        remove_binaries(root, modules)
        try:
            binaries = compile_modules(root, modules)
        except Exception as error:  # noqa: BLE001 (whatever is missing, the modules run without)
            self.app.display_warning(f"the detector runs uncompiled, and more slowly: {error}")
            return
        if version == "standard":
            build_data.update(pure_python=False, infer_tag=True, force_include={each: each for each in binaries})


def remove_binaries(root: Path, modules: list[Path]) -> None:
    """Take away what was made of other sources: it would run in place of these, if they cannot be compiled."""
    for stem in (f"{GROUP}__mypyc", *(str(module.with_suffix("")) for module in modules)):
        for binary in (*root.glob(f"{stem}.*.so"), *root.glob(f"{stem}.*.pyd")):
            binary.unlink()


def compile_modules(root: Path, modules: list[Path]) -> list[str]:
    """Compile in place; the binaries, from the root."""
    from mypyc.build import mypycify  # noqa: PLC0415 (is not there where only a pure wheel is built)
    from setuptools import Distribution  # noqa: PLC0415
    from setuptools.errors import BaseError  # noqa: PLC0415

    before = Path.cwd()
    os.chdir(root)
    try:
        with TemporaryDirectory() as build:
            paths = ["--config-file=pyproject.toml", *map(str, modules)]
            extensions = mypycify(paths, group_name=GROUP, debug_level="0", target_dir=build)
            for extension in extensions:
                extension.extra_compile_args += FLAGS
            command = Distribution({"name": GROUP, "ext_modules": extensions}).get_command_obj("build_ext")
            command.inplace, command.build_temp, command.build_lib = True, build, build
            command.ensure_finalized()
            command.run()
            return [os.path.relpath(binary) for binary in command.get_output_mapping().values()]
    except (SystemExit, BaseError) as error:
        raise RuntimeError(str(error)) from error
    finally:
        os.chdir(before)
