"""Builders of specs and data for trainings of the tiny model that take a second."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from rlrf.backends.training.spec import TrainSpec
from rlrf.backends.training.train import Progress, plan
from rlrf.backends.training.trainer import run


def say(role: str, content: str) -> list[dict[str, str]]:
    return [{"role": role, "content": content}]


def pair(i: int, answer: str | None = None) -> dict[str, Any]:
    return {
        "prompt": say("user", f"{i} + {i + 1}?"),
        "chosen": say("assistant", answer or f"Step 1: {i} + {i + 1} = {2 * i + 1}. #### {2 * i + 1}"),
        "rejected": say("assistant", f"Tom had {i} marbles."),
    }


def write(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def build_spec(model: Path, folder: Path, **changes: Any) -> TrainSpec:
    data = folder / "pairs.jsonl"
    if not data.exists():
        write(data, [pair(i) for i in range(24)])
    fixed = {
        "method": "dpo",
        "model": model,
        "data": data,
        "output": folder / "out",
        "learning_rate": 1e-2,
        "max_steps": 6,
        "batch_size": 8,
        "max_length": 128,
        "log_every": 1,
        "device": "cpu",
    }
    return TrainSpec(**{**fixed, **changes})


def run_here(spec: TrainSpec) -> list[Progress]:
    """Train within this process: the same code without five seconds of imports."""
    events: list[Progress] = []
    job = plan(spec)
    job.folder.mkdir(parents=True, exist_ok=True)
    run(job, events.append)
    return events


def steps_of(events: list[Progress]) -> list[Progress]:
    return [event for event in events if event["event"] == "step"]
