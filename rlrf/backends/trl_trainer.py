"""One training with trl, inside the training process: data, trainer, checkpoints, and the result folder."""

from __future__ import annotations

import json
import logging
import math
import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset, disable_progress_bars
from peft import LoraConfig, PeftModel
from transformers import (
    PreTrainedModel,
    Trainer,
    TrainerCallback,
    TrainerControl,
    TrainerState,
    TrainingArguments,
    set_seed,
)
from trl.trainer.dpo_config import DPOConfig
from trl.trainer.dpo_trainer import DPOTrainer
from trl.trainer.sft_config import SFTConfig
from trl.trainer.sft_trainer import SFTTrainer

from rlrf.backends.local import load_model
from rlrf.backends.model_info import check_model, load_tokenizer
from rlrf.backends.training import RECORD_FILE, LoraSpec, TrainSpec
from rlrf.backends.training_rows import Columns, read_rows, tokenise
from rlrf.backends.weights import HASHED_FILES
from rlrf.errors import TrainingError

logger = logging.getLogger(__name__)

Emit = Callable[[dict[str, Any]], None]

ATTENTION_DROPOUT = "attention_dropout"
"""The attribute by which transformers' attention layers keep their rate."""

COMPLETE_FILE = "complete.json"
"""Written into a checkpoint after everything else; one without it was being written when the process died."""


class PairTrainer(DPOTrainer):
    """DPOTrainer on rows that are tokenised already: trl 1.16 has a switch for that in SFTTrainer only."""

    def _prepare_dataset(self, dataset: Dataset, *args: Any, **kwargs: Any) -> Dataset:
        return dataset


class Reporter(TrainerCallback):
    """Turns the trainer's callbacks into events, marks complete checkpoints, and stops at a loss that is no number."""

    def __init__(self, emit: Emit, identity: str, facts: dict[str, Any]) -> None:
        self._emit = emit
        self._identity = identity
        self._facts = facts

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        at = {"pid": os.getpid(), "steps": state.max_steps, "resumed_from": state.global_step}
        self._emit({"event": "started", **at, **self._facts})

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
        values = _numbers(logs)
        if not math.isfinite(values["loss"]):
            raise TrainingError(f"the loss is {values['loss']!r} at step {state.global_step}; lower learning_rate")
        self._emit({"event": "step", "step": state.global_step, "steps": state.max_steps, **values})

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        # transformers 5.17 takes one step too many when it resumes from a checkpoint of the last step.
        if state.global_step >= state.max_steps:
            control.should_save = False

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        folder = Path(str(args.output_dir)) / f"checkpoint-{state.global_step}"
        _write_json(folder / COMPLETE_FILE, {"spec_hash": self._identity, "step": state.global_step})
        self._emit({"event": "saved", "step": state.global_step, "steps": state.max_steps})


def run(spec: TrainSpec, identity: str, emit: Emit) -> None:
    """Train, and make `spec.output` appear in one rename.

    Raises:
        BackendError: the model folder can't be used.
        TrainingError: the data can't be used, or the loss is no number.
    """
    began = time.monotonic()
    disable_progress_bars()
    set_seed(spec.seed)
    check_model(spec.model)
    tokenizer = load_tokenizer(spec.model)
    rows = read_rows(spec)
    columns, excluded = tokenise(rows, spec, tokenizer)
    facts = {"rows": len(next(iter(columns.values()))), "excluded": excluded}
    # Full training needs float32: in bfloat16 a step at a usual learning rate rounds to nothing.
    model = load_model(spec.model, spec.device, "auto" if spec.lora else "float32")
    _disable_dropout(model)
    trainer = _trainer(spec, model, columns, tokenizer, spec.work / identity)
    trainer.add_callback(Reporter(emit, identity, facts))
    trainer.train(resume_from_checkpoint=_last_checkpoint(spec.work / identity, identity))
    metrics = [_numbers(entry) for entry in trainer.state.log_history if "loss" in entry]
    record = {
        "spec_hash": identity,
        "spec": spec.model_dump(mode="json"),
        "steps": trainer.state.global_step,
        "seconds": round(time.monotonic() - began, 3),
        "metrics": metrics,
        **facts,
    }
    partial = spec.work / identity / "result"
    _save(spec, trainer.accelerator.unwrap_model(trainer.model), partial)
    _write_json(partial / RECORD_FILE, record)
    partial.rename(spec.output)


