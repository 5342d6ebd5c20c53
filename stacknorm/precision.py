"""Which arithmetic is fast on this processor: measured, for bf16 is thrice as fast here and a fifth there."""

import time
from collections.abc import Callable
from typing import Literal

import torch

Precision = Literal["fp32", "bf16"]
_WORTHWHILE = 0.8  # bf16 costs digits: a gain within the noise of timing is no reason to choose it
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}


def faster_precision(
    run: Callable[[Precision], object], repeats: int = 3, clock: Callable[[], float] = time.perf_counter
) -> Precision:
    """Time `run` in both precisions and name the one to use: bf16 if it is clearly faster.

    Args:
        run: does a fixed, small piece of work in the precision given; its first call in each is not timed.
        repeats: timed calls in each; the fastest counts, which other load on the machine disturbs least.
        clock: seconds; a processor's work is best measured by ``time.process_time``, which others' load leaves alone,
            so that all workers on one kind of machine choose alike.
    """
    halved, full = _best_seconds(run, "bf16", repeats, clock), _best_seconds(run, "fp32", repeats, clock)
    return "bf16" if halved < _WORTHWHILE * full else "fp32"


def _best_seconds(
    run: Callable[[Precision], object], precision: Precision, repeats: int, clock: Callable[[], float]
) -> float:
    run(precision)
    seconds = []
    for _ in range(repeats):
        started = clock()
        run(precision)
        seconds.append(clock() - started)
    return min(seconds)
