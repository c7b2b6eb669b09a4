"""Where a bootstrap is, on disk: what a kill leaves, and the next run goes on from."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from rlrf.errors import TrainingError

FILE, LOCK = "bootstrap.safetensors", "bootstrap.lock"

Say = Callable[[str], None]


class Checkpoint:
    """One file: weights and optimizer states, and in its header the steps done and whose they are.

    A newer one replaces the older in a rename, so the file is whole or absent, whenever the process is killed.
    """

    def __init__(self, work: Path, identity: str) -> None:
        self._path, self._identity = work / FILE, identity

    def save(self, step: int, model: torch.nn.Module, optimizers: Sequence[torch.optim.Optimizer]) -> None:
        """Keep the state after `step` steps, durably."""
        tensors = {name: tensor.detach() for name, tensor in _tensors(model, optimizers)}
        partial = self._path.with_name(FILE + ".partial")
        save_file(tensors, partial, metadata={"identity": self._identity, "step": str(step)})
        sync(partial)
        partial.replace(self._path)
        sync(self._path.parent)

    def load(self, model: torch.nn.Module, optimizers: Sequence[torch.optim.Optimizer], say: Say) -> int:
        """Put the kept state into fresh ones; returns the steps done, 0 where there is nothing that can be used."""
        if not self._path.exists():
            return 0
        try:
            with safe_open(self._path, "pt") as file:
                about = file.metadata() or {}
                if about.get("identity") != self._identity:
                    say(f"checkpoint {str(self._path)!r} is of another bootstrap: not used, training starts over")
                    return 0
                kept = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  # not a dict
        except (SafetensorError, OSError) as error:
            say(f"checkpoint {str(self._path)!r} is damaged ({error}): not used, training starts over")
            return 0
        _restore(model, optimizers, kept)
        return int(about["step"])


def _tensors(model: torch.nn.Module, optimizers: Sequence[torch.optim.Optimizer]) -> Iterator[tuple[str, Tensor]]:
    names: dict[Tensor, str] = {parameter: name for name, parameter in model.named_parameters()}
    for parameter, name in names.items():
        yield f"weight/{name}", parameter
    for optimizer in optimizers:
        for matrix, state in optimizer.state.items():
            for kind, tensor in state.items():
                yield f"{kind}/{names[matrix]}", tensor.contiguous()


@torch.no_grad()
def _restore(model: torch.nn.Module, optimizers: Sequence[torch.optim.Optimizer], kept: dict[str, Tensor]) -> None:
    owners = {p: optimizer for optimizer in optimizers for group in optimizer.param_groups for p in group["params"]}
    parameters = dict(model.named_parameters())
    for place, tensor in kept.items():
        kind, _, name = place.partition("/")
        if kind == "weight":
            parameters[name].copy_(tensor)
        else:
            owners[parameters[name]].state[parameters[name]][kind] = tensor


@contextmanager
def locked(work: Path) -> Iterator[None]:
    """Nobody else writes to this folder meanwhile; the lock dies with the process.

    Raises:
        TrainingError: another process has it.
    """
    work.mkdir(parents=True, exist_ok=True)
    with (work / LOCK).open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise TrainingError(f"another process is at work in {str(work)!r}; wait for it") from error
        yield


def sync(path: Path) -> None:
    """Make a file, or the names in a folder, durable."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
