"""Muon in float32, for processors without hardware for bfloat16."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor


def make_muon(matrices: Sequence[torch.nn.Parameter], *, lr: float, weight_decay: float) -> torch.optim.Muon:
    """torch's Muon (Jordan 2024), which multiplies in bfloat16; in float32 where that is several times faster."""
    has_bfloat16 = getattr(torch.cpu, "_is_amx_tile_supported", lambda: False)()
    kind = torch.optim.Muon if has_bfloat16 else Float32Muon
    return kind(matrices, lr=lr, weight_decay=weight_decay)


class Float32Muon(torch.optim.Muon):
    """The same steps as torch's up to bfloat16's rounding."""

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]  # a closure's loss: nobody here has one
        """One step over all groups."""
        for group in self.param_groups:
            for matrix in group["params"]:
                if matrix.grad is not None:
                    self._update(matrix, matrix.grad, group)

    def _update(self, matrix: Tensor, gradient: Tensor, group: dict[str, Any]) -> None:
        state = self.state[matrix]
        if not state:
            state["momentum_buffer"] = torch.zeros_like(gradient)
        momentum = state["momentum_buffer"].lerp_(gradient, 1 - group["momentum"])
        update = gradient.lerp(momentum, group["momentum"]) if group["nesterov"] else momentum
        update = _orthogonalised(update, group["ns_coefficients"], group["ns_steps"], group["eps"])
        rows, columns = matrix.shape
        matrix.mul_(1 - group["lr"] * group["weight_decay"])
        matrix.add_(update, alpha=-group["lr"] * max(1.0, rows / columns) ** 0.5)


def _orthogonalised(matrix: Tensor, coefficients: tuple[float, float, float], steps: int, eps: float) -> Tensor:
    """Roughly the nearest semi-orthogonal matrix: quintic Newton-Schulz iterations on the matrix over its norm."""
    a, b, c = coefficients
    is_tall = matrix.size(0) > matrix.size(1)
    found = matrix.T if is_tall else matrix
    found = found / found.norm().clamp(min=eps)
    for _ in range(steps):
        gram = found @ found.T
        found = torch.addmm(found, torch.addmm(gram, gram, gram, beta=b, alpha=c), found, beta=a)
    return found.T if is_tall else found
