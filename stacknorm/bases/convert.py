"""A pickled checkpoint into safetensors, by a process of its own that can do little else.

A pickle is a program. `convert_checkpoint` has it read by torch's restricted unpickler, in a child that starts without
the user's environment, has limits on memory, time and file size, and is refused every file it would write, every socket
and every process. This module is both: imported, it starts the child and judges the result; run, it is the child.
"""

import os
import re
import resource
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from stacknorm.errors import BundleError

if TYPE_CHECKING:
    # The parent reads no tensor, and torch is slow to import.
    from torch import Tensor

PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt")
_PREFERRED = "pytorch_model.bin"
_IMPORTS_BYTES = 8 << 30  # address space that torch takes before it reads anything, with room to spare
_COPIES = 4  # of the checkpoint that are in memory at once: file, tensors, what is written, what is read back
_BASIC_SECONDS, _BYTES_A_SECOND = 120, 20_000_000
_PATIENCE = 4  # wall time for each second of processor time, on a machine with other work
_REFUSED = (
    "socket.",
    "subprocess.",
    "os.",
    "shutil.",
    "ctypes.",
    "sqlite3.",
    "urllib.",
    "webbrowser.",
    "pty.",
    "mmap.",
)
_HARMLESS = {"os.listdir", "os.scandir", "os.walk", "os.fwalk"}


@dataclass(frozen=True, slots=True)
class Converted:
    """A checkpoint that was written as safetensors."""

    path: Path
    tensors: int
    size_bytes: int


def find_pickle(path: Path) -> Path:
    """The pickled checkpoint at `path`: a file, or the one in a directory.

    Raises:
        BundleError: there is none, or more than one.
    """
    if path.is_file():
        return path
    found = sorted(file for pattern in PICKLES for file in path.glob(pattern))
    preferred = [file for file in found if file.name == _PREFERRED] or found
    if len(preferred) != 1:
        names = ", ".join(file.name for file in found) or "none"
        raise BundleError(f"{path} must hold one checkpoint to convert ({', '.join(PICKLES)}), it holds: {names}")
    return preferred[0]


def convert_checkpoint(checkpoint: Path, target: Path) -> Converted:
    """Write the tensors of a pickled checkpoint to a new safetensors file, under their names and in their types.

    Args:
        checkpoint: what `torch.save` wrote of a flat dictionary of tensors.
        target: must not exist; it appears when it is complete and checked.

    Raises:
        BundleError: the checkpoint holds anything else, asks to run something, or needs more than its limits;
            nothing is written then.
    """
    if target.exists():
        raise BundleError(f"{target} exists already and is not overwritten")
    if not checkpoint.is_file():
        raise BundleError(f"{checkpoint} is not a file")
    with TemporaryDirectory(dir=target.parent, prefix=".convert-") as folder:
        draft = Path(folder, "draft.safetensors")
        _run_child(checkpoint.resolve(), draft.resolve())
        tensors = _count_tensors(draft)
        draft.chmod(checkpoint.stat().st_mode & 0o666)  # compiled code writes for the owner alone
        draft.replace(target)
    return Converted(target, tensors, target.stat().st_size)


def _run_child(checkpoint: Path, draft: Path) -> None:
    """Convert in a process; isolated from the user's modules (-I), leaving no compiled ones behind (-B)."""
    command = (sys.executable, "-I", "-B", "-m", "stacknorm.bases.convert", str(checkpoint), str(draft))
    seconds = _limit_seconds(checkpoint) * _PATIENCE
    try:
        done = subprocess.run(  # noqa: S603 - the command is ours; the user's file is an argument that is only read
            command,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            cwd=draft.parent,
            env={"OMP_NUM_THREADS": "1"},
            timeout=seconds,
            check=False,
        )
    except subprocess.TimeoutExpired as exc:
        raise BundleError(f"{checkpoint} was not converted within {seconds} s") from exc
    if done.returncode < 0:
        raise BundleError(f"{checkpoint} was not converted: the process that read it was ended by {-done.returncode}")
    if done.returncode > 0:
        said = done.stderr.strip().splitlines() or [f"exit status {done.returncode}"]
        raise BundleError(f"{checkpoint} was not converted: {said[-1]}")


