"""One training with trl, inside the training process: data, trainer, and the result folder."""

from __future__ import annotations

import os
import time
from typing import Any

import torch
from accelerate.utils import str_to_bool  # type: ignore[import-untyped]
from datasets import Dataset, concatenate_datasets, disable_progress_bars
from transformers import Trainer, set_seed
from trl.trainer.dpo_config import DPOConfig
from trl.trainer.dpo_trainer import DPOTrainer
from trl.trainer.sft_config import SFTConfig
from trl.trainer.sft_trainer import SFTTrainer

from rlrf.backends.model_info import check_model, load_tokenizer
from rlrf.backends.training.health import check_lengths
from rlrf.backends.training.memory import out_of_memory
from rlrf.backends.training.policy import load_policy, save_policy, write_json
from rlrf.backends.training.proposals import checkpointing, surprise
from rlrf.backends.training.reference import Reference
from rlrf.backends.training.reporter import Emit, Phases, Reporter, last_checkpoint, numbers
from rlrf.backends.training.rows import Columns, read_rows, tokenise
from rlrf.backends.training.spec import TrainSpec
from rlrf.backends.training.train import RECORD_FILE, TrainJob
from rlrf.errors import RlrfError, TrainingError


class PairTrainer(DPOTrainer):
    """DPOTrainer on rows that are tokenised already (trl 1.16 has a switch for that in SFTTrainer only) and with
    reference log-probabilities that outlive the process."""

    def __init__(self, *args: Any, reference: Reference, **kwargs: Any) -> None:
        self._reference = reference
        super().__init__(*args, **kwargs)

    def _prepare_dataset(self, dataset: Dataset, *args: Any, **kwargs: Any) -> Dataset:
        return dataset

    def _precompute_ref_logps(self, dataset: Dataset, name: str, batch_size: int) -> Dataset:
        values = self._reference.values(self, dataset)
        model: Any = self.model
        if "ref" in getattr(model, "peft_config", {}):
            # trl's copy of the adapter as it was; from here on its values stand for it.
            model.delete_adapter("ref")
        return concatenate_datasets([dataset, Dataset.from_dict(values)], axis=1)


def run(job: TrainJob, emit: Emit, began: float | None = None) -> None:
    """Train, and make the spec's output appear in one rename.

    `began` is when the process started, by `time.monotonic`. Under accelerate every process calls it.

    Raises:
        BackendError: the model folder can't be used.
        TrainingError: the data can't be used, it doesn't fit into memory, or a health rule was broken.
    """
    phases = Phases(time.monotonic() if began is None else began)
    phases.end("start")
    try:
        _run(job, emit, phases)
    except RlrfError:
        raise
    except (RuntimeError, MemoryError) as error:
        if not out_of_memory(error):
            raise
        part = next((then for done, then in (("train", "save"), ("load", "train")) if done in phases.seconds), "load")
        raise TrainingError(surprise(job.spec, part, error)) from error


def _run(job: TrainJob, emit: Emit, phases: Phases) -> None:
    spec = job.spec
    disable_progress_bars()
    set_seed(spec.seed)
    check_model(spec.model)
    tokenizer = load_tokenizer(spec.model)
    columns, excluded = tokenise(read_rows(spec), spec, tokenizer)
    check_lengths(spec, columns)
    facts: dict[str, Any] = {"rows": len(next(iter(columns.values()))), "excluded": excluded}
    trainer, how = _trainer(job, columns, tokenizer, phases)
    checkpoint, refused = last_checkpoint(job)
    trainer.add_callback(Reporter(emit, job, trainer, columns, facts | how | {"refused": refused}))
    trainer.train(resume_from_checkpoint=checkpoint)
    phases.end("train")
    partial = job.folder / "result"
    save_policy(job, trainer, partial)
    phases.end("save")
    record = {
        "spec_hash": job.identity,
        "spec": spec.model_dump(mode="json"),
        "steps": trainer.state.global_step,
        "seconds": round(time.monotonic() - phases.began, 3),
        "phases": phases.seconds,
        "metrics": [numbers(entry) for entry in trainer.state.log_history if "loss" in entry],
        **facts,
    }
    if trainer.accelerator.is_main_process:
        write_json(partial / RECORD_FILE, record)
        partial.rename(spec.output)
    trainer.accelerator.end_training()
    emit({"event": "finished", **{name: record[name] for name in ("steps", "seconds", "phases")}})


def _trainer(job: TrainJob, columns: Columns, tokenizer: Any, phases: Phases) -> tuple[Trainer, dict[str, Any]]:
    """The trainer, and how it trains, for the record."""
    spec = job.spec
    # Before the model: DeepSpeed's config decides how it is loaded.
    arguments = _arguments(job)
    model, lora = load_policy(job, arguments)
    options = {"train_dataset": Dataset.from_dict(columns), "processing_class": tokenizer, "peft_config": lora}
    precision = "bfloat16" if arguments.bf16 else "float32"
    how = {
        "processes": arguments.world_size,
        "device": str(arguments.device.type),
        "precision": precision,
        "adapter": ("continued" if job.adapter else "new") if spec.lora else None,
    }
    if spec.method == "rs":
        trainer: Trainer = SFTTrainer(model=model, args=arguments, **options)
        phases.end("load")
    else:
        reference = Reference(job, columns, f"{precision}, weights {model.dtype}")
        trainer = PairTrainer(model=model, args=arguments, reference=reference, **options)
        phases.end("load")
        phases.seconds["reference"] = round(reference.seconds, 3)
        phases.seconds["load"] = round(phases.seconds["load"] - reference.seconds, 3)
        how["reference"] = reference.state
    return trainer, how


def _arguments(job: TrainJob) -> Any:
    """DPOConfig or SFTConfig; no max_length, as the rows are within it already and must not be cut."""
    spec = job.spec
    asked_for_cpu = spec.device == "cpu" or str_to_bool(os.environ.get("ACCELERATE_USE_CPU", "false"))
    on_cpu = bool(asked_for_cpu) or not torch.cuda.is_available()
    if on_cpu and job.launch and job.launch.sharded:
        config = str(job.launch.config)
        raise TrainingError(f"train.accelerate_config {config!r} splits the model over GPUs, and there are none to use")
    bf16 = spec.precision == "bfloat16" or (spec.precision == "auto" and not on_cpu)
    # accelerate would take its config's precision where trl's is off; here the spec decides.
    os.environ["ACCELERATE_MIXED_PRECISION"] = "bf16" if bf16 else "no"
    shared: dict[str, Any] = {
        "output_dir": str(job.folder),
        "run_name": spec.output.name,
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
        "report_to": list(spec.report_to) or "none",
        "disable_tqdm": True,
        "use_cpu": on_cpu,
        "bf16": bf16,
        "gradient_checkpointing": checkpointing(spec, not on_cpu),
    }
    arguments = SFTConfig(**shared) if spec.method == "rs" else DPOConfig(**shared, **_pair_arguments(spec))
    if on_cpu:
        # Several processes get "cpu:0" from accelerate, a place from which torch 2.13 can't restore an optimizer.
        arguments._setup_devices = torch.device("cpu")
    return arguments


def _pair_arguments(spec: TrainSpec) -> dict[str, Any]:
    mixed = spec.sft_weight > 0
    return {
        "beta": spec.beta,
        "loss_type": ["sigmoid", "sft"] if mixed else ["sigmoid"],
        "loss_weights": [1.0, spec.sft_weight] if mixed else None,
        # Computed once, before training: one model in memory, one pass for all epochs.
        "precompute_ref_log_probs": True,
        "disable_dropout": False,
    }
