"""Where models are computed: on a GPU, or on the processor."""

from typing import Literal

import torch

from stacknorm.errors import DeviceError

Device = Literal["cpu", "cuda"]
WantedDevice = Literal["auto", "cuda", "cpu"]
"""`auto`: a GPU where there is one."""


def choose_device(wanted: WantedDevice) -> Device:
    """The device to compute on.

    Raises:
        DeviceError: a GPU is wanted, and torch finds none.
    """
    found = torch.cuda.is_available()
    if wanted == "cuda" and not found:
        raise DeviceError(
            f"device cuda: torch {torch.__version__} finds no NVIDIA GPU it can use; "
            "check that nvidia-smi lists one, or take the device auto or cpu"
        )
    if wanted == "auto":
        return "cuda" if found else "cpu"
    return wanted
