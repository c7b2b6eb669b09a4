"""The memory check, under a real limit of this process's address space."""

from __future__ import annotations

import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from rlrf.backends.training import memory as training_memory
from rlrf.backends.training.proposals import divisors_below, proposal, surprise
from rlrf.backends.training.spec import TrainSpec
from rlrf.backends.weights import weights_digest
from rlrf.errors import TrainingError
from rlrf.train_config import Lora
from tests.rlrf.backends.tiny_model import build_tiny_model
from tests.rlrf.backends.training.small_trainings import build_spec, pair, run_here, say, steps_of, write

MIB = 1 << 20


@contextmanager
def at_most(more: int) -> Iterator[None]:
    """Let this process take `more` bytes beside what it has."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    before = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + more, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models") / "tiny"
    return build_tiny_model(folder, hidden_size=128, layers=3, max_position_embeddings=1024)


def long_spec(model: Path, folder: Path, **changes: Any) -> TrainSpec:
    """A step of 16 pairs of some 250 tokens: some 500 MiB."""
    long = {"chosen": say("assistant", "Step 1: 12 + 7 = 19. " * 20), "rejected": say("assistant", "Tom had 4. " * 20)}
    data = write(folder / "long.jsonl", [{**pair(i), **long} for i in range(16)])
    return build_spec(model, folder, data=data, max_length=512, **{"max_steps": 1, "batch_size": 16, **changes})


def test_what_does_not_fit_is_refused_with_a_batch_size_that_does(model: Path, tmp_path: Path) -> None:
    spec = long_spec(model, tmp_path, gradient_accumulation=2)
    with at_most(400 * MIB), pytest.raises(TrainingError, match="before the first step") as caught:
        run_here(spec)
    found = [
        size
        for size in (8, 4, 2, 1)
        if f"batch_size = {size}, train.gradient_accumulation = {32 // size}" in str(caught.value)
    ]
    assert found
    [size] = found
    smaller = long_spec(model, tmp_path, batch_size=size, gradient_accumulation=32 // size)
    with at_most(400 * MIB):
        assert len(steps_of(run_here(smaller))) == 1


def test_the_trial_leaves_no_trace(model: Path, tmp_path: Path) -> None:
    digests: dict[str, str] = {}
    # How much is free when the trial is due depends on what this process holds and can use again.
    for mib in (1 << 20, 500, 430, 370, 320, 280, 240):
        lora = Lora(r=4, alpha=8, dropout=0.3)
        spec = build_spec(model, tmp_path, output=tmp_path / str(mib), lora=lora, max_steps=3, batch_size=24)
        with at_most(mib * MIB):
            tried = run_here(spec)[0]["memory"]
        digests[tried] = weights_digest(spec.output)
        if tried == "fits":
            break
    assert digests.keys() == {"unchecked", "fits"}
    assert digests["unchecked"] == digests["fits"]


def test_divisors_are_parts_of_the_effective_batch() -> None:
    assert divisors_below(16, 16) == [8, 4, 2, 1]
    assert divisors_below(6, 6) == [3, 1]
    assert divisors_below(5, 10) == [2, 1]
    assert divisors_below(7, 7) == [1]
    assert divisors_below(1, 4) == []


def test_a_proposal_names_what_is_not_done_yet(model: Path, tmp_path: Path) -> None:
    spec = build_spec(model, tmp_path, batch_size=1)
    text = proposal(spec, 0, "too large")
    assert all(word in text for word in ("gradient_checkpointing = true", "[train.lora]", "max_length below 128"))
    small = build_spec(model, tmp_path, lora=Lora(r=1, alpha=1), gradient_checkpointing=True)
    text = surprise(small, "train", MemoryError("no room"))
    assert "gradient_checkpointing" not in text
    assert "[train.lora]" not in text
    assert all(word in text for word in ('quantize = "4bit"', "batch_size = 4", "gradient_accumulation = 2", "no room"))


def test_free_memory_heeds_the_process_limit() -> None:
    free = training_memory.free_memory()
    with at_most(64 * MIB):
        assert training_memory.free_memory() <= 64 * MIB
    assert free > 64 * MIB
