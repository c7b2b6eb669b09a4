"""Trains the shipped tiny policy from nothing and saves it as a Hugging Face folder."""

from __future__ import annotations

import random
import shutil
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from pathlib import Path

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast
from transformers.utils import logging as transformers_logging

from rlrf.backends.bootstrap_checkpoint import Checkpoint, Say, locked, sync
from rlrf.backends.muon import make_muon
from rlrf.backends.tiny_tokenizer import END, train_tokenizer
from rlrf.curriculum import Chat, Curriculum
from rlrf.errors import TrainingError
from rlrf.fingerprints import content_id
from rlrf.stages import CODE
from rlrf.word_problems import LARGEST

STEPS = 1400
"""Optimiser steps of a full bootstrap; a quick one, for tests, takes a few."""

SAVE_EVERY = 50
"""Steps between checkpoints: what a kill costs, some 5 s on one core. A checkpoint takes 0.05 s."""

CONTEXT = 1024
VOCABULARY = 1024
TOKENIZER_CHATS = 2000
BATCH_TOKENS = 1024
LENGTH_POOL = 1024

DRILL_SHARE = 0.15
"""Share of all steps, the first ones, that only drill recall."""
QUESTION_LOSS_SHARE = 0.3
"""Share of all steps, the first ones, that also learn to predict questions and feedback."""
REFLECTION_SHARE = 0.35
"""Share of the batches after the drills that rewrite drafts."""

MATRIX_RATE, OTHER_RATE = 0.02, 3e-3
WARM_UP_SHARE, LAST_RATE = 0.04, 0.02
IGNORED = -100

Progress = Callable[[int, int], None]
"""Called after each optimiser step with the steps done and the steps in all."""

Row = tuple[list[int], list[int], list[int]]
"""Token ids, labels with questions and feedback, labels of the last turn only."""


def bootstrap(
    folder: Path,
    *,
    seed: int,
    demonstrations: Curriculum,
    steps: int = STEPS,
    begin: Callable[[int], None] = lambda kept: None,
    progress: Progress | None = None,
    say: Say = lambda text: None,
) -> None:
    """Train a tokenizer and a Llama-shaped policy of 0.7M parameters, and put the complete folder in place at once.

    The same seed, curriculum and thread count give the same weights. A killed run leaves nothing at `folder`; the next
    one goes on from its last checkpoint, in `<folder>.work`, to the same weights. `begin` gets the steps that were kept.

    Raises:
        TrainingError: `folder` exists, `steps` is below 1, a kind of chat is missing, another process makes the same
            folder, or the loss is not finite.
    """
    if steps < 1:
        raise TrainingError(f"bootstrap: steps {steps!r}; give at least 1")
    if not (demonstrations.drills and demonstrations.solutions and demonstrations.reflections):
        raise TrainingError("bootstrap: the curriculum lacks a kind of chat; give drills, solutions and reflections")
    if folder.exists():
        raise TrainingError(f"bootstrap: {str(folder)!r} exists; remove it or give another folder")
    work = folder.with_name(folder.name + ".work")
    with locked(work):
        tokenizer = train_tokenizer(
            _some_of_each(demonstrations), largest_number=LARGEST, vocabulary=VOCABULARY, context=CONTEXT
        )
        checkpoint = Checkpoint(work, _identity(seed, steps, demonstrations))
        model = _train(tokenizer, demonstrations, seed, steps, checkpoint, begin, progress, say)
        _save(folder, work / "result", model, tokenizer)
        shutil.rmtree(work, ignore_errors=True)


def _identity(seed: int, steps: int, curriculum: Curriculum) -> str:
    """Whose checkpoint it is. Another torch may take other steps."""
    kinds = [curriculum.drills, curriculum.solutions, curriculum.reflections]
    return content_id("bootstrap", [CODE["bootstrap"], torch.__version__, seed, steps, kinds])


def _some_of_each(curriculum: Curriculum) -> tuple[Chat, ...]:
    """Enough chats to meet every word; more only take time."""
    return curriculum.solutions[:TOKENIZER_CHATS] + curriculum.reflections[:TOKENIZER_CHATS]


def _train(
    tokenizer: PreTrainedTokenizerFast,
    curriculum: Curriculum,
    seed: int,
    steps: int,
    checkpoint: Checkpoint,
    begin: Callable[[int], None],
    progress: Progress | None,
    say: Say,
) -> LlamaForCausalLM:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model: LlamaForCausalLM = LlamaForCausalLM(_shape(tokenizer))  # type: ignore[no-untyped-call]
    model.train()
    optimizers = _optimizers(model)
    kept = checkpoint.load(model, optimizers, say)
    begin(kept)
    # The batches of the steps that were kept are drawn too: those after them depend on it.
    for step, batch in islice(enumerate(_drawn(tokenizer, curriculum, seed, steps)), kept, None):
        done = step / steps
        loss = _loss(model, batch, with_questions=DRILL_SHARE <= done < QUESTION_LOSS_SHARE)
        if not bool(torch.isfinite(loss)):
            raise TrainingError(f"bootstrap: loss {loss.item()!r} at step {step}; train with another seed")
        _update(model, optimizers, loss, _rate(step, steps))
        if progress:
            progress(step + 1, steps)
        if (step + 1) % SAVE_EVERY == 0 and step + 1 < steps:
            checkpoint.save(step + 1, model, optimizers)
    model.eval()  # type: ignore[no-untyped-call]
    return model