def _trainer(spec: TrainSpec, model: PreTrainedModel, columns: Columns, tokenizer: Any, work: Path) -> Trainer:
    options: dict[str, Any] = {
        "model": model,
        "train_dataset": Dataset.from_dict(columns),
        "processing_class": tokenizer,
        "peft_config": _lora(spec.lora) if spec.lora else None,
    }
    if spec.method == "rs":
        rs_args = SFTConfig(**_arguments(spec, work))
        rs_trainer: Trainer = SFTTrainer(args=rs_args, **options)
        return rs_trainer
    mixed = spec.sft_weight > 0
    # Reference log-probabilities are computed once, before training: one model in memory, one pass for all epochs.
    dpo_args = DPOConfig(
        **_arguments(spec, work),
        beta=spec.beta,
        loss_type=["sigmoid", "sft"] if mixed else ["sigmoid"],
        loss_weights=[1.0, spec.sft_weight] if mixed else None,
        precompute_ref_log_probs=True,
        disable_dropout=False,
    )
    dpo_trainer: Trainer = PairTrainer(args=dpo_args, **options)
    return dpo_trainer


def _arguments(spec: TrainSpec, work: Path) -> dict[str, Any]:
    """The arguments that trl's trainers share; no max_length, as the rows are within it already and must not be cut."""
    on_cpu = spec.device == "cpu" or not torch.cuda.is_available()
    return {
        "output_dir": str(work),
        "learning_rate": spec.learning_rate,
        "num_train_epochs": spec.epochs or 1.0,
        "max_steps": spec.max_steps or -1,
        "per_device_train_batch_size": spec.batch_size,
        "gradient_accumulation_steps": spec.gradient_accumulation,
        "warmup_steps": spec.warmup_ratio,
        "lr_scheduler_type": "constant_with_warmup" if spec.schedule == "constant" else spec.schedule,
        "weight_decay": spec.weight_decay,
        "max_grad_norm": spec.max_grad_norm,
        "max_length": None,
        "seed": spec.seed,
        "save_strategy": "steps" if spec.save_every else "no",
        "save_steps": spec.save_every or 1,
        # Two: the older one is whole while the newer one is being written.
        "save_total_limit": 2,
        "logging_steps": spec.log_every,
        "logging_nan_inf_filter": False,
        "report_to": "none",
        "disable_tqdm": True,
        "use_cpu": on_cpu,
        "bf16": not on_cpu,
        "gradient_checkpointing": spec.gradient_checkpointing,
    }


def _lora(lora: LoraSpec) -> LoraConfig:
    target = lora.target_modules
    return LoraConfig(
        r=lora.r,
        lora_alpha=lora.alpha,
        lora_dropout=lora.dropout,
        target_modules=target if isinstance(target, str) else list(target),
        task_type="CAUSAL_LM",
    )


def _disable_dropout(model: PreTrainedModel) -> None:
    """The model's own dropout, before an adapter with its own is put on: policy and reference must agree at step 0."""
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
        elif hasattr(module, ATTENTION_DROPOUT):
            setattr(module, ATTENTION_DROPOUT, 0.0)


def _last_checkpoint(folder: Path, identity: str) -> str | None:
    """The complete checkpoint of the highest step; others are named in the log and left alone."""
    complete: dict[int, Path] = {}
    for checkpoint in sorted(folder.glob("checkpoint-*")):
        marker = checkpoint / COMPLETE_FILE
        content = json.loads(marker.read_text(encoding="utf-8")) if marker.is_file() else {}
        if content.get("spec_hash") == identity:
            complete[content["step"]] = checkpoint
        else:
            logger.warning("ignoring checkpoint %r: not complete, or of another spec", str(checkpoint))
    return str(complete[max(complete)]) if complete else None


def _save(spec: TrainSpec, model: Any, folder: Path) -> None:
    """Weights of `model`, a PreTrainedModel or a PeftModel, in the base's dtype; all else as the base has it."""
    shutil.rmtree(folder, ignore_errors=True)
    if isinstance(model, PeftModel):
        model.save_pretrained(str(folder / "adapter"), save_embedding_layers=False)
        model = model.merge_and_unload()
    model.to(_stored_dtype(spec.model)).save_pretrained(folder)
    for path in (path for pattern in HASHED_FILES for path in spec.model.glob(pattern)):
        if "safetensors" not in path.name:
            (folder / path.relative_to(spec.model)).parent.mkdir(exist_ok=True)
            shutil.copyfile(path, folder / path.relative_to(spec.model))
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    _write_json(folder / "config.json", {**config, "use_cache": True})


def _stored_dtype(folder: Path) -> torch.dtype:
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    name = config.get("dtype") or config.get("torch_dtype") or "float32"
    dtype = getattr(torch, name, None)
    if not isinstance(dtype, torch.dtype) or not dtype.is_floating_point:
        raise TrainingError(f"{str(folder / 'config.json')!r}: dtype {name!r} isn't one of torch's; mend config.json")
    return dtype


def _numbers(logs: dict[str, Any]) -> dict[str, float]:
    return {name: float(value) for name, value in logs.items() if isinstance(value, int | float)}


def _write_json(path: Path, content: dict[str, Any]) -> None:
    """Through a rename, so that the file is whole or absent."""
    partial = path.with_name(path.name + ".part")
    partial.write_text(json.dumps(content, indent=1), encoding="utf-8")
    partial.replace(path)
