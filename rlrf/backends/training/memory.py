"""Does the batch fit? A forward and backward pass of the longest rows before the first step, and a proposal if not."""

from __future__ import annotations

import gc
import os
import resource
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import torch

from rlrf.backends.training.proposals import divisors_below, proposal
from rlrf.backends.training.rows import Columns, row_lengths
from rlrf.backends.training.spec import TrainSpec
from rlrf.errors import TrainingError

OPTIMIZER_BYTES = 8
"""AdamW's two float32 moments per trained parameter; they come with the first step, after the trial."""

ACTIVATION_BYTES = 80
"""Rough bytes per token, layer and hidden unit that a float32 backward pass keeps (Korthikanti et al. 2022: 34 in 16 bit)."""

HEAD_TOKENS, HEAD_BYTES = 4096, 4 * 32768
"""trl's buffer for logits: tokens at most, and bytes per token whatever the vocabulary."""

RISK = 0.5
"""On a CPU the trial is made only if the estimate is more than this share of what is free."""

SHARE = 0.9
"""Of what is free on a CPU, what the trial may take: steps also hold the next batches."""

CGROUP = Path("/sys/fs/cgroup")


def check_memory(trainer: Any, spec: TrainSpec, columns: Columns) -> Literal["fits", "unchecked"]:
    """Try the longest rows at the configured batch size; weights, gradients and random numbers stay as they were.

    "unchecked" means that nothing was tried: on a CPU with plenty of memory, and under DeepSpeed, whose engine would
    count the trial as a step. Every process of a training must call it.

    Raises:
        TrainingError: it doesn't fit; proposes the batch size that does, with the same pairs per step.
    """
    on_cpu = trainer.accelerator.device.type == "cpu"
    if trainer.is_deepspeed_enabled or (on_cpu and not _at_risk(trainer, spec, columns)):
        return "unchecked"
    devices = [] if on_cpu else [trainer.accelerator.device]
    with _catchable(on_cpu), torch.random.fork_rng(devices):
        fitting = _largest(trainer, spec, columns)
    fitting = int(trainer.accelerator.gather(torch.tensor([fitting], device=trainer.accelerator.device)).min())
    if fitting < spec.batch_size:
        raise TrainingError(proposal(spec, fitting, "before the first step, the longest rows don't fit into memory"))
    return "fits"


def _largest(trainer: Any, spec: TrainSpec, columns: Columns) -> int:
    """The largest batch size that fits, 0 for none."""
    longest = sorted(range(len(lengths := row_lengths(columns))), key=lambda row: -lengths[row])
    sizes = [spec.batch_size, *divisors_below(spec.batch_size, spec.batch_size * spec.gradient_accumulation)]
    for size in sizes:
        rows = [trainer.train_dataset[row] for row in (longest * size)[:size]]
        if _fits(lambda rows=rows: _pass(trainer, rows)):  # type: ignore[misc]
            return size
        if trainer.is_fsdp_enabled:
            # The other processes may be waiting for this one in the middle of a pass, so it can't try again.
            raise TrainingError(
                proposal(spec, size // 2, "before the first step, the longest rows don't fit into memory")
            )
    return 0


def _pass(trainer: Any, rows: Sequence[dict[str, Any]]) -> None:
    """Forward and backward of one micro-batch as trl does it, with no communication and what the optimizer will hold."""
    model = trainer.model
    device = trainer.accelerator.device
    inputs = trainer.data_collator(list(rows))
    inputs = {name: tensor.to(device) for name, tensor in inputs.items() if not name.startswith("ref_")}
    mask = inputs.pop("completion_mask", None)
    if mask is not None:
        inputs["labels"] = inputs["input_ids"].masked_fill(mask == 0, -100)
    held = torch.empty(OPTIMIZER_BYTES * _trained(model), dtype=torch.uint8, device=device)
    was_training = model.training
    model.train()
    try:
        with trainer.compute_loss_context_manager():
            loss = model(**inputs, use_cache=False, fused_lm_head=True).log_probs.sum()
        loss.backward()
    finally:
        model.train(was_training)
        model.zero_grad(set_to_none=True)
        del held


def _fits(attempt: Callable[[], None]) -> bool:
    try:
        attempt()
        return True
    except (RuntimeError, MemoryError) as error:
        if not out_of_memory(error):
            raise
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    return False


def out_of_memory(error: Exception) -> bool:
    """Whether an error is a lack of memory; PyTorch's CPU allocator has no class of its own for it."""
    signs = ("allocate memory", "could not create a memory object")
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or any(sign in str(error) for sign in signs)


def _at_risk(trainer: Any, spec: TrainSpec, columns: Columns) -> bool:
    """Whether gradients, optimizer state and activations come near to what this process's share of memory is."""
    config = trainer.model.config.get_text_config()
    tokens = spec.batch_size * max(row_lengths(columns)) * (2 if spec.method == "dpo" else 1)
    activations = tokens * config.hidden_size * config.num_hidden_layers * ACTIVATION_BYTES
    needed = _trained(trainer.model) * (4 + OPTIMIZER_BYTES) + activations + min(tokens, HEAD_TOKENS) * HEAD_BYTES
    return bool(needed > RISK * free_memory() / trainer.accelerator.num_processes)


def _trained(model: torch.nn.Module) -> int:
    """Trained parameters of this process; of a tensor that FSDP 2 split, its own part."""
    parameters = (parameter for parameter in model.parameters() if parameter.requires_grad)
    return sum(getattr(parameter, "_local_tensor", parameter).numel() for parameter in parameters)


def free_memory() -> int:
    """Bytes that this process may still take: of the machine, its control group and its own limit; Linux only."""
    if not Path("/proc/meminfo").is_file():
        return 1 << 62
    free = [_available()]
    limit, used = (_number(CGROUP / name) for name in ("memory.max", "memory.current"))
    if limit is not None and used is not None:
        free.append(limit - used)
    soft, _ = resource.getrlimit(resource.RLIMIT_AS)
    if soft != resource.RLIM_INFINITY:
        free.append(soft - _address_space())
    return max(0, min(free))


@contextmanager
def _catchable(on_cpu: bool) -> Iterator[None]:
    """On a CPU, a limit at what is free turns the kernel's kill into an error that can be caught."""
    if not on_cpu:
        yield
        return
    before = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (_address_space() + int(SHARE * free_memory()), before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)


def _available() -> int:
    lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:"))


def _address_space() -> int:
    return int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0]) * os.sysconf("SC_PAGE_SIZE")


def _number(path: Path) -> int | None:
    try:
        return int(path.read_text(encoding="ascii"))
    except (OSError, ValueError):
        return None
