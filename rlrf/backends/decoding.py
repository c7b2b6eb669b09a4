"""The decoding loop over a causal language model: one seed per row, finished rows leave the batch.

A row's tokens are a function of the weights, its prompt, the sampling and its seed. Its neighbours in the batch enter
only through floating-point rounding: the randomness is a hash of (seed, step), not a shared generator's state.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import PreTrainedModel
from transformers.cache_utils import DynamicCache

from rlrf.errors import BackendError
from rlrf.records import Sampling

STOP_CHECK_STEPS = 8
"""How often rows are looked through for stop strings; what they said past one is cut off, so this is only a cost."""

COMPACT_SHARE = 0.1
"""Share of finished rows from which on the cache is copied without them."""


@dataclass(frozen=True, slots=True)
class Drawn:
    """The token ids that one row drew, without its end-of-sequence token, and whether it ended itself by one."""

    token_ids: list[int]
    ended: bool


@torch.inference_mode()
def decode(
    model: PreTrainedModel,
    prompts: Sequence[Sequence[int]],
    seeds: Sequence[int],
    sampling: Sampling,
    eos_ids: Sequence[int],
    has_stop: Callable[[list[list[int]]], list[bool]] | None = None,
) -> list[Drawn]:
    """Draw one continuation per prompt; equal prompts are read by the model once.

    Args:
        model: a decoder with a key-value cache, in eval mode.
        prompts: B token id lists, none empty.
        seeds: B seeds, taken modulo 2**64.
        has_stop: tells for token id lists whether their texts hold a stop string; such rows stop being drawn.

    Raises:
        BackendError: the model returned logits that are not finite.
    """
    device = model.device
    eos = torch.tensor(sorted(eos_ids), device=device)
    hashes = _seed_tensor(seeds, device)
    logits, cache, mask = _prefill(model, prompts)
    position = mask.sum(dim=1, keepdim=True)
    rows = torch.arange(len(prompts), device=device)
    done = torch.zeros(len(prompts), dtype=torch.bool, device=device)
    drawn = torch.full((len(prompts), sampling.max_tokens), -1, device=device)
    for step in range(sampling.max_tokens):
        token = pick(logits, uniforms(hashes[rows], step), sampling)
        drawn[rows, step] = token
        done |= torch.isin(token, eos)
        if has_stop and step % STOP_CHECK_STEPS == STOP_CHECK_STEPS - 1:
            done |= torch.tensor(has_stop(drawn[rows, : step + 1].tolist()), device=device)
        finished = int(done.sum())
        if finished == len(rows) or step == sampling.max_tokens - 1:
            break
        if finished >= COMPACT_SHARE * len(rows):
            keep = (~done).nonzero().squeeze(1)
            cache.batch_select_indices(keep)
            rows, mask, position, token, done = rows[keep], mask[keep], position[keep], token[keep], done[keep]
        mask = torch.cat([mask, mask.new_ones(len(rows), 1)], dim=1)
        logits = _forward(model, token[:, None], mask, position, cache)
        position = position + 1
    return [_cut(row, set(eos_ids)) for row in drawn.tolist()]


def uniforms(seeds: Tensor, step: int) -> Tensor:
    """One float64 in [0, 1) per seed, shape [B]: SplitMix64 (Steele et al. 2014) of the mixed seed and the step.

    52 bits, so that the product with a sum stays strictly below the sum.
    """
    mixed = _mix(_mix(seeds) + _wrap((step + 1) * 0x9E3779B97F4A7C15))
    return _shift(mixed, 12).double() * 2.0**-52


def pick(logits: Tensor, uniform: Tensor, sampling: Sampling) -> Tensor:
    """One token per row, shape [B]: the largest logit at temperature 0, else by inverse CDF of the filtered softmax.

    Args:
        logits: [B, V], any float dtype.
        uniform: [B], in [0, 1).
    """
    peak, best = logits.float().max(dim=-1)
    if not bool(torch.isfinite(peak).all()):
        raise BackendError("the model's logits are not finite; its weights are damaged, or its dtype is too narrow")
    if sampling.temperature == 0:
        return best
    probabilities = torch.softmax(logits.float() / sampling.temperature, dim=-1)
    if sampling.top_p < 1:
        probabilities = _keep_nucleus(probabilities, sampling.top_p)
    cumulative = probabilities.cumsum(dim=-1, dtype=torch.float64)
    # right=True: the first entry above the threshold, so a token of probability zero is never picked.
    return torch.searchsorted(cumulative, uniform[:, None] * cumulative[:, -1:], right=True).squeeze(1)


def _keep_nucleus(probabilities: Tensor, top_p: float) -> Tensor:
    """Zero all but the smallest set of most probable tokens whose probabilities sum up to at least top_p."""
    ordered, order = probabilities.sort(dim=-1, descending=True, stable=True)
    before = ordered.cumsum(dim=-1) - ordered
    return torch.zeros_like(probabilities).scatter(-1, order, ordered.masked_fill(before >= top_p, 0.0))


def _prefill(model: PreTrainedModel, prompts: Sequence[Sequence[int]]) -> tuple[Tensor, DynamicCache, Tensor]:
    """Read each distinct prompt once; return last logits [B, V], the cache and the attention mask [B, longest]."""
    distinct = list(dict.fromkeys(tuple(prompt) for prompt in prompts))
    index = {prompt: row for row, prompt in enumerate(distinct)}
    owner = torch.tensor([index[tuple(prompt)] for prompt in prompts], device=model.device)
    longest = max(map(len, distinct))
    ids = torch.tensor([[0] * (longest - len(p)) + list(p) for p in distinct], device=model.device)
    mask = torch.tensor([[0] * (longest - len(p)) + [1] * len(p) for p in distinct], device=model.device)
    cache = DynamicCache(config=model.config)
    logits = _forward(model, ids, mask, (mask.cumsum(dim=1) - 1).clamp(min=0), cache)
    if len(distinct) < len(prompts):
        cache.batch_select_indices(owner)
        logits, mask = logits[owner], mask[owner]
    return logits, cache, mask


def _forward(model: PreTrainedModel, ids: Tensor, mask: Tensor, position: Tensor, cache: DynamicCache) -> Tensor:
    output = model(
        input_ids=ids,
        attention_mask=mask,
        position_ids=position,
        past_key_values=cache,
        use_cache=True,
        logits_to_keep=1,
    )
    logits: Tensor = output.logits[:, -1]
    return logits


def _cut(row: list[int], eos: set[int]) -> Drawn:
    end = next((step for step, token in enumerate(row) if token < 0 or token in eos), len(row))
    return Drawn(row[:end], ended=end < len(row) and row[end] in eos)


def _seed_tensor(seeds: Sequence[int], device: torch.device) -> Tensor:
    return torch.tensor([_wrap(seed) for seed in seeds], dtype=torch.int64, device=device)


def _wrap(value: int) -> int:
    """Two's complement of the lowest 64 bits: torch has no arithmetic on unsigned 64-bit integers."""
    return ((value + (1 << 63)) % (1 << 64)) - (1 << 63)


def _shift(value: Tensor, bits: int) -> Tensor:
    """Logical right shift; torch's own keeps the sign."""
    return (value >> bits) & ((1 << (64 - bits)) - 1)


def _mix(value: Tensor) -> Tensor:
    value = (value ^ _shift(value, 30)) * _wrap(0xBF58476D1CE4E5B9)
    value = (value ^ _shift(value, 27)) * _wrap(0x94D049BB133111EB)
    return value ^ _shift(value, 31)
