"""The reference's log-probabilities: trl's values, computed once for all trainings on the same pairs."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as parquet
import pytest
from datasets import Dataset
from trl.trainer.dpo_config import DPOConfig
from trl.trainer.dpo_trainer import DPOTrainer

from rlrf.backends.local import load_model
from rlrf.backends.model_info import load_tokenizer
from rlrf.backends.training.reference import Reference
from rlrf.backends.training.rows import read_rows, tokenise
from rlrf.backends.training.spec import TrainSpec
from rlrf.backends.training.train import plan
from rlrf.backends.weights import weights_digest
from rlrf.train_config import Health, Lora
from tests.rlrf.backends.tiny_model import build_tiny_model
from tests.rlrf.backends.training.small_trainings import build_spec, pair, run_here, write


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_tiny_model(tmp_path_factory.mktemp("models") / "tiny")


def kept_files(folder: Path) -> list[Path]:
    return list((folder / "reference").iterdir())


def trl_values(spec: TrainSpec, folder: Path) -> Any:
    """What bare trl precomputes for the same file."""
    rows = [json.loads(line) for line in spec.data.read_text().splitlines()]
    arguments = DPOConfig(
        output_dir=str(folder / "bare"),
        precompute_ref_log_probs=True,
        per_device_train_batch_size=8,
        use_cpu=True,
        bf16=False,
        gradient_checkpointing=False,
        report_to="none",
    )
    tokenizer = load_tokenizer(spec.model)
    weights = load_model(spec.model, "cpu", "float32")
    trainer = DPOTrainer(
        model=weights, args=arguments, train_dataset=Dataset.from_list(rows), processing_class=tokenizer
    )
    return trainer.train_dataset


def test_values_are_trls_own_whatever_the_batches(model: Path, tmp_path: Path) -> None:
    rows = [pair(i, "Step 1: 1 + 1 = 2. " * (1 + i % 5) + "#### 2") for i in range(150)]
    spec = build_spec(
        model, tmp_path, data=write(tmp_path / "uneven.jsonl", rows), max_steps=1, health=Health(max_length_ratio=0)
    )
    run_here(spec)
    [file] = kept_files(tmp_path)
    table, bare = parquet.read_table(file).sort_by("row"), trl_values(spec, tmp_path)
    for name in ("ref_chosen_logps", "ref_rejected_logps"):
        assert table[name].to_pylist() == pytest.approx(list(bare[name]), rel=1e-5)


def test_other_settings_on_the_same_pairs_keep_them(model: Path, tmp_path: Path) -> None:
    spec = build_spec(model, tmp_path, max_steps=1)
    assert run_here(spec)[0]["reference"] == "computed"
    others: list[dict[str, Any]] = [
        {"learning_rate": 1e-3, "beta": 0.5, "max_steps": 2, "seed": 4},
        {"batch_size": 3, "gradient_accumulation": 2, "sft_weight": 1.0},
        {"lora": Lora(r=2, alpha=4)},
    ]
    for number, changes in enumerate(others):
        other = build_spec(model, tmp_path, output=tmp_path / f"other-{number}", **changes)
        assert run_here(other)[0]["reference"] == "kept"
    assert len(kept_files(tmp_path)) == 1
    (tmp_path / "fresh").mkdir()
    fresh = build_spec(model, tmp_path, output=tmp_path / "fresh" / "out", **{"max_steps": 1, **others[0]})
    run_here(fresh)
    # Kept or computed, the result is the same bits.
    assert weights_digest(fresh.output) == weights_digest(tmp_path / "other-0")


def test_other_weights_or_pairs_are_computed_anew(model: Path, tmp_path: Path) -> None:
    spec = build_spec(model, tmp_path, max_steps=1)
    run_here(spec)
    pairs = build_spec(model, tmp_path, output=tmp_path / "b", data=write(tmp_path / "b.jsonl", [pair(7), pair(8)]))
    assert run_here(pairs)[0]["reference"] == "computed"
    policy = build_spec(spec.output, tmp_path, output=tmp_path / "c", max_steps=1)
    assert run_here(policy)[0]["reference"] == "computed"
    precise = build_spec(model, tmp_path, output=tmp_path / "d", max_steps=1, precision="bfloat16")
    assert run_here(precise)[0]["reference"] == "computed"
    assert len(kept_files(tmp_path)) == 4


def test_what_a_killed_pass_had_finished_is_not_computed_again(model: Path, tmp_path: Path) -> None:
    spec = build_spec(model, tmp_path, data=write(tmp_path / "many.jsonl", [pair(i) for i in range(300)]), max_steps=1)
    job = plan(spec)
    columns, _ = tokenise(read_rows(spec), spec, load_tokenizer(model))
    batches = Reference(job, columns, "float32").batches
    assert len(batches) > 1
    half = batches[: len(batches) // 2]
    finished = sorted(row for batch in half for row in batch)
    marks = pa.array([-1.5] * len(finished), pa.float32())
    (job.folder / "reference").mkdir(parents=True)
    part = {"row": pa.array(finished, pa.int32()), "ref_chosen_logps": marks, "ref_rejected_logps": marks}
    parquet.write_table(pa.table(part), job.folder / "reference" / f"{finished[0]}.parquet")
    run_here(spec)
    [file] = kept_files(tmp_path)
    table = parquet.read_table(file).sort_by("row")
    assert table["row"].to_pylist() == list(range(300))
    marked = [row for row, value in enumerate(table["ref_chosen_logps"].to_pylist()) if value == -1.5]
    assert marked == finished
    assert not (job.folder / "reference").exists()


def test_a_torn_file_is_computed_anew(model: Path, tmp_path: Path) -> None:
    spec = build_spec(model, tmp_path, max_steps=1)
    run_here(spec)
    [file] = kept_files(tmp_path)
    file.write_bytes(file.read_bytes()[:200])
    shutil.rmtree(spec.output)
    assert run_here(spec)[0]["reference"] == "computed"
