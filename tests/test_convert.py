import os
import pickle
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import typer
from safetensors.torch import load_file
from typer.testing import CliRunner

from stacknorm.bases.convert import _checked, _refuse, convert_checkpoint, find_pickle
from stacknorm.commands.convert import convert
from stacknorm.encoder.trunk import load_classifier
from stacknorm.errors import BundleError
from tiny_bases import write_base


class Runs:
    """Unpickled, it calls what it was made with."""

    def __init__(self, call: Any, *given: Any) -> None:
        self.call = (call, given)

    def __reduce__(self) -> Any:
        return self.call


def test_tensors_keep_their_names_types_and_values_and_those_that_shared_memory_are_parted(tmp_path: Path) -> None:
    weight = torch.randn(4, 5)
    saved = {"encoder.weight": weight, "decoder.weight": weight, "cut": weight[1:3], "turned": weight.t()}
    saved |= {"half": weight.half(), "brain": weight.bfloat16(), "ids": torch.arange(3), "flag": torch.tensor([True])}
    torch.save(saved | {"parameter": torch.nn.Linear(3, 2).weight}, tmp_path / "model.bin")
    done = convert_checkpoint(tmp_path / "model.bin", tmp_path / "model.safetensors")
    written = load_file(done.path)
    assert done.tensors == len(written) == len(saved) + 1
    assert done.size_bytes == done.path.stat().st_size
    for name, tensor in saved.items():
        assert written[name].dtype == tensor.dtype
        assert torch.equal(written[name], tensor)


def test_a_pickle_that_would_create_a_file_is_refused_by_name_and_does_not_run(tmp_path: Path) -> None:
    trap = tmp_path / "trap"
    checkpoint, target = tmp_path / "pytorch_model.bin", tmp_path / "model.safetensors"
    torch.save({"weight": torch.ones(2), "hook": Runs(os.system, f"touch {trap}")}, checkpoint)
    with pytest.raises(BundleError, match=r"pytorch_model\.bin was not converted: it asks for \S*system, which is no"):
        convert_checkpoint(checkpoint, target)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["pytorch_model.bin"]
    torch.load(checkpoint, weights_only=False)
    assert trap.exists(), "the trap would have worked"


@pytest.mark.parametrize(
    ("held", "reason"),
    [
        ([torch.ones(1)], "it holds a list, not a dictionary of tensors"),
        ({}, "it holds no tensor"),
        ({"weight": torch.ones(1), "epoch": 3}, "its entry 'epoch' is of type int, not a tensor under a name"),
        ({"weight": torch.tensor([1.0, float("inf")])}, "its tensor weight is not finite"),
        ({"weight": torch.eye(3).to_sparse()}, "its tensor weight is not a plain dense one"),
    ],
)
def test_anything_but_dense_finite_tensors_is_refused_by_its_name(held: Any, reason: str) -> None:
    with pytest.raises(BundleError, match=reason):
        _checked(held)


@pytest.mark.parametrize(
    "content",
    [pickle.dumps(Runs(print, "read by an unrestricted unpickler")), b"hello"],
    ids=["plain pickle", "no pickle"],
)
def test_a_file_that_torch_did_not_write_is_refused_in_one_line(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "model.bin").write_bytes(content)
    with pytest.raises(BundleError, match=r"model\.bin was not converted: it") as caught:
        convert_checkpoint(tmp_path / "model.bin", tmp_path / "model.safetensors")
    assert "\n" not in str(caught.value)
    assert [path.name for path in tmp_path.iterdir()] == ["model.bin"]


def test_the_process_has_limits_in_proportion_to_the_file(tmp_path: Path) -> None:
    (tmp_path / "model.bin").write_bytes(bytes(1000))
    script = (
        "import resource, pathlib, sys; from stacknorm.bases.convert import _limit; _limit(pathlib.Path(sys.argv[1]))\n"
    )
    script += "print(*[resource.getrlimit(getattr(resource, 'RLIMIT_' + kind))[1] for kind in ('CPU', 'FSIZE')])\n"
    script += "try: bytearray(9 << 30)\nexcept MemoryError: print('no memory')\n"
    command = [sys.executable, "-I", "-c", script, str(tmp_path / "model.bin")]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == ["120 1052576", "no memory"]


def test_what_is_there_already_is_not_overwritten(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").write_bytes(b"mine")
    with pytest.raises(BundleError, match=r"model\.safetensors exists already"):
        convert_checkpoint(tmp_path / "model.bin", tmp_path / "model.safetensors")


def test_even_past_the_restricted_unpickler_nothing_is_written_run_or_connected(tmp_path: Path) -> None:
    script = "import sys; from stacknorm.bases.convert import _refuse; sys.addaudithook(_refuse)\n"
    script += "import os, socket, subprocess, pathlib\n"
    attempts = [
        f"open({str(tmp_path / 'a')!r}, 'w')",
        f"os.open({str(tmp_path / 'b')!r}, os.O_CREAT)",
        f"os.mkdir({str(tmp_path / 'c')!r})",
        "os.system('true')",
        "os.fork()",
        "os.remove('/nowhere')",
        "subprocess.run(['true'])",
        "socket.socket()",
        "socket.getaddrinfo('localhost', 80)",
        "__import__('ctypes').CDLL(None)",
    ]
    for attempt in attempts:
        script += f"try: {attempt}\nexcept PermissionError as exc: print(exc)\nelse: print('allowed')\n"
    script += f"print(open({__file__!r}).read(6)); print(len(os.listdir('/')) > 0)\n"
    done = subprocess.run([sys.executable, "-I", "-c", script], capture_output=True, text=True, check=True)
    said = done.stdout.splitlines()
    assert said[-2:] == ["import", "True"]
    assert all(line.startswith("it asks for ") for line in said[:-2])
    assert len(said) == len(attempts) + 2
    assert list(tmp_path.iterdir()) == []


def test_the_hook_refuses_by_event_and_lets_reading_be() -> None:
    _refuse("open", ("file", "r", os.O_RDONLY | os.O_CLOEXEC))
    _refuse("import", ("torch",))
    with pytest.raises(PermissionError, match=r"socket\.connect"):
        _refuse("socket.connect", (socket.socket, ("localhost", 80)))


def test_a_directory_stands_for_the_one_checkpoint_in_it(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="it holds: none"):
        find_pickle(tmp_path)
    for name in ("training_args.bin", "other.pt"):
        (tmp_path / name).touch()
    with pytest.raises(BundleError, match=r"it holds: other\.pt, training_args\.bin"):
        find_pickle(tmp_path)
    (tmp_path / "pytorch_model.bin").touch()
    assert find_pickle(tmp_path) == tmp_path / "pytorch_model.bin"
    assert find_pickle(tmp_path / "other.pt") == tmp_path / "other.pt"


def test_the_command_makes_a_base_of_a_directory_with_a_pickle(tmp_path: Path) -> None:
    root = write_base(tmp_path / "base", labels=3)
    tensors = load_file(root / "model.safetensors")
    torch.save(tensors, root / "pytorch_model.bin")
    (root / "model.safetensors").unlink()
    app = typer.Typer()
    app.command()(convert)
    result = CliRunner().invoke(app, [str(root)])
    assert result.exit_code == 0, result.output
    assert f"{len(tensors)} tensors" in result.output
    assert all(torch.equal(load_classifier(root).state_dict()[name], tensor) for name, tensor in tensors.items())
    refused = CliRunner().invoke(app, [str(root)])
    assert refused.exit_code == 1
    assert "exists already" in refused.output
