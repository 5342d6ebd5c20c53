"""What the numbers were measured on."""

import os
from dataclasses import dataclass
from pathlib import Path

import torch
import transformers

FLAGS = ("avx2", "avx512f", "avx512_vnni", "avx512_bf16", "amx_bf16", "amx_int8")


@dataclass(frozen=True, slots=True)
class Machine:
    """Processor, accelerator and versions."""

    processor: str
    cores: int
    flags: tuple[str, ...]
    gpu: str | None
    torch: str
    transformers: str
    load: float
    """Average number of running processes over the last minute, before the first round."""

    @property
    def sentence(self) -> str:
        """All of it in a line."""
        flags = " ".join(self.flags) or "none of " + ", ".join(FLAGS)
        return (
            f"{self.processor}, {self.cores} cores ({flags}), {self.gpu or 'no GPU'}; "
            f"torch {self.torch}, transformers {self.transformers}; load before the start {self.load:.1f}"
        )


def look_at_machine(cpuinfo: Path = Path("/proc/cpuinfo")) -> Machine:
    """The machine as it is now; what the system does not tell is `unknown`."""
    told = _parse(cpuinfo.read_text()) if cpuinfo.is_file() else {}
    present = told.get("flags", "").split()
    return Machine(
        processor=told.get("model name", "unknown processor"),
        cores=len(os.sched_getaffinity(0)),
        flags=tuple(flag for flag in FLAGS if flag in present),
        gpu=torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        torch=torch.__version__,
        transformers=transformers.__version__,
        load=os.getloadavg()[0],
    )


def _parse(cpuinfo: str) -> dict[str, str]:
    pairs = (line.partition(":") for line in cpuinfo.splitlines())
    return {name.strip(): value.strip() for name, _, value in pairs}
