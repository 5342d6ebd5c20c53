"""How numbers came about: what was scored on what, how, and where. It stands beside every one of them."""

import os
import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from importlib.metadata import version
from pathlib import Path

import torch

from stacknorm.bases.source import digest_file
from stacknorm.bundle import Bundle, TaskKind
from stacknorm.engine import Engine
from stacknorm.evaluation.bootstrap import RESAMPLES, SEED
from stacknorm.evaluation.trial import Question

CLEANING = "HTML unescaped, URLs removed, whitespace folded"
SAME_TEXT = "equal after URLs, punctuation, case and HTML entities are folded"


@dataclass(frozen=True, slots=True)
class Machine:
    """Where it ran."""

    processor: str
    cores: int
    versions: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Scored:
    """A stack that was scored."""

    name: str
    digest: str
    precision: str
    device: str
    max_tokens: int
    calibrated: bool
    """Whether pool and calibrator were fitted on rows no member was trained on."""
    member_temperatures: bool
    """Whether members are shown with temperatures of their own, or as they were trained."""


@dataclass(frozen=True, slots=True)
class Protocol:
    """Everything one needs to get the same numbers again."""

    task: str
    kind: TaskKind
    labels: tuple[str, ...]
    data: str
    data_sha256: str
    rows: int
    stacks: tuple[Scored, ...]
    machine: Machine
    made_at: str
    """When, in ISO 8601."""
    cleaning: str = CLEANING
    same_text: str = SAME_TEXT
    resamples: int = RESAMPLES
    seed: int = SEED
    interval: str = "95 % percentile bootstrap"

    @property
    def drawn(self) -> str:
        """What a resample draws."""
        return "texts, each with all its mentions" if self.kind == "entity" else "texts"


def describe_stack(bundle: Bundle, engine: Engine, task: str) -> Scored:
    """What a protocol says of a stack."""
    spec = bundle.manifest.tasks[task]
    return Scored(
        name=engine.identity.name,
        digest=engine.identity.digest,
        precision=engine.precision,
        device=engine.device,
        max_tokens=bundle.manifest.max_tokens,
        calibrated=spec.calibrated,
        member_temperatures=bool(spec.member_temperatures),
    )


def write_protocol(question: Question, stacks: Sequence[tuple[Bundle, Engine]], rows: int, now: datetime) -> Protocol:
    """The protocol of a question that was put to some stacks."""
    spec = stacks[0][0].manifest.tasks[question.task]
    return Protocol(
        task=question.task,
        kind=spec.kind,
        labels=spec.labels,
        data=question.data.name,
        data_sha256=digest_file(question.data),
        rows=rows,
        stacks=tuple(describe_stack(bundle, engine, question.task) for bundle, engine in stacks),
        machine=look_at_machine(),
        made_at=now.isoformat(timespec="seconds"),
    )


def look_at_machine(cpuinfo: Path = Path("/proc/cpuinfo")) -> Machine:
    """The machine as it is; what the system does not tell is `unknown processor`."""
    lines = cpuinfo.read_text(encoding="utf-8").splitlines() if cpuinfo.is_file() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    processor = next(iter(names), platform.processor() or "unknown processor")
    return Machine(
        processor=processor if not torch.cuda.is_available() else f"{processor}, {torch.cuda.get_device_name()}",
        cores=len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1,
        versions={name: version(name) for name in ("stacknorm", "torch", "transformers", "numpy")},
    )
