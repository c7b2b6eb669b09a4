"""Our DPO against bare trl: `python -m benchmarks.training [--shape tiny|1b]`.

The same pairs, settings, seed and process; turns alternate in who goes first. Tokens are trl's own count, chosen and rejected
with their prompts. "train" is the training loop, with our memory trial, health rules and events in it; "reference + train" is
what a training costs once the model is loaded. Bare trl is DPOTrainer on the same rows, with precomputed reference
log-probabilities and the same precision and gradient checkpointing. Start-up of our own process (imports) is left out.
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import json
import os
import random
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from statistics import mean
from typing import Any

import torch
from datasets import Dataset
from peft import LoraConfig
from trl.trainer.dpo_config import DPOConfig
from trl.trainer.dpo_trainer import DPOTrainer

from benchmarks.shapes import SHAPES, build_shape
from rlrf.backends.local import load_model
from rlrf.backends.model_info import load_tokenizer
from rlrf.backends.training.spec import TrainSpec
from rlrf.backends.training.train import RECORD_FILE, plan
from rlrf.backends.training.trainer import run
from rlrf.train_config import Lora

UNMEASURED = "not measured (no GPU)"
WORDS = ("Anna", "has", "12", "apples", "and", "buys", "7", "more", "so", "she", "shares", "19", "with", "4", "friends")


@dataclass
class Turn:
    """Tokens of one training, seconds of its parts, and GPU memory at its peak."""

    tokens: float
    reference: float
    train: float
    gib: float


class TimedTrainer(DPOTrainer):
    """trl's own trainer; only a clock is added."""

    reference_seconds = 0.0

    def _precompute_ref_logps(self, *args: Any, **kwargs: Any) -> Dataset:
        began = time.monotonic()
        dataset = super()._precompute_ref_logps(*args, **kwargs)
        self.reference_seconds = time.monotonic() - began
        return dataset


