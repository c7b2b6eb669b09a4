"""What can be known to be wrong before a training process starts: the accelerate config, and packages that lack."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterable
from hashlib import blake2b
from pathlib import Path
from typing import Any

import yaml  # type: ignore[import-untyped]
from pydantic import BaseModel, ConfigDict

from rlrf.errors import TrainingError

INTEGRATIONS = {
    "azure_ml": ("azureml",),
    "clearml": ("clearml",),
    "codecarbon": ("codecarbon",),
    "comet_ml": ("comet_ml",),
    "dagshub": ("dagshub",),
    "dvclive": ("dvclive",),
    "flyte": ("flytekit",),
    "mlflow": ("mlflow",),
    "neptune": ("neptune",),
    "swanlab": ("swanlab",),
    "tensorboard": ("tensorboard", "tensorboardX"),
    "trackio": ("trackio",),
    "wandb": ("wandb",),
}
"""transformers' names, and the packages of which one must be there."""

SHARDED = ("FSDP", "DEEPSPEED")
LAUNCHED = ("NO", "MULTI_CPU", "MULTI_GPU", *SHARDED)


class Launch(BaseModel):
    """What rlrf needs to know of an accelerate config.

    Attributes:
        config: the file.
        processes: how many are started.
        sharded: one model is split over them (FSDP, DeepSpeed), instead of each having its own copy.
        flags: arguments of `accelerate launch` beside the file.
        digest: of the file, and of the DeepSpeed file that it names.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    config: Path
    processes: int
    sharded: bool
    flags: tuple[str, ...]
    digest: str


def read_launch(path: Path) -> Launch:
    """Read an accelerate config, the file that `accelerate config` writes.

    Raises:
        TrainingError: there is no such file, it is another kind of file, or it asks for what one machine of CPUs or GPUs
            can't do.
    """
    content = _parse(path)
    kind = content.get("distributed_type")
    if kind not in LAUNCHED:
        raise _refused(path, f"distributed_type {kind!r}", f"give one of {LAUNCHED!r}")
    processes = content.get("num_processes", 1 if kind == "NO" else None)
    if not isinstance(processes, int) or processes < 1:
        raise _refused(path, f"num_processes {processes!r}", "give the number of processes, one per GPU")
    if content.get("num_machines", 1) != 1:
        raise _refused(
            path, f"num_machines {content['num_machines']!r}", "training starts the processes of one machine"
        )
    if content.get("mpirun_config"):
        raise _refused(path, "mpirun_config", "take it out: torch's own launcher starts the processes")
    if kind in SHARDED and content.get("use_cpu"):
        raise _refused(path, f"distributed_type {kind!r} with use_cpu", "accelerate splits models over GPUs only")
    if kind == "DEEPSPEED":
        _require(["deepspeed"], f"{str(path)!r}: distributed_type 'DEEPSPEED'")
    # Without --multi_gpu, a MULTI_CPU config makes accelerate start one process and leave the others to mpirun.
    flags: tuple[str, ...] = ("--multi_gpu",) if kind == "MULTI_CPU" and processes > 1 else ()
    # Two trainings on one machine must not meet on accelerate's fixed port; 0 takes a free one.
    flags += () if content.get("main_process_port") else ("--main_process_port", "0")
    digest = _digest(path, (content.get("deepspeed_config") or {}).get("deepspeed_config_file"))
    return Launch(config=path, processes=processes, sharded=kind in SHARDED, flags=flags, digest=digest)


def check_integrations(names: Iterable[str]) -> None:
    """Raises:
    TrainingError: a name isn't one of transformers' integrations, or its package isn't installed.
    """
    for name in names:
        if name not in INTEGRATIONS:
            raise TrainingError(f"train.report_to: {name!r} isn't known; give some of {sorted(INTEGRATIONS)!r}")
        _require(INTEGRATIONS[name], f"train.report_to: {name!r}")


def check_quantization(bits: str | None) -> None:
    """Raises:
    TrainingError: quantised training is asked for and bitsandbytes isn't installed.
    """
    if bits:
        _require(["bitsandbytes"], f"train.lora.quantize: {bits!r}")


def _require(packages: Iterable[str], what: str) -> None:
    packages = list(packages)
    if not any(importlib.util.find_spec(package) for package in packages):
        raise TrainingError(f"{what} needs the package {' or '.join(packages)}; pip install {packages[0]}")


def _parse(path: Path) -> dict[str, Any]:
    remedy = "give a file that `accelerate config --config_file FILE` wrote"
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise TrainingError(f"train.accelerate_config {str(path)!r} can't be read ({error}); {remedy}") from error
    if not isinstance(content, dict) or "distributed_type" not in content:
        raise TrainingError(f"train.accelerate_config {str(path)!r} is no accelerate config; {remedy}")
    return content


def _refused(path: Path, what: str, remedy: str) -> TrainingError:
    return TrainingError(f"train.accelerate_config {str(path)!r}: {what}; {remedy}")


def _digest(path: Path, further: str | None) -> str:
    state = blake2b(path.read_bytes(), digest_size=16)
    if further:
        try:
            state.update(Path(further).read_bytes())
        except OSError as error:
            raise _refused(path, f"deepspeed_config_file {further!r} can't be read ({error})", "mend it") from error
    return state.hexdigest()
