"""The files of a bootstrapped policy: word problems to learn from, held-out ones, demonstrations."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from functools import partial
from itertools import islice
from pathlib import Path

from rlrf.config import Bootstrap, RunConfig
from rlrf.curriculum import build_curriculum
from rlrf.word_problems import Split, word_problems, write_demonstrations, write_prompts

VERSION = 3
"""Rises with every change that gives other files for the same settings."""


def bootstrap_folder(config: RunConfig) -> Path:
    """Where a bootstrapped policy's problems and demonstrations are written."""
    return config.home / "bootstrap"


def demonstrations_path(config: RunConfig) -> Path:
    """The demonstrations that the tiny policy and the control learn from."""
    return bootstrap_folder(config) / "demonstrations.jsonl"


def write_bootstrap_files(config: RunConfig) -> None:
    """Write the files of a bootstrapped policy, if it is one and they aren't there: always the same for its settings."""
    settings = config.policy.bootstrap
    if settings is None:
        return
    folder = bootstrap_folder(config)
    wanted = settings.model_dump(include={"seed", "prompts", "held_out"}) | {"version": VERSION}
    marker = folder / "settings.json"
    if marker.is_file() and json.loads(marker.read_text(encoding="utf-8")) == wanted:
        return
    folder.mkdir(parents=True, exist_ok=True)
    _write_all(folder, settings)
    _whole(marker, lambda path: path.write_text(json.dumps(wanted), encoding="utf-8"))


def _write_all(folder: Path, settings: Bootstrap) -> None:
    counts: dict[Split, int] = {"prompts": settings.prompts, "held_out": settings.held_out}
    for split, count in counts.items():
        problems = islice(word_problems(split, seed=settings.seed), count)
        _whole(folder / f"{split}.jsonl", partial(write_prompts, problems=problems))
    chats = build_curriculum(seed=settings.seed).demonstrations
    _whole(folder / "demonstrations.jsonl", lambda path: write_demonstrations(path, chats))


def _whole(path: Path, write: Callable[[Path], object]) -> None:
    """A file is there whole or not at all, whenever this process is killed."""
    unfinished = path.with_name(path.name + ".partial")
    write(unfinished)
    os.replace(unfinished, path)
