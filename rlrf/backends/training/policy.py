"""The weights of a training: from a model folder, in the form that is trained, and back into one."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, PeftConfig, PeftModel, prepare_model_for_kbit_training
from transformers import AutoModelForCausalLM, BitsAndBytesConfig, PreTrainedModel, TrainingArguments

from rlrf.backends.local import load_model
from rlrf.backends.training.adapters import ADAPTER_FOLDER, BASE_FILE, base_record
from rlrf.backends.training.train import TrainJob
from rlrf.backends.weights import HASHED_FILES
from rlrf.errors import BackendError, TrainingError
from rlrf.train_config import Lora

ATTENTION_DROPOUT = "attention_dropout"
"""The attribute by which transformers' attention layers keep their rate."""
CPU_PACKING = "support_avx512bf16_for_cpu"
"""The attribute by which bitsandbytes' layers pack themselves for a CPU in the first pass without gradients, which the
reference's is; packed, they lose the gradients of all that comes after."""


def load_policy(job: TrainJob, arguments: TrainingArguments) -> tuple[Any, LoraConfig | None]:
    """The model to train, and the adapter that trl is to put on it: None for a full training or a continued adapter."""
    spec, folder = job.spec, job.adapter.base if job.adapter else job.spec.model
    # A model that is split over processes is placed when it is split.
    device = "cpu" if job.launch and job.launch.sharded else str(arguments.device)
    if spec.lora and spec.lora.quantize:
        model = _load_quantized(folder, arguments, bool(job.launch and job.launch.sharded))
    else:
        # Full training needs float32: in bfloat16 a step at a usual learning rate rounds to nothing.
        model = load_model(folder, device, "auto" if spec.lora and arguments.bf16 else "float32")
    _disable_dropout(model)
    if spec.lora is None:
        return model, None
    if job.adapter is None:
        return model, _new_adapter(spec.lora)
    config = PeftConfig.from_pretrained(str(job.adapter.folder))
    config.lora_dropout = spec.lora.dropout
    return PeftModel.from_pretrained(model, str(job.adapter.folder), is_trainable=True, config=config), None


def save_policy(job: TrainJob, trainer: Any, folder: Path) -> None:
    """Write weights in the base's dtype, all else as the base has it, and with LoRA the adapter and what it sits on.

    Every process of a training must call it; the main one writes.

    Raises:
        TrainingError: the accelerate config doesn't allow the weights of a split model to be gathered.
    """
    spec = job.spec
    state = _gathered(trainer)
    if not trainer.accelerator.is_main_process:
        return
    shutil.rmtree(folder, ignore_errors=True)
    model: Any = trainer.accelerator.unwrap_model(trainer.model_wrapped)
    dtype = _stored_dtype(spec.model)
    if isinstance(model, PeftModel):
        assert spec.lora is not None
        base = job.adapter.base if job.adapter else spec.model
        digest = job.adapter.base_digest if job.adapter else job.weights_digest
        model.save_pretrained(str(folder / ADAPTER_FOLDER), state_dict=state, save_embedding_layers=False)
        write_json(folder / ADAPTER_FOLDER / BASE_FILE, base_record(base, digest, spec.lora))
        # Onto weights read afresh: those in training may be in 4 bits, or split.
        merged: Any = PeftModel.from_pretrained(load_model(base, "cpu", "auto"), str(folder / ADAPTER_FOLDER))
        merged.merge_and_unload().to(dtype).save_pretrained(folder)
    elif state is not None:
        # Gathered, a tied tensor is two.
        own = {name: tensor.to(dtype) for name, tensor in state.items() if name not in model.all_tied_weights_keys}
        model.save_pretrained(folder, state_dict=own)
    else:
        model.to(dtype).save_pretrained(folder)
    _complete(spec.model, folder)


def _gathered(trainer: Any) -> dict[str, torch.Tensor] | None:
    """The state of a model that is split over processes, whole in the main process; None for one that isn't."""
    if not (trainer.is_fsdp_enabled or trainer.is_deepspeed_enabled):
        return None
    try:
        state: dict[str, torch.Tensor] = trainer.accelerator.get_state_dict(trainer.model_wrapped)
    except ValueError as error:
        raise TrainingError(
            "DeepSpeed ZeRO 3 doesn't gather its weights; set zero3_save_16bit_model: true in train.accelerate_config"
        ) from error
    return state


def _complete(base: Path, folder: Path) -> None:
    """Whatever of the base bears on outputs and isn't weights."""
    for path in (path for pattern in HASHED_FILES for path in base.glob(pattern)):
        if "safetensors" not in path.name:
            (folder / path.relative_to(base)).parent.mkdir(exist_ok=True)
            shutil.copyfile(path, folder / path.relative_to(base))
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    write_json(folder / "config.json", {**config, "use_cache": True})


def _load_quantized(folder: Path, arguments: TrainingArguments, sharded: bool) -> Any:
    """Linear layers in NF4, doubly quantised, as QLoRA's paper has it; the rest in float32."""
    compute = torch.bfloat16 if arguments.bf16 else torch.float32
    config = BitsAndBytesConfig(  # type: ignore[no-untyped-call]
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=compute,
        # FSDP can only split tensors of one dtype.
        bnb_4bit_quant_storage=compute if sharded else torch.uint8,
    )
    try:
        model = AutoModelForCausalLM.from_pretrained(
            folder,
            dtype=compute,
            quantization_config=config,
            device_map=None if sharded else {"": arguments.device},
            use_safetensors=True,
            trust_remote_code=False,
            local_files_only=True,
        )
    except (OSError, ValueError, RuntimeError, KeyError, ImportError) as error:
        raise BackendError(f"model folder {str(folder)!r}: can't be loaded in 4 bits: {error}") from error
    for module in model.modules():
        if hasattr(module, CPU_PACKING):
            setattr(module, CPU_PACKING, False)
    checkpointing = arguments.gradient_checkpointing
    return prepare_model_for_kbit_training(model, use_gradient_checkpointing=checkpointing)  # type: ignore[no-untyped-call]


def _new_adapter(lora: Lora) -> LoraConfig:
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


def _stored_dtype(folder: Path) -> torch.dtype:
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    name = config.get("dtype") or config.get("torch_dtype") or "float32"
    dtype = getattr(torch, name, None)
    if not isinstance(dtype, torch.dtype) or not dtype.is_floating_point:
        raise TrainingError(f"{str(folder / 'config.json')!r}: dtype {name!r} isn't one of torch's; mend config.json")
    return dtype


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Through a rename, so that the file is whole or absent."""
    partial = path.with_name(path.name + ".part")
    partial.write_text(json.dumps(content, indent=1), encoding="utf-8")
    partial.replace(path)
