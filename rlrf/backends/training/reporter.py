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
"""Written into a checkpoint after everything else, with the sizes of all files; a checkpoint without it was being
written when the process died."""


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
        _go_on_counting(self._trainer, state)
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
            marker = {"spec_hash": self._job.identity, "step": state.global_step, "files": _sizes(folder)}
            write_json(folder / COMPLETE_FILE, marker)
        self._emit({"event": "saved", "step": state.global_step, "steps": state.max_steps})


def _go_on_counting(trainer: Trainer, state: TrainerState) -> None:
    """trl 1.16 counts the tokens that it has seen from 0 again when it resumes."""
    seen = [entry["num_tokens"] for entry in state.log_history if "num_tokens" in entry]
    if seen and hasattr(trainer, "_total_train_tokens"):
        trainer._total_train_tokens = int(seen[-1])


class Phases:
    """Seconds of a training's parts, one after the other."""

    def __init__(self, began: float) -> None:
        self.began = self._last = began
        self.seconds: dict[str, float] = {}

    def end(self, name: str) -> None:
        """Close the part that has run since the last call."""
        self.seconds[name] = round(time.monotonic() - self._last, 3)
        self._last = time.monotonic()


def last_checkpoint(job: TrainJob) -> tuple[str | None, list[str]]:
    """The whole checkpoint of the highest step, and why each other one that is newer can't be gone on from."""
    newest = sorted(job.folder.glob("checkpoint-*"), key=_step, reverse=True)
    refused: list[str] = []
    for checkpoint in newest:
        fault = _fault(checkpoint, job.identity)
        if fault is None:
            return str(checkpoint), refused
        refused.append(f"{checkpoint.name}: {fault}")
        logger.warning("ignoring checkpoint %r: %s", str(checkpoint), fault)
    return None, refused


def _step(checkpoint: Path) -> int:
    number = checkpoint.name.rpartition("-")[2]
    return int(number) if number.isdigit() else -1


def _fault(checkpoint: Path, identity: str) -> str | None:
    """Why a checkpoint can't be gone on from, None if it can."""
    try:
        marker = json.loads((checkpoint / COMPLETE_FILE).read_text(encoding="utf-8"))
    except OSError:
        return "it was being written when the process ended"
    except ValueError as error:
        return f"its {COMPLETE_FILE} is damaged ({error})"
    if marker.get("spec_hash") != identity:
        return "it is of another training"
    sizes = _sizes(checkpoint)
    wrong = [name for name, size in marker.get("files", {}).items() if sizes.get(name) != size]
    return f"damaged: {', '.join(wrong)} missing or of another size" if wrong else None


def _sizes(checkpoint: Path) -> dict[str, int]:
    files = [path for path in sorted(checkpoint.rglob("*")) if path.is_file() and path.name != COMPLETE_FILE]
    return {path.relative_to(checkpoint).as_posix(): path.stat().st_size for path in files}


def numbers(logs: dict[str, Any]) -> dict[str, float]:
    """The metrics among what the trainer logs."""
    return {name: float(value) for name, value in logs.items() if isinstance(value, int | float)}