def _drawn(
    tokenizer: PreTrainedTokenizerFast, curriculum: Curriculum, seed: int, steps: int
) -> Iterator[Sequence[Row]]:
    """The batch of every step."""
    rng = random.Random(f"bootstrap/{seed}")
    drills, solutions, reflections = (
        _batches([_encode(tokenizer, chat) for chat in chats], rng)
        for chats in (curriculum.drills, curriculum.solutions, curriculum.reflections)
    )
    for step in range(steps):
        drilling = step / steps < DRILL_SHARE
        yield next(drills if drilling else reflections if rng.random() < REFLECTION_SHARE else solutions)


def _shape(tokenizer: PreTrainedTokenizerFast) -> LlamaConfig:
    return LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=128,
        intermediate_size=352,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=4,
        head_dim=32,
        max_position_embeddings=CONTEXT,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        dtype="float32",
    )


def _encode(tokenizer: PreTrainedTokenizerFast, chat: Chat) -> Row:
    """A chat as the chat template renders it. Drafts are never learnt: they are wrong."""
    ids: list[int] = []
    with_questions: list[int] = []
    last_only: list[int] = []
    for place, message in enumerate(chat, start=1):
        text = tokenizer.encode(message["content"] + END, add_special_tokens=False)
        ids += [*tokenizer.encode(f"<|{message['role']}|>"), *text]
        ignored, last = [IGNORED] * len(text), place == len(chat)
        with_questions += [IGNORED, *(text if last or message["role"] != "assistant" else ignored)]
        last_only += [IGNORED, *(text if last else ignored)]
    return ids, with_questions, last_only


def _batches(rows: Sequence[Row], rng: random.Random) -> Iterator[list[Row]]:
    """Endless batches of rows of like length, at most BATCH_TOKENS with padding."""
    while True:
        order = rng.sample(rows, len(rows))
        for start in range(0, len(order), LENGTH_POOL):
            batches = list(_fill(sorted(order[start : start + LENGTH_POOL], key=lambda row: len(row[0]))))
            yield from rng.sample(batches, len(batches))


def _fill(rows: Sequence[Row]) -> Iterator[list[Row]]:
    """Consecutive batches of rows that come shortest first."""
    batch: list[Row] = []
    for row in rows:
        if batch and (len(batch) + 1) * len(row[0]) > BATCH_TOKENS:
            yield batch
            batch = []
        batch.append(row)
    yield batch


def _loss(model: LlamaForCausalLM, batch: Sequence[Row], *, with_questions: bool) -> Tensor:
    """Mean nats per labelled token. Padding is on the right, so causal attention needs no mask."""
    longest = max(len(ids) for ids, _, _ in batch)
    ids = torch.tensor([row[0] + [0] * (longest - len(row[0])) for row in batch])
    chosen = [row[1] if with_questions else row[2] for row in batch]
    labels = torch.tensor([row + [IGNORED] * (longest - len(row)) for row in chosen])[:, 1:]
    hidden = model.model(input_ids=ids, use_cache=False).last_hidden_state[:, :-1]
    labelled = labels != IGNORED
    return cross_entropy(model.lm_head(hidden[labelled]), labels[labelled])


def _optimizers(model: LlamaForCausalLM) -> list[torch.optim.Optimizer]:
    """Muon (Jordan 2024) for the matrices inside the layers, AdamW for embeddings and norms: fewer steps than AdamW alone."""
    matrices = [p for name, p in model.named_parameters() if p.ndim == 2 and name.startswith("model.layers")]
    others = [p for name, p in model.named_parameters() if p.ndim != 2 or not name.startswith("model.layers")]
    return [
        make_muon(matrices, lr=MATRIX_RATE, weight_decay=0.01),
        torch.optim.AdamW(others, lr=OTHER_RATE, weight_decay=0.0, betas=(0.9, 0.98), fused=True),
    ]


def _rate(step: int, steps: int) -> float:
    """The factor on the learning rates: a short rise, then linearly down."""
    return min(1.0, (step + 1) / max(1.0, WARM_UP_SHARE * steps)) * max(LAST_RATE, 1 - step / steps)


def _update(model: LlamaForCausalLM, optimizers: Sequence[torch.optim.Optimizer], loss: Tensor, rate: float) -> None:
    loss.backward()  # type: ignore[no-untyped-call]
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    for optimizer, full_rate in zip(optimizers, (MATRIX_RATE, OTHER_RATE), strict=True):
        for group in optimizer.param_groups:
            group["lr"] = full_rate * rate
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)


def _save(folder: Path, scratch: Path, model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast) -> None:
    """Write another folder, make it durable, then rename it into place."""
    shutil.rmtree(scratch, ignore_errors=True)  # what a kill left
    transformers_logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    model.save_pretrained(scratch)
    tokenizer.save_pretrained(scratch)
    for path in [*scratch.iterdir(), scratch]:
        sync(path)
    scratch.rename(folder)
    sync(folder.parent)
