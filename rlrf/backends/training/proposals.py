"""What to change when a training doesn't fit into memory."""

from __future__ import annotations

import torch

from rlrf.backends.training.spec import TrainSpec


def proposal(spec: TrainSpec, fitting: int, what: str) -> str:
    """The message of a training that doesn't fit; `fitting` is the batch size that does, 0 for none."""
    now = f"train.batch_size = {spec.batch_size}, train.gradient_accumulation = {spec.gradient_accumulation}"
    if fitting:
        accumulation = spec.batch_size * spec.gradient_accumulation // fitting
        new = f"train.batch_size = {fitting}, train.gradient_accumulation = {accumulation}"
        return f"{what} at {now}; {new} does, with as many pairs per step"
    return f"{what} at {now}, nor at a batch size of 1; try {cures(spec)}"


def surprise(spec: TrainSpec, phase: str, error: Exception) -> str:
    """The message of a training that ran out of memory where no trial had foretold it."""
    smaller = divisors_below(spec.batch_size, spec.batch_size * spec.gradient_accumulation)
    remedy = cures(spec)
    if smaller and phase == "train":
        accumulation = spec.batch_size * spec.gradient_accumulation // smaller[0]
        remedy = f"train.batch_size = {smaller[0]} with train.gradient_accumulation = {accumulation}, {remedy}"
    return f"out of memory in phase {phase!r} ({str(error).splitlines()[0]}); try {remedy}"


def cures(spec: TrainSpec) -> str:
    """What else than the batch size makes a training smaller, of what this one doesn't do yet."""
    found = [
        "" if checkpointing(spec, torch.cuda.is_available()) else "train.gradient_checkpointing = true",
        "[train.lora]" if spec.lora is None else "",
        'train.lora.quantize = "4bit"' if spec.lora and spec.lora.quantize is None else "",
        f"a train.max_length below {spec.max_length}",
        "FSDP or DeepSpeed over several GPUs by train.accelerate_config" if spec.accelerate_config is None else "",
    ]
    return ", ".join(filter(None, found))


def divisors_below(batch: int, effective: int) -> list[int]:
    """Batch sizes to try after `batch`: each at most half of the last, all of them parts of the effective batch."""
    found: list[int] = []
    while batch > 1:
        batch = next(size for size in range(batch // 2, 0, -1) if effective % size == 0)
        found.append(batch)
    return found


def checkpointing(spec: TrainSpec, on_gpu: bool) -> bool:
    """Whether activations are computed again instead of kept."""
    return on_gpu if spec.gradient_checkpointing is None else spec.gradient_checkpointing
