"""The reference's log-probabilities of a pair set, computed once and kept on disk beside the runs.

trl computes them anew in every training. Here they are a Parquet file whose name is a hash of what they depend on: weights,
token ids and precision. Learning rate, beta, epochs and batch size are no part of it: batches of this pass have a
composition of their own, so that the values are the same bits whatever the training's batch size and process count.
"""

from __future__ import annotations

import gc
import json
import shutil
import time
from collections.abc import Sequence
from hashlib import blake2b
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa
import pyarrow.parquet as parquet
import torch
from accelerate.utils import broadcast_object_list  # type: ignore[import-untyped]
from trl.models.utils import prepare_deepspeed

from rlrf.backends.training.memory import out_of_memory
from rlrf.backends.training.rows import Columns, row_lengths
from rlrf.backends.training.train import TrainJob

CODE = 1
"""Raised when the same ingredients give other values."""

TOKENS_PER_BATCH = 8192
"""Padded tokens of one forward pass without gradients, chosen and rejected counted."""

FLUSH_SECONDS = 30.0
"""What a kill costs of this pass, and one batch."""

VALUES = ("ref_chosen_logps", "ref_rejected_logps")


class Reference:
    """Log-probabilities of one job's rows.

    Attributes:
        file: where they are kept, as columns `row`, `ref_chosen_logps`, `ref_rejected_logps`.
        batches: row numbers that are computed together, in their order.
        state: "kept" when they were there, "computed" when this job did it; seconds: what that took.
    """

    def __init__(self, job: TrainJob, columns: Columns, precision: str) -> None:
        self.file = job.spec.output.parent / "reference" / f"{_key(job, columns, precision)}.parquet"
        self.state: Literal["computed", "kept"] = "kept"
        self.seconds = 0.0
        self._parts = job.folder / "reference"
        lengths = row_lengths(columns)
        self._rows = len(lengths)
        self.batches = _batches(lengths)

    def values(self, trainer: Any, rows: Sequence[dict[str, list[int]]]) -> dict[str, list[float]]:
        """`VALUES`, one number per row in nats, summed over the response's tokens; computed if they aren't there yet.

        Every process of a training must call it.
        """
        began = time.monotonic()
        kept = _agreed(_whole(self.file, self._rows))
        if not kept:
            self.state = "computed"
            self._compute(trainer, rows)
            trainer.accelerator.wait_for_everyone()
            if trainer.accelerator.is_main_process:
                self._join()
            trainer.accelerator.wait_for_everyone()
        table = parquet.read_table(self.file).sort_by("row")
        self.seconds = time.monotonic() - began
        return {name: table[name].to_pylist() for name in VALUES}

    def _compute(self, trainer: Any, rows: Sequence[dict[str, list[int]]]) -> None:
        """Each process takes every n-th batch that no earlier process has finished, and writes what it has now and then."""
        accelerator = trainer.accelerator
        self._parts.mkdir(parents=True, exist_ok=True)
        done = set(_agreed(self._finished_rows()))
        todo = [batch for batch in self.batches if not done.issuperset(batch)]
        mine = todo[accelerator.process_index :: accelerator.num_processes]
        # One model that is split over processes needs all of them for every batch.
        rounds = -(-len(todo) // accelerator.num_processes) if todo else 0
        found: dict[int, tuple[float, float]] = {}
        flushed = time.monotonic()
        with _Model(trainer) as model:
            for turn in range(rounds):
                batch = mine[turn] if turn < len(mine) else todo[0]
                values = _forward(trainer, model, rows, batch)
                if turn < len(mine):
                    found.update(zip(batch, values, strict=True))
                if time.monotonic() - flushed > FLUSH_SECONDS:
                    self._flush(found)
                    found, flushed = {}, time.monotonic()
            self._flush(found)

    def _finished_rows(self) -> list[int]:
        return [row for part in self._parts.glob("*.parquet") for row in parquet.read_table(part)["row"].to_pylist()]

    def _flush(self, found: dict[int, tuple[float, float]]) -> None:
        if found:
            _write(self._parts / f"{min(found)}.parquet", found)

    def _join(self) -> None:
        """One file of all parts, by a rename."""
        found: dict[int, tuple[float, float]] = {}
        for part in self._parts.glob("*.parquet"):
            table = parquet.read_table(part)
            pairs = zip(*(table[name].to_pylist() for name in VALUES), strict=True)
            found |= dict(zip(table["row"].to_pylist(), pairs, strict=True))
        self.file.parent.mkdir(parents=True, exist_ok=True)
        _write(self.file, found)
        shutil.rmtree(self._parts)


class _Model:
    """The reference in eval mode on this process's device; memory that only it needed is free afterwards."""

    def __init__(self, trainer: Any) -> None:
        self._trainer = trainer
        self._model = trainer.ref_model or trainer.model
        self._was_training = self._model.training
        self._home = next(self._model.parameters()).device

    def __enter__(self) -> Any:
        self._model.eval()
        if self._trainer.is_deepspeed_enabled and self._trainer.ref_model is None:
            return prepare_deepspeed(self._trainer.model, self._trainer.accelerator)
        if self._home.type != self._trainer.accelerator.device.type and self._trainer.ref_model is None:
            self._model.to(self._trainer.accelerator.device)
        return self._model

    def __exit__(self, *error: object) -> None:
        self._model.train(self._was_training)
        if self._trainer.ref_model is None and not self._trainer.is_deepspeed_enabled:
            self._model.to(self._home)
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()


def _forward(
    trainer: Any, model: Any, rows: Sequence[dict[str, list[int]]], batch: Sequence[int]
) -> list[tuple[float, float]]:
    """The two sums of each row of a batch; a batch that doesn't fit into memory is taken in halves."""
    inputs = trainer.data_collator([rows[row] for row in batch])
    try:
        on_device = {name: tensor.to(trainer.accelerator.device) for name, tensor in inputs.items()}
        chosen, rejected = trainer.compute_ref_log_probs(model, on_device)
        return list(zip(chosen.float().tolist(), rejected.float().tolist(), strict=True))
    except (RuntimeError, MemoryError) as error:
        if len(batch) == 1 or trainer.ref_model is not None or not out_of_memory(error):
            raise
    half = len(batch) // 2
    return [value for part in (batch[:half], batch[half:]) for value in _forward(trainer, model, rows, part)]


def _key(job: TrainJob, columns: Columns, precision: str) -> str:
    state = blake2b(digest_size=16)
    for name in sorted(columns):
        state.update(json.dumps([name, columns[name]]).encode())
    lora = job.spec.lora
    content = {
        "code": CODE,
        "weights": job.weights_digest,
        "adapter": job.adapter.digest if job.adapter else None,
        "rows": state.hexdigest(),
        "precision": precision,
        "quantize": lora.quantize if lora else None,
    }
    return blake2b(json.dumps(content, sort_keys=True).encode(), digest_size=16).hexdigest()


def _batches(lengths: Sequence[int]) -> list[list[int]]:
    """Row numbers in batches of like length, the longest first: a pass that doesn't fit fails at once."""
    order = sorted(range(len(lengths)), key=lambda row: (-lengths[row], row))
    batches: list[list[int]] = []
    for row in order:
        if batches and 2 * lengths[batches[-1][0]] * (len(batches[-1]) + 1) <= TOKENS_PER_BATCH:
            batches[-1].append(row)
        else:
            batches.append([row])
    return batches


def _agreed(value: Any) -> Any:
    """The main process's value, in every process."""
    values = [value]
    broadcast_object_list(values, from_process=0)
    return values[0]


def _whole(file: Path, rows: int) -> bool:
    try:
        return file.is_file() and parquet.read_metadata(file).num_rows == rows
    except (OSError, pa.ArrowInvalid):
        return False


def _write(path: Path, found: dict[int, tuple[float, float]]) -> None:
    table = pa.table(
        {
            "row": pa.array(list(found), pa.int32()),
            VALUES[0]: pa.array([chosen for chosen, _ in found.values()], pa.float32()),
            VALUES[1]: pa.array([rejected for _, rejected in found.values()], pa.float32()),
        }
    )
    partial = path.with_name(path.name + ".tmp")
    parquet.write_table(table, partial)
    partial.replace(path)
