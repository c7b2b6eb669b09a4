"""Each health rule, provoked by a training that deserves it, and left alone by one that doesn't."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest

from rlrf.backends.training.health import RECENT_STEPS, HealthRules
from rlrf.backends.training.train import Progress, spec_hash, train
from rlrf.errors import TrainingError
from rlrf.train_config import Health
from tests.rlrf.backends.tiny_model import build_tiny_model
from tests.rlrf.backends.training.small_trainings import build_spec, pair, run_here, say, steps_of, write

COLUMNS = {"prompt_ids": [[1]], "chosen_ids": [[2] * 10], "rejected_ids": [[3] * 10]}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_tiny_model(tmp_path_factory.mktemp("models") / "tiny")


@pytest.mark.parametrize(
    "changes",
    [
        {"learning_rate": 1e-12},
        {"learning_rate": 1e-12, "sft_weight": 1.0},
        {"learning_rate": 1e-12, "log_every": 5, "precision": "bfloat16"},
    ],
)
def test_a_training_that_learns_nothing_is_stopped(model: Path, tmp_path: Path, changes: dict[str, Any]) -> None:
    health = Health(flat_steps=15)
    with pytest.raises(TrainingError, match=r"flat_steps: at step 15 .*ln 2 for 15 steps.*learning_rate \(1e-12\)"):
        run_here(build_spec(model, tmp_path, max_steps=40, health=health, **changes))


def test_pairs_without_a_difference_teach_nothing(model: Path, tmp_path: Path) -> None:
    same = [{**pair(i), "rejected": pair(i)["chosen"]} for i in range(8)]
    data = write(tmp_path / "same.jsonl", same)
    spec = build_spec(model, tmp_path, data=data, max_steps=40, health=Health(flat_steps=15))
    with pytest.raises(TrainingError, match="chosen and rejected differ"):
        run_here(spec)


def test_a_collapse_of_the_chosen_is_stopped_and_the_process_says_so(model: Path, tmp_path: Path) -> None:
    events: list[Progress] = []
    spec = build_spec(model, tmp_path, learning_rate=0.9, schedule="constant", warmup_ratio=0.0, max_steps=60)
    with pytest.raises(TrainingError, match=r"max_chosen_drop: at step 10 .*limit 1\.0.*train\.beta \(0\.1\)"):
        train(spec, events.append)
    assert len(steps_of(events)) == RECENT_STEPS - 1
    assert not spec.output.exists()


def test_long_chosen_are_refused_before_the_first_step(model: Path, tmp_path: Path) -> None:
    rows = [pair(i, "Step 1: 1 + 1 = 2. " * 6) for i in range(8)]
    spec = build_spec(model, tmp_path, data=write(tmp_path / "long.jsonl", rows), max_steps=1)
    with pytest.raises(TrainingError, match=r"max_length_ratio: before the first step.*limit 3\.0"):
        run_here(spec)
    spec = spec.model_copy(update={"health": Health(max_length_ratio=0)})
    assert len(steps_of(run_here(spec))) == 1


def test_zero_switches_every_rule_off(model: Path, tmp_path: Path) -> None:
    off = Health(flat_steps=0, max_chosen_drop=0, max_length_ratio=0)
    bad = {"chosen": say("assistant", "apple " * 15)}
    data = write(tmp_path / "bad.jsonl", [{**pair(i), **bad} for i in range(8)])
    spec = build_spec(model, tmp_path, data=data, learning_rate=0.9, schedule="constant", warmup_ratio=0.0, health=off)
    assert len(steps_of(run_here(spec.model_copy(update={"max_steps": 15})))) == 15


def test_health_is_no_part_of_the_hash(model: Path, tmp_path: Path) -> None:
    spec = build_spec(model, tmp_path)
    neutral = {"health": Health(flat_steps=3), "report_to": ("wandb",), "gradient_checkpointing": True}
    assert spec_hash(spec.model_copy(update=neutral)) == spec_hash(spec)
    assert spec_hash(spec.model_copy(update={"precision": "bfloat16"})) != spec_hash(spec)


@pytest.mark.parametrize(("name", "value"), [("loss", math.nan), ("grad_norm", math.inf), ("grad_norm", math.nan)])
def test_no_number_is_no_metric(model: Path, tmp_path: Path, name: str, value: float) -> None:
    rules = HealthRules(build_spec(model, tmp_path, method="rs"), COLUMNS)
    rules.check(1, 1, {"loss": 2.0, "grad_norm": 1.0})
    with pytest.raises(TrainingError, match=f"{name} is {value!r} at step 2"):
        rules.check(2, 1, {"loss": 2.0, "grad_norm": 1.0, name: value})


def metrics(margin: float, chosen: float = 0.0) -> dict[str, float]:
    loss = math.log1p(math.exp(-margin))
    return {"loss": loss, "grad_norm": 1.0, "rewards/margins": margin, "rewards/chosen": chosen}


def test_slow_learning_is_learning(model: Path, tmp_path: Path) -> None:
    """Noise of bfloat16 around ln 2 is flat; a margin that grows to 0.02 within the steps isn't."""
    spec = build_spec(model, tmp_path)
    slow, noisy = HealthRules(spec, COLUMNS), HealthRules(spec, COLUMNS)
    for step in range(1, 301):
        slow.check(step, 1, metrics(0.0002 * step))
    with pytest.raises(TrainingError, match="flat_steps"):
        for step in range(1, 301):
            noisy.check(step, 1, metrics(0.01 * (-1) ** step))


def test_one_bad_step_is_no_collapse(model: Path, tmp_path: Path) -> None:
    rules = HealthRules(build_spec(model, tmp_path), COLUMNS)
    for step in range(1, 40):
        # 10 tokens at beta 0.1: a reward of -3 is 3 nats per token.
        rules.check(step, 1, metrics(1.0, chosen=-3.0 if step % 10 == 0 else -0.2))
    with pytest.raises(TrainingError, match="max_chosen_drop"):
        rules.check(50, 10, metrics(1.0, chosen=-1.2))
