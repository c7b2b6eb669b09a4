"""LoRA over several trainings: one adapter that stays on the first base, and merged weights that equal base + adapter."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file

from rlrf.backends.local import load_model
from rlrf.backends.training.adapters import find_adapter
from rlrf.backends.training.train import plan, spec_hash
from rlrf.backends.weights import weights_digest
from rlrf.train_config import Lora
from tests.rlrf.backends.tiny_model import build_tiny_model
from tests.rlrf.backends.training.small_trainings import build_spec, run_here, steps_of

LORA = Lora(r=4, alpha=8)
PROBE = torch.arange(5, 45).reshape(2, 20)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_tiny_model(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture(scope="module")
def first(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A policy that LoRA training made of `model`."""
    spec = build_spec(model, tmp_path_factory.mktemp("first"), lora=LORA)
    run_here(spec)
    return spec.output


def logits(model: Any) -> torch.Tensor:
    with torch.no_grad():
        found: torch.Tensor = model(input_ids=PROBE).logits
    return found


def served(base: Path, policy: Path) -> torch.Tensor:
    """What an engine computes that serves `base` and loads the policy's adapter."""
    return logits(PeftModel.from_pretrained(load_model(base, "cpu", "auto"), str(policy / "adapter")).eval())


def test_the_adapter_says_what_it_sits_on_and_gives_the_merged_weights(model: Path, first: Path) -> None:
    stored = json.loads((first / "adapter" / "base.json").read_text())
    assert (stored["folder"], stored["weights_digest"]) == (str(model), weights_digest(model))
    merged = logits(load_model(first, "cpu", "auto"))
    torch.testing.assert_close(merged, served(model, first), atol=1e-5, rtol=1e-4)
    assert not torch.allclose(merged, logits(load_model(model, "cpu", "auto")), atol=1e-3)


@pytest.mark.parametrize("method", ["dpo", "rs"])
def test_a_second_training_goes_on_from_the_first_ones_adapter(
    model: Path, first: Path, tmp_path: Path, method: str
) -> None:
    spec = build_spec(first, tmp_path, method=method, lora=LORA, save_every=2)
    events = run_here(spec)
    assert events[0]["adapter"] == "continued"
    stored = json.loads((spec.output / "adapter" / "base.json").read_text())
    assert stored["folder"] == str(model)
    assert not [path for path in (spec.output / "adapter").iterdir() if path.is_dir()]
    before, after = (load_file(folder / "adapter" / "adapter_model.safetensors") for folder in (first, spec.output))
    assert before.keys() == after.keys()
    assert {name: tensor.shape for name, tensor in before.items()} == {n: tensor.shape for n, tensor in after.items()}
    assert any(not before[name].equal(after[name]) for name in before)
    merged = logits(load_model(spec.output, "cpu", "auto"))
    torch.testing.assert_close(merged, served(model, spec.output), atol=1e-5, rtol=1e-4)
    if method == "dpo":
        # The reference is the policy as it was: nothing has moved before the first step.
        assert steps_of(events)[0]["loss"] == pytest.approx(0.693147, abs=1e-5)
        assert steps_of(events)[-1]["loss"] < 0.6
    digest = weights_digest(spec.output)
    shutil.rmtree(spec.output)
    assert run_here(spec)[0]["resumed_from"] == 4
    assert weights_digest(spec.output) == digest


def test_dropout_may_differ_and_does_not_reach_the_reference(first: Path, tmp_path: Path) -> None:
    plain, dropped = LORA, Lora(r=4, alpha=8, dropout=0.5)
    files = []
    for name, lora in (("plain", plain), ("dropped", dropped)):
        spec = build_spec(first, tmp_path, output=tmp_path / name / "out", lora=lora, max_steps=1)
        events = run_here(spec)
        assert (events[0]["adapter"], events[0]["reference"]) == ("continued", "computed")
        files += (tmp_path / name / "reference").glob("*.parquet")
    assert files[0].name == files[1].name
    assert files[0].read_bytes() == files[1].read_bytes()


@pytest.mark.parametrize("change", ["r", "alpha", "target_modules", "base changed", "base gone", "record torn"])
def test_an_adapter_that_can_not_be_trained_on_is_left_alone(
    model: Path, first: Path, tmp_path: Path, change: str
) -> None:
    base, policy = tmp_path / "base", tmp_path / "policy"
    shutil.copytree(model, base)
    shutil.copytree(first, policy)
    record = policy / "adapter" / "base.json"
    record.write_text(json.dumps({**json.loads(record.read_text()), "folder": str(base)}))
    assert find_adapter(policy, LORA) is not None
    changes: dict[str, dict[str, Any]] = {
        "r": {"r": 2},
        "alpha": {"alpha": 4},
        "target_modules": {"target_modules": ("q_proj",)},
    }
    lora = LORA.model_copy(update=changes.get(change, {}))
    if change == "base changed":
        (base / "generation_config.json").write_text("{}")
    elif change == "base gone":
        shutil.rmtree(base)
    elif change == "record torn":
        record.write_text("{")
    assert find_adapter(policy, lora) is None
    if change == "r":
        spec = build_spec(policy, tmp_path, lora=lora, max_steps=2)
        assert run_here(spec)[0]["adapter"] == "new"
        stored = json.loads((spec.output / "adapter" / "base.json").read_text())
        assert (stored["folder"], stored["weights_digest"]) == (str(policy), weights_digest(policy))
        merged = logits(load_model(spec.output, "cpu", "auto"))
        torch.testing.assert_close(merged, served(policy, spec.output), atol=1e-5, rtol=1e-4)


def test_the_adapter_that_is_trained_on_is_part_of_the_hash(first: Path, tmp_path: Path) -> None:
    policy = tmp_path / "policy"
    shutil.copytree(first, policy)
    spec = build_spec(policy, tmp_path, lora=LORA)
    before = spec_hash(spec)
    assert plan(spec).adapter is not None
    shutil.rmtree(policy / "adapter")
    assert spec_hash(spec) != before
    assert plan(spec).weights_digest == weights_digest(first)


def test_qlora_is_merged_onto_unquantised_weights(tmp_path: Path) -> None:
    model = build_tiny_model(tmp_path / "tiny", hidden_size=128)
    spec = build_spec(model, tmp_path, lora=Lora(r=4, alpha=8, quantize="4bit"))
    losses = [event["loss"] for event in steps_of(run_here(spec))]
    assert losses[-1] < losses[0]
    merged = logits(load_model(spec.output, "cpu", "auto"))
    torch.testing.assert_close(merged, served(model, spec.output), atol=1e-5, rtol=1e-4)
    before, after = (load_file(folder / "model.safetensors") for folder in (model, spec.output))
    assert {name: tensor.dtype for name, tensor in before.items()} == {name: t.dtype for name, t in after.items()}
    (tmp_path / "second").mkdir()
    second = build_spec(spec.output, tmp_path / "second", lora=Lora(r=4, alpha=8, quantize="4bit"), max_steps=2)
    assert run_here(second)[0]["adapter"] == "continued"
