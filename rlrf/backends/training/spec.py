"""What a training is told: one frozen record, checked before anything starts. No torch."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from rlrf.train_config import Health, Lora


class TrainSpec(BaseModel):
    """One training, complete: equal specs over equal files give equal weights on one machine.

    Attributes:
        method: "dpo" (Rafailov et al. 2023; paper, section 3.4) or "rs", fine-tuning on the chosen responses alone.
        model: folder of the model to train; for dpo it is the reference too.
        data: JSONL or Parquet with message lists `prompt`, `chosen`, and for dpo `rejected`.
        output: folder to be made; beside it, `<output>.work/` holds checkpoints and the log.
        epochs, max_steps: exactly one of them; epochs may be a fraction.
        batch_size: pairs (dpo) or responses (rs) per forward pass of one process; a step takes gradient_accumulation
            of them in each process.
        beta: dpo's KL strength; rs ignores it.
        sft_weight: weight of the mean token NLL of the chosen beside dpo's loss, 0 is plain dpo; rs ignores it.
        warmup_ratio: share of the steps over which the learning rate rises.
        max_length: most tokens of prompt and response together; longer rows are excluded and counted, never cut.
        lora: None trains every weight, in float32 with the result in the model's own dtype.
        precision: what is computed in; "auto" is bfloat16 autocast on a GPU and float32 on a CPU.
        gradient_checkpointing: memory for time; None is on on a GPU.
        accelerate_config: file of `accelerate config`, by which `accelerate launch` starts one or more processes.
        report_to: names of transformers' integrations that get the metrics too.
        save_every: steps between checkpoints, None for none; log_every: steps between "step" events.
        device: "auto" is CUDA where there is one.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    method: Literal["dpo", "rs"]
    model: Path
    data: Path
    output: Path
    learning_rate: float = Field(gt=0, lt=1)
    epochs: float | None = Field(default=None, gt=0)
    max_steps: int | None = Field(default=None, ge=1)
    batch_size: int = Field(ge=1)
    gradient_accumulation: int = Field(default=1, ge=1)
    beta: float = Field(default=0.1, gt=0)
    sft_weight: float = Field(default=0.0, ge=0)
    warmup_ratio: float = Field(default=0.1, ge=0, lt=1)
    schedule: Literal["cosine", "linear", "constant"] = "cosine"
    weight_decay: float = Field(default=0.0, ge=0)
    max_grad_norm: float = Field(default=1.0, gt=0)
    max_length: int = Field(ge=2)
    lora: Lora | None = None
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    gradient_checkpointing: bool | None = None
    accelerate_config: Path | None = None
    report_to: tuple[str, ...] = ()
    health: Health = Health()
    seed: int = Field(default=0, ge=0, lt=2**32)
    save_every: int | None = Field(default=None, ge=1)
    log_every: int = Field(default=10, ge=1)
    device: Literal["auto", "cpu", "cuda"] = "auto"

    @model_validator(mode="after")
    def _one_duration(self) -> TrainSpec:
        if (self.epochs is None) == (self.max_steps is None):
            raise ValueError(f"epochs {self.epochs!r} and max_steps {self.max_steps!r}; give exactly one of them")
        return self

    @property
    def work(self) -> Path:
        """Where checkpoints and the log of this output lie."""
        return self.output.with_name(self.output.name + ".work")