def _count_tensors(draft: Path) -> int:
    # Without the type of an array library, only the header is read.
    from safetensors import SafetensorError, safe_open  # noqa: PLC0415

    try:
        with safe_open(draft, "np") as opened:
            return len(opened.keys())
    except (OSError, SafetensorError) as exc:
        raise BundleError(f"converting gave no safetensors file: {exc}") from exc


def _limit_seconds(checkpoint: Path) -> int:
    return _BASIC_SECONDS + checkpoint.stat().st_size // _BYTES_A_SECOND


def _child(checkpoint: Path, draft: Path) -> None:
    """Read, check, write, and read again what was written."""
    _limit(checkpoint)
    import torch  # noqa: PLC0415 - under the limits, and never in the parent
    from safetensors.torch import load_file, save_file  # noqa: PLC0415

    sys.addaudithook(_refuse)
    tensors = _own_memory(_checked(torch.load(checkpoint, map_location="cpu", weights_only=True)))
    save_file(dict(tensors), draft, metadata={"format": "pt"})
    written = load_file(draft)
    for name, tensor in tensors.items():
        if written[name].dtype != tensor.dtype or not torch.equal(written[name], tensor):
            raise BundleError(f"its tensor {name} was not written as it was read")


def _limit(checkpoint: Path) -> None:
    size = checkpoint.stat().st_size
    resource.setrlimit(resource.RLIMIT_AS, (_IMPORTS_BYTES + _COPIES * size,) * 2)
    resource.setrlimit(resource.RLIMIT_CPU, (_limit_seconds(checkpoint),) * 2)
    # Tensors that shared memory are written apart, so the result may be larger than what was read.
    resource.setrlimit(resource.RLIMIT_FSIZE, (_COPIES * size + (1 << 20),) * 2)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def _refuse(event: str, given: tuple[object, ...]) -> None:
    """An audit hook: what reads tensors opens files for reading and does nothing else.

    The result is written by compiled code that raises no such event.
    """
    writes = event == "open" and bool(_flags(given) & (os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC))
    if writes or (event.startswith(_REFUSED) and event not in _HARMLESS):
        raise PermissionError(f"it asks for {event} {given}")


def _flags(given: tuple[object, ...]) -> int:
    flags = given[2]
    return flags if isinstance(flags, int) else 0


def _checked(loaded: object) -> "Mapping[str, Tensor]":
    """The state of a model and nothing else.

    Raises:
        BundleError: it is no flat dictionary of dense, finite tensors.
    """
    if not isinstance(loaded, Mapping):
        raise BundleError(f"it holds a {type(loaded).__name__}, not a dictionary of tensors")
    if not loaded:
        raise BundleError("it holds no tensor")
    for name, value in loaded.items():
        _check_tensor(name, value)
    return loaded


def _check_tensor(name: object, value: object) -> None:
    import torch  # noqa: PLC0415

    if not isinstance(name, str) or not isinstance(value, torch.Tensor):
        raise BundleError(f"its entry {name!r} is of type {type(value).__name__}, not a tensor under a name")
    if value.layout != torch.strided or value.is_quantized or value.is_meta or value.is_complex():
        raise BundleError(f"its tensor {name} is not a plain dense one ({value.layout}, {value.dtype})")
    if value.is_floating_point() and not bool(torch.isfinite(value.float()).all()):
        raise BundleError(f"its tensor {name} is not finite")


def _own_memory(tensors: "Mapping[str, Tensor]") -> "dict[str, Tensor]":
    """Tensors that share memory, as tied weights do, each get memory of their own."""
    seen: set[int] = set()
    apart: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        place = tensor.untyped_storage().data_ptr()
        apart[name] = (tensor.clone() if place in seen else tensor).detach().contiguous()
        seen.add(place)
    return apart


def _main() -> None:
    try:
        _child(*map(Path, sys.argv[1:]))
    except Exception as exc:  # noqa: BLE001 - whatever a hostile file provokes is told in one line
        sys.exit(_reason(exc))


def _reason(exc: Exception) -> str:
    """One line; torch's own unpickler explains at length how to trust a file, which is not for us to do."""
    if isinstance(exc, BundleError):
        return str(exc)
    if asked := re.search(r"GLOBAL (\S+)", str(exc)):
        return f"it asks for {asked[1]}, which is no tensor"
    said = str(exc).strip().partition("\n")[0]
    return f"it cannot be read as what torch.save wrote of tensors ({type(exc).__name__}: {said})"


if __name__ == "__main__":
    _main()
