"""The files of a bootstrapped policy: word problems to learn from, held-out ones, demonstrations."""

from __future__ import annotations

import os
from itertools import islice
from pathlib import Path

from rlrf.config import RunConfig
from rlrf.word_problems import demonstration, word_problems, write_demonstrations, write_prompts


def bootstrap_folder(config: RunConfig) -> Path:
    """Where a bootstrapped policy's problems and demonstrations are written."""
    return config.home / "bootstrap"


def demonstrations_path(config: RunConfig) -> Path:
    """The demonstrations that the tiny policy and the control learn from."""
    return bootstrap_folder(config) / "demonstrations.jsonl"


def write_bootstrap_files(config: RunConfig) -> None:
    """Write the files of a bootstrapped policy, if it is one: always the same for the same settings."""
    settings = config.policy.bootstrap
    if settings is None:
        return
    folder = bootstrap_folder(config)
    folder.mkdir(parents=True, exist_ok=True)
    for split, count in (("prompts", settings.prompts), ("held_out", settings.held_out)):
        partial = folder / f"{split}.jsonl.partial"
        write_prompts(partial, islice(word_problems(split, seed=settings.seed), count))
        os.replace(partial, folder / f"{split}.jsonl")
    partial = folder / "demonstrations.jsonl.partial"
    write_demonstrations(partial, map(demonstration, islice(word_problems("demonstrations", seed=settings.seed, known_only=True), 2000)))
    os.replace(partial, folder / "demonstrations.jsonl")
