"""The configuration's fine-tuning."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field

from rlrf.sections import Section


class Lora(Section):
    """A low-rank adapter (Hu et al. 2021); the result is merged into a full folder, the adapter kept beside it.

    The adapter of a policy that was itself trained with the same r, alpha and target_modules is trained on.
    """

    r: int = Field(16, ge=1, description="Rank of the update")
    alpha: int = Field(32, ge=1, description="Scale of the update: alpha / r")
    dropout: float = Field(0.0, ge=0.0, lt=1.0, description="Dropout before the update")
    target_modules: tuple[str, ...] | Literal["all-linear"] = Field("all-linear", description="Modules that get one")
    quantize: Literal["4bit"] | None = Field(None, description="QLoRA: the frozen weights in 4 bits (rlrf[qlora])")


class Health(Section):
    """Signs of a training that does no good; one of them stops it with the reason. 0 switches a rule off."""

    flat_steps: int = Field(100, ge=0, description="Steps in a row that DPO's loss may stay at ln 2")
    max_chosen_drop: float = Field(
        1.0, ge=0, description="Nats per token that the chosen's log-probability may fall below the reference's"
    )
    max_length_ratio: float = Field(3.0, ge=0, description="Mean tokens of the chosen against the rejected at most")


class Train(Section):
    """One fine-tuning of the policy on the pairs; the reference is the policy it starts from."""

    method: Literal["dpo", "rs"] = Field("dpo", description="dpo, or the paper's RS: SFT on the chosen alone")
    learning_rate: float = Field(2e-6, gt=0, description="Its peak")
    epochs: float = Field(1.0, gt=0, description="Passes over the pairs")
    batch_size: int = Field(16, ge=1, description="Pairs per optimiser step and device")
    gradient_accumulation: int = Field(1, ge=1, description="Batches per optimiser step")
    beta: float = Field(0.1, gt=0, description="DPO: how strongly the policy is held to the reference")
    sft_weight: float = Field(0.0, ge=0, description="Weight of the NLL of the chosen beside the DPO loss; 0 = paper")
    warmup_ratio: float = Field(0.1, ge=0, le=1, description="Share of the steps in which the rate rises to its peak")
    max_length: int = Field(
        1024, ge=8, description="Tokens of prompt and response; longer pairs are set aside, counted"
    )
    lora: Lora | None = Field(None, description="Train a low-rank update instead of all weights")
    precision: Literal["auto", "float32", "bfloat16"] = Field("auto", description="auto: bfloat16 on a GPU")
    gradient_checkpointing: bool | None = Field(None, description="Memory for time; on a GPU unless set")
    accelerate_config: Path | None = Field(
        None, description="File of `accelerate config`: several GPUs, FSDP, DeepSpeed; batch_size is then per process"
    )
    report_to: tuple[str, ...] = Field((), description="trl's report_to, such as tensorboard or wandb")
    health: Health = Health()
    save_every: int = Field(50, ge=1, description="Steps between checkpoints: what a kill costs at most")
