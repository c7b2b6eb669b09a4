"""Runs that several modules look at: made once, never changed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests import builders
from tests.builders import NEVER, Ran
from tests.flows import replies
from tests.rlrf.backends.tiny_model import build_tiny_model

KILLED: dict[str, Any] = {"explore__n": 8, "refine__m": 1, "pairs__min_pairs": NEVER}
"""A run with 80 responses to explore, which tests kill in the middle."""


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random tiny Llama with tokenizer and chat template."""
    return build_tiny_model(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture(scope="session")
def wheel(prefect_server: str, model: Path, tmp_path_factory: pytest.TempPathFactory) -> Ran:
    """Three iterations asked for; the first policy is promoted, the second isn't, which ends the wheel: two trainings."""
    replies.times_asked.clear()
    path = builders.write_config(tmp_path_factory.mktemp("wheel"), model, "improving", iterations=3)
    return builders.run(path)


@pytest.fixture(scope="session")
def paired(prefect_server: str, model: Path, tmp_path_factory: pytest.TempPathFactory) -> Ran:
    """A run up to its pairs, stopped before training."""
    path = builders.write_config(tmp_path_factory.mktemp("paired"), model, pairs__min_pairs=NEVER)
    return builders.run(path)


@pytest.fixture(scope="session")
def unkilled(prefect_server: str, model: Path, tmp_path_factory: pytest.TempPathFactory) -> Ran:
    """What tests kill elsewhere, in a home of its own, not killed."""
    return builders.run(builders.write_config(tmp_path_factory.mktemp("unkilled"), model, "mixed", **KILLED))
