"""What the trainer's callbacks become: events, complete checkpoints, and a stop when a rule is broken."""

from __future__ import annotations

import json
import logging
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from accelerate import PartialState  # type: ignore[import-untyped]
from transformers import Trainer, TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from rlrf.backends.training.health import HealthRules
from rlrf.backends.training.memory import check_memory
from rlrf.backends.training.policy import write_json
from rlrf.backends.training.rows import Columns
from rlrf.backends.training.train import TrainJob

logger = logging.getLogger(__name__)

Emit = Callable[[dict[str, Any]], None]

COMPLETE_FILE = "complete.json"
"""Written into a checkpoint after everything else; one without it was being written when the process died."""


class Reporter(TrainerCallback):
    """Reports one training; lives in every process, and `emit` does nothing in all but the main one."""

    def __init__(self, emit: Emit, job: TrainJob, trainer: Trainer, columns: Columns, facts: dict[str, Any]) -> None:
        self._emit = emit
        self._job = job
        self._trainer = trainer
        self._columns = columns
        self._facts = facts
        self._health = HealthRules(job.spec, columns)
        self._logged = 0

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        memory = check_memory(self._trainer, self._job.spec, self._columns)
        self._logged = state.global_step
        at = {"pid": os.getpid(), "steps": state.max_steps, "resumed_from": state.global_step}
        self._emit({"event": "started", **at, "memory": memory, **self._facts})

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        if not logs or "loss" not in logs:
            return
        values = numbers(logs)
        self._health.check(state.global_step, state.global_step - self._logged, values)
        self._logged = state.global_step
        self._emit({"event": "step", "step": state.global_step, "steps": state.max_steps, **values})

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        # transformers 5.17 takes one step too many when it resumes from a checkpoint of the last step.
        if state.global_step >= state.max_steps:
            control.should_save = False

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        # Each process writes its own random state, and a split model's own part.
        PartialState().wait_for_everyone()
        if PartialState().is_main_process:
            folder = Path(str(args.output_dir)) / f"checkpoint-{state.global_step}"
            write_json(folder / COMPLETE_FILE, {"spec_hash": self._job.identity, "step": state.global_step})
        self._emit({"event": "saved", "step": state.global_step, "steps": state.max_steps})


class Phases:
    """Seconds of a training's parts, one after the other."""

    def __init__(self, began: float) -> None:
        self.began = self._last = began
        self.seconds: dict[str, float] = {}

    def end(self, name: str) -> None:
        """Close the part that has run since the last call."""
        self.seconds[name] = round(time.monotonic() - self._last, 3)
        self._last = time.monotonic()


def last_checkpoint(job: TrainJob) -> str | None:
    """The complete checkpoint of the highest step; others are named in the log and left alone."""
    complete: dict[int, Path] = {}
    for checkpoint in sorted(job.folder.glob("checkpoint-*")):
        marker = checkpoint / COMPLETE_FILE
        content = json.loads(marker.read_text(encoding="utf-8")) if marker.is_file() else {}
        if content.get("spec_hash") == job.identity:
            complete[content["step"]] = checkpoint
        else:
            logger.warning("ignoring checkpoint %r: not complete, or of another spec", str(checkpoint))
    return str(complete[max(complete)]) if complete else None


def numbers(logs: dict[str, Any]) -> dict[str, float]:
    """The metrics among what the trainer logs."""
    return {name: float(value) for name, value in logs.items() if isinstance(value, int | float)}
