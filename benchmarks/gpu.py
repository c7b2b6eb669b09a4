"""What a GPU box is bought for, in one table: `python -m benchmarks.gpu [--shape 1b]`; on a CPU a tiny shape runs.

Random weights of a Llama's shape. Exploring against vLLM offline and against a bare HTTP loop (`benchmarks.explore`), the
handover from the server to a DPO step and back, full and LoRA, the GPU's idle share meanwhile, and DPO tokens per second
against bare trl (`benchmarks.training`). What this machine can't measure is printed as not measured.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.shapes import SHAPES, build_shape
from rlrf.backends.engine.env import has_cuda
from rlrf.backends.engine.generator import open_vllm
from rlrf.backends.engine.pool import pool
from rlrf.backends.training.spec import TrainSpec
from rlrf.backends.training.train import train
from rlrf.engine_config import Vllm
from rlrf.records import Completion, Request, Sampling
from rlrf.train_config import Lora

UNMEASURED = "not measured (no GPU)"
SAMPLE_SECONDS = 0.2
RANK = 16


@dataclass
class Idle:
    """Samples the GPU's utilization while the block runs."""

    busy: list[bool] = field(default_factory=list)
    _over: threading.Event = field(default_factory=threading.Event)

    def __enter__(self) -> Idle:
        self._thread = threading.Thread(target=self._sample)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def share(self) -> str:
        """The share of samples in which no kernel ran."""
        return f"{1 - sum(self.busy) / len(self.busy):.0%}" if self.busy else UNMEASURED

    def _sample(self) -> None:
        tool = shutil.which("nvidia-smi")
        while tool and not self._over.wait(SAMPLE_SECONDS):
            query = [tool, "--query-gpu=utilization.gpu", "--format=csv,noheader,nounits"]
            said = subprocess.run(query, capture_output=True, text=True, check=False).stdout.split()
            if said and said[0].isdigit():
                self.busy.append(int(said[0]) > 0)


def explored(engine: Vllm, model: Path, lora: bool, logs: Path, prompts: int, max_tokens: int) -> tuple[float, float]:
    """Seconds until the first answer, and until the last."""
    rank = RANK if lora else None
    generator = open_vllm(
        pool, engine, model, lora_rank=rank, logs=logs, say=lambda text: print(f"  {text}", file=sys.stderr)
    )
    requests = [
        Request(f"{p}-{i}", ({"role": "user", "content": f"What is {p} + {p * 7 % 89}?"},), 1000 * p + i)
        for p in range(prompts)
        for i in range(8)
    ]
    began, first = time.monotonic(), 0.0
    for batch in generator.generate(requests, Sampling(max_tokens=max_tokens)):
        assert all(isinstance(one, Completion) for one in batch), batch[0]
        first = first or time.monotonic() - began
    return first, time.monotonic() - began


def handover(folder: Path, model: Path, lora: bool, prompts: int, max_tokens: int, steps: int) -> dict[str, str]:
    """Explore, give the GPU to a short DPO, explore with what it made."""
    data, kind = folder / "pairs.jsonl", "LoRA" if lora else "full"
    rows = [
        {
            "prompt": [{"role": "user", "content": f"What is {i} + {i}?"}],
            "chosen": [{"role": "assistant", "content": f"{i} + {i} = {2 * i}. #### {2 * i}"}],
            "rejected": [{"role": "assistant", "content": f"{i} + {i} = {3 * i}. #### {3 * i}"}],
        }
        for i in range(16 * steps)
    ]
    data.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    spec = TrainSpec(
        method="dpo",
        model=model,
        data=data,
        output=folder / f"policy-{kind}",
        learning_rate=1e-6,
        max_steps=steps,
        log_every=1,
        batch_size=16,
        max_length=512,
        lora=Lora(r=RANK, alpha=2 * RANK) if lora else None,
    )
    engine, times = Vllm(type="vllm", kv_cache_gib=0.25), dict[str, float]()
    with Idle() as idle:
        explored(engine, model, lora, folder, prompts, max_tokens)
        began = time.monotonic()
        pool.stop(lambda text: print(f"  {text}", file=sys.stderr))
        times["stopped"] = time.monotonic() - began

        def follow(event: dict[str, Any]) -> None:
            if event["event"] == "step":
                times.setdefault("first step", time.monotonic() - began)

        made = train(spec, follow)
        times["trained"] = time.monotonic() - began
        first, _ = explored(engine, made.folder, lora, folder, prompts, max_tokens)
        times["back"] = first
    pool.stop(lambda text: None)
    return {
        f"server stopped and memory free, {kind}": f"{times['stopped']:.1f} s",
        f"last response to first DPO step done, {kind}": f"{times['first step']:.1f} s",
        f"end of DPO to first responses of its policy, {kind}": f"{times['back']:.1f} s",
        f"GPU idle in explore, DPO of {steps} steps, explore, {kind}": idle.share(),
    }


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--shape", choices=SHAPES, default="1b" if has_cuda() else "tiny")
    arguments = parser.parse_args()
    has_gpu = has_cuda()
    sizes = ["--prompts", "1024", "--max-tokens", "256"] if has_gpu else ["--prompts", "64", "--max-tokens", "32"]
    commands = [
        [sys.executable, "-m", "benchmarks.explore", "--shape", arguments.shape, "--turns", "3", *sizes],
        [sys.executable, "-m", "benchmarks.training", "--shape", arguments.shape],
    ]
    print(f"# {arguments.shape} on {'a GPU' if has_gpu else 'a CPU'}\n")
    if not has_gpu:
        print("No GPU here: seconds are a CPU's, GPU figures are not measured.\n")
    with tempfile.TemporaryDirectory() as place:
        model = build_shape(arguments.shape, Path(place) / "model")
        figures: dict[str, str] = {}
        for lora in (False, True):
            figures |= handover(Path(place), model, lora, 256 if has_gpu else 16, 256 if has_gpu else 16, 8)
    print("| handover | |\n|---|---|")
    for name, value in figures.items():
        print(f"| {name} | {value} |")
    for command in commands:
        print(flush=True)
        subprocess.run(command, check=True)


if __name__ == "__main__":
    main()