def write_pairs(path: Path, pairs: int, words: int, seed: int) -> Path:
    """Pairs of random words, lengths from half of `words` to `words`."""
    draw = random.Random(seed)

    def text() -> str:
        return " ".join(draw.choices(WORDS, k=draw.randint(words // 2, words)))

    def message(role: str) -> list[dict[str, str]]:
        return [{"role": role, "content": text()}]

    rows = [
        {"prompt": message("user"), "chosen": message("assistant"), "rejected": message("assistant")}
        for _ in range(pairs)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def ours(spec: TrainSpec) -> Turn:
    """What the training process does, in this one."""
    job = plan(spec)
    job.folder.mkdir(parents=True)
    run(job, lambda event: None)
    record = json.loads((spec.output / RECORD_FILE).read_text(encoding="utf-8"))
    phases = record["phases"]
    return Turn(record["metrics"][-1]["num_tokens"], phases["reference"], phases["train"], 0.0)


def bare(spec: TrainSpec) -> Turn:
    """What the same settings are in trl alone."""
    on_gpu = torch.cuda.is_available()
    arguments = DPOConfig(
        output_dir=str(spec.work),
        learning_rate=spec.learning_rate,
        num_train_epochs=spec.epochs,
        per_device_train_batch_size=spec.batch_size,
        warmup_steps=spec.warmup_ratio,
        lr_scheduler_type=spec.schedule,
        beta=spec.beta,
        max_length=None,
        seed=spec.seed,
        save_strategy="no",
        logging_steps=spec.log_every,
        report_to="none",
        disable_tqdm=True,
        precompute_ref_log_probs=True,
        use_cpu=not on_gpu,
        bf16=on_gpu,
        gradient_checkpointing=on_gpu,
    )
    lora = spec.lora
    adapter = (
        LoraConfig(r=lora.r, lora_alpha=lora.alpha, target_modules="all-linear", task_type="CAUSAL_LM")
        if lora
        else None
    )
    rows = [json.loads(line) for line in spec.data.read_text(encoding="utf-8").splitlines()]
    trainer = TimedTrainer(
        model=load_model(spec.model, "auto", "auto" if lora and on_gpu else "float32"),
        args=arguments,
        train_dataset=Dataset.from_list(rows),
        processing_class=load_tokenizer(spec.model),
        peft_config=adapter,
    )
    began = time.monotonic()
    trainer.train()
    seconds = time.monotonic() - began
    logged = [entry["num_tokens"] for entry in trainer.state.log_history if "num_tokens" in entry]
    return Turn(logged[-1], trainer.reference_seconds, seconds, 0.0)


def measured(side: Any, spec: TrainSpec) -> Turn:
    """One turn, with memory emptied before it and trl's printing out of the way."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    with open(os.devnull, "w") as nowhere, contextlib.redirect_stdout(nowhere):
        turn: Turn = side(spec)
    if torch.cuda.is_available():
        turn.gib = torch.cuda.max_memory_allocated() / 2**30
    return turn


def compare(model: Path, folder: Path, lora: bool, turns: int, pairs: int, words: int) -> dict[str, list[Turn]]:
    """Turns of both sides; the first of each only warms up."""
    found: dict[str, list[Turn]] = {"ours": [], "bare": []}
    sides = [("ours", ours), ("bare", bare)]
    for number in range(-1, turns):
        place = folder / f"{'lora' if lora else 'full'}-{number}"
        place.mkdir()
        size = pairs if number >= 0 else 16
        data = write_pairs(place / "pairs.jsonl", size, words, seed=number + 1)
        for name, side in sides if number % 2 else sides[::-1]:
            spec = TrainSpec(
                method="dpo",
                model=model,
                data=data,
                output=place / name / "out",
                learning_rate=1e-6,
                epochs=1.0,
                batch_size=16,
                max_length=4096,
                log_every=1,
                seed=max(0, number),
                lora=Lora(r=16, alpha=32) if lora else None,
            )
            print(f"  turn {number + 1} of {turns}, {name}", file=sys.stderr)
            turn = measured(side, spec)
            if number >= 0:
                found[name].append(turn)
    return found


def table_row(what: str, found: dict[str, list[Turn]]) -> str:
    """Means of the turns, and ratios with their range."""

    def rate(turn: Turn, whole: bool) -> float:
        return turn.tokens / (turn.train + whole * turn.reference)

    def cell(whole: bool) -> str:
        ratios = [rate(a, whole) / rate(b, whole) for a, b in zip(found["ours"], found["bare"], strict=True)]
        rates = [f"{mean(rate(turn, whole) for turn in found[side]):,.0f}" for side in ("ours", "bare")]
        return f"{rates[0]} | {rates[1]} | {mean(ratios):.3f} ({min(ratios):.3f} to {max(ratios):.3f})"

    peak = " / ".join(f"{max(turn.gib for turn in found[side]):.1f}" for side in ("ours", "bare"))
    return f"| {what} | {cell(False)} | {cell(True)} | {peak if torch.cuda.is_available() else UNMEASURED} |"


def main() -> None:
    """Print one table."""
    on_gpu = torch.cuda.is_available()
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--shape", choices=SHAPES, default="1b" if on_gpu else "tiny")
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--pairs", type=int, help="pairs per turn, 16 to a step")
    parser.add_argument("--words", type=int, help="words of a prompt or a response at most")
    arguments = parser.parse_args()
    pairs, words = arguments.pairs or (512 if on_gpu else 128), arguments.words or (256 if on_gpu else 24)
    head = ["train: ours", "bare trl", "ratio", "reference + train: ours", "bare trl", "ratio", "peak GiB, ours / bare"]
    print(f"DPO, tokens/s, {pairs} pairs, {arguments.turns} turns, threads {torch.get_num_threads()}\n")
    print(f"| training | {' | '.join(head)} |\n|{'---|' * (len(head) + 1)}", flush=True)
    with tempfile.TemporaryDirectory() as place:
        model = build_shape(arguments.shape, Path(place) / "model")
        for kind in ("full", "LoRA"):
            found = compare(model, Path(place), kind == "LoRA", arguments.turns, pairs, words)
            what = f"{arguments.shape}, {kind}, {'bfloat16, GPU' if on_gpu else 'float32, CPU'}"
            print(table_row(what, found), flush=True)
    if not on_gpu:
        for kind in ("full", "LoRA"):
            print(f"| 1b, {kind}, bfloat16, GPU | {' | '.join([UNMEASURED] * len(head))} |")


if __name__ == "__main__":
    main()
