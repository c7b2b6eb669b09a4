from __future__ import annotations

import pytest
import torch

from rlrf.backends.muon import Float32Muon


@pytest.mark.parametrize("shape", [(24, 24), (16, 40), (40, 16)])
def test_its_steps_are_those_of_torch_up_to_rounding(shape: tuple[int, int]) -> None:
    torch.manual_seed(0)
    start = torch.randn(shape)
    ours, theirs = (torch.nn.Parameter(start.clone()) for _ in range(2))
    optimizers = [
        kind([one], lr=0.1, weight_decay=0.05) for kind, one in ((Float32Muon, ours), (torch.optim.Muon, theirs))
    ]
    for _ in range(4):
        gradient = torch.randn(shape)
        for optimizer, one in zip(optimizers, (ours, theirs), strict=True):
            one.grad = gradient.clone()
            optimizer.step()
    moved = (theirs - start).abs().max()
    assert (ours - theirs).abs().max() < 0.05 * moved
    assert moved > 0.05
