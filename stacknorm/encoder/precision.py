"""Which arithmetic to use: bf16 is up to thrice as fast as fp32 where the hardware has it, a fifth elsewhere."""

import time
from collections.abc import Callable
from typing import Literal

import torch
from torch import nn

from stacknorm.encoder.device import Device

Precision = Literal["fp32", "bf16"]
_WORTHWHILE = 0.8  # bf16 costs digits: a gain within the noise of timing is no reason to choose it
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}


def native_precision(device: Device) -> Precision:
    """bf16 where the hardware computes in it, else fp32.

    Told by the hardware and not by the clock, so that all engines on one kind of machine give the same labels,
    whatever else it is doing.
    """
    if device == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp32"
    can = torch.cpu.get_capabilities()
    return "bf16" if can.get("avx512_bf16") or can.get("amx_bf16") else "fp32"


def halve_frozen(model: nn.Module) -> None:
    """Keep the linear maps that are not trained in bf16, in place.

    Autocast to bf16 rounds them at each step anyway; kept so, a training step takes 5 to 8 % less.
    """
    for linear in (module for module in model.modules() if isinstance(module, nn.Linear)):
        for weight in linear.parameters(recurse=False):
            if not weight.requires_grad:
                weight.data = weight.data.bfloat16()


def faster_precision(run: Callable[[Precision], object], repeats: int = 3) -> Precision:
    """Time `run` in both precisions and name the one to use: bf16 if it is clearly faster.

    Args:
        run: does a fixed, small piece of work in the precision given; its first call in each is not timed.
        repeats: timed calls in each; the fastest counts, which other load on the machine disturbs least.
    """
    halved, full = _best_seconds(run, "bf16", repeats), _best_seconds(run, "fp32", repeats)
    return "bf16" if halved < _WORTHWHILE * full else "fp32"


def _best_seconds(run: Callable[[Precision], object], precision: Precision, repeats: int) -> float:
    _run_whole(run, precision)
    seconds = []
    for _ in range(repeats):
        started = time.perf_counter()
        _run_whole(run, precision)
        seconds.append(time.perf_counter() - started)
    return min(seconds)


def _run_whole(run: Callable[[Precision], object], precision: Precision) -> None:
    """Until a GPU has done what it was told: calls return before."""
    run(precision)
    if torch.cuda.is_available():
        torch.cuda.synchronize()
