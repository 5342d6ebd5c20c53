"""What a GPU changes and what it must not. Most of it needs one; run by whoever has one, for it is seldom in CI."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from stacknorm.bundle import load_bundle
from stacknorm.encoder.device import choose_device
from stacknorm.engine import Engine
from stacknorm.errors import DeviceError
from stacknorm.training.train import train_bundle
from tests.bench.texts import load_texts
from tiny_bases import WORDS, write_tiny_bundle
from toy_training import FATES, FIRMS, HEAD, MOOD, ONE, THEMES, quiet, write_toys

needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU")

BROKEN_GPU = """
import sys, torch
from stacknorm.engine import Engine
from stacknorm.errors import PredictionError

engine = Engine.load(sys.argv[1], device="cuda", language_guard=False)
(group,) = engine._readers[0].groups


def break_gpu(*_):
    torch.zeros(2, device="cuda")[torch.tensor([7], device="cuda")]


breaks = group.lower.register_forward_pre_hook(break_gpu)
for text in ("oil falls", "gold rises"):
    try:
        engine.predict([text])
    except PredictionError as error:
        print(error)
        breaks.remove()
"""


@pytest.mark.skipif(torch.cuda.is_available(), reason="is about machines without a GPU")
def test_a_gpu_that_is_not_there_is_said_to_be_missing(tmp_path: Path) -> None:
    with pytest.raises(DeviceError, match="finds no NVIDIA GPU"):
        choose_device("cuda")
    with pytest.raises(DeviceError):
        Engine.load(write_tiny_bundle(tmp_path), device="cuda")
    assert choose_device("auto") == choose_device("cpu") == "cpu"


@needs_gpu
def test_a_gpu_is_taken_where_there_is_one(tmp_path: Path) -> None:
    assert choose_device("auto") == choose_device("cuda") == "cuda"
    assert Engine.load(write_tiny_bundle(tmp_path)).device == "cuda"


@needs_gpu
@pytest.mark.parametrize("form", ["width", "cascade"])
def test_the_default_stack_says_on_a_gpu_what_it_says_on_the_processor(form: str) -> None:
    bundle = "finance" if form == "width" else "finance-large"
    texts = load_texts(400, load_bundle(Path(bundle)).manifest.max_tokens).values
    processor, gpu, half = (
        Engine.load(bundle, device, precision, form)
        for device, precision in (("cpu", "fp32"), ("cuda", "fp32"), ("cuda", "auto"))
    )
    assert half.precision == "bf16"
    for task in processor.tasks:
        there, here = (engine.member_probabilities(texts)[task] for engine in (gpu, processor))
        assert there == pytest.approx(here, abs=1e-3)
    engines = (processor, gpu, half)
    labels = np.array([[p.tasks["sentiment"].label if p.tasks else "" for p in e.predict(texts)] for e in engines])
    assert (labels[0] == labels[1]).mean() > 0.995
    assert (labels[0] == labels[2]).mean() > 0.97


@needs_gpu
def test_a_batch_that_does_not_fit_into_a_gpu_is_split(tmp_path: Path) -> None:
    texts = [" ".join(WORDS[n % 9 : n % 9 + 8]) for n in range(3_000)]
    engine = Engine.load(write_tiny_bundle(tmp_path), device="cuda", language_guard=False)
    whole = engine.predict(texts)
    torch.cuda.empty_cache()
    before = torch.cuda.memory_stats()["num_ooms"]
    room = torch.cuda.memory_reserved() + (4 << 20)
    torch.cuda.set_per_process_memory_fraction(room / torch.cuda.get_device_properties(0).total_memory)
    try:
        split = engine.predict(texts)
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    assert torch.cuda.memory_stats()["num_ooms"] > before
    for one, other in zip(whole, split, strict=True):
        assert one.tasks["sentiment"].probabilities == pytest.approx(other.tasks["sentiment"].probabilities, abs=0.02)


@needs_gpu
def test_a_gpu_that_fails_is_blamed_and_gives_no_label(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", BROKEN_GPU, write_tiny_bundle(tmp_path)], capture_output=True, text=True, check=False
    )
    lines = [line for line in done.stdout.splitlines() if "the GPU failed" in line]
    assert len(lines) == 2, done.stdout + done.stderr
    assert all("CUDA" in line for line in lines)


@needs_gpu
@pytest.mark.parametrize("mode", ["lora", "full"])
def test_a_training_on_a_gpu_learns_and_its_bundle_says_the_same_on_the_processor(tmp_path: Path, mode: str) -> None:
    write_toys(tmp_path)
    config = tmp_path / "toy.toml"
    head = HEAD.replace("epochs = 2", f'epochs = 10\nmode = "{mode}"')
    config.write_text(head + MOOD + THEMES + FIRMS + FATES + ONE)
    bundle = train_bundle(config, tmp_path / "data", tmp_path / "out", quiet(), device="cuda")
    assert bundle.manifest.scores["fates"]["stack"]["accuracy"].value > 0.95
    assert bundle.manifest.scores["firms"]["stack"]["accuracy"].value > 0.95
    (tmp_path / "out" / "base").symlink_to(tmp_path / "base")
    processor, gpu = (Engine.load(tmp_path / "out", device, "fp32") for device in ("cpu", "cuda"))
    texts = ["acme oil warns", "bank oil beats"]
    for there, here in zip(gpu.predict(texts), processor.predict(texts), strict=True):
        assert there.tasks["themes"].probabilities == pytest.approx(here.tasks["themes"].probabilities, abs=1e-3)
