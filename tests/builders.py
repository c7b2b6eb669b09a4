"""Builders: prompt files, run configurations as TOML, and runs of the command line in this process."""

from __future__ import annotations

import contextlib
import io
import json
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file

from rlrf.config import RunConfig, load_config
from rlrf.word_problems import WordProblem, word_problems
from storage import reading
from storage.store import Store, open_store

SEED = 5
PROMPTS, HELD_OUT = 24, 10
NEVER = 10_000
"""As `pairs.min_pairs`, ends a run after its pairs and before any training."""


def problems(split: str) -> list[WordProblem]:
    """The word problems that the scripted replies know."""
    return list(islice(word_problems(split, seed=SEED), PROMPTS if split == "prompts" else HELD_OUT))  # type: ignore[arg-type]


def write_lines(path: Path, rows: Iterable[Any]) -> Path:
    """A JSON Lines file."""
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def prompt_rows(split: str) -> list[dict[str, str]]:
    """Rows of a prompt file."""
    return [{"question": one.question, "answer": one.answer} for one in problems(split)]


def source(path: Path, name: str = "wp") -> dict[str, Any]:
    """One entry of `prompts.sources`."""
    return {"name": name, "path": str(path), "columns": {"prompt": "question", "reference": "answer"}}


def values(folder: Path, model: Path, reply: str = "mixed", **changes: Any) -> dict[str, Any]:
    """A small run on the scripted engine; `changes` are dotted keys with `__` for the dot, None removes one."""
    found: dict[str, Any] = {
        "name": "wheel",
        "home": str(folder / "home"),
        "iterations": 1,
        "policy": {"model": str(model)},
        "prompts": {
            "per_iteration": 10,
            "sources": [source(write_lines(folder / "prompts.jsonl", prompt_rows("prompts")))],
            "held_out": {"sources": [source(write_lines(folder / "held_out.jsonl", prompt_rows("held_out")), "exam")]},
        },
        "engine": {"type": "scripted", "reply": f"tests.flows.replies:{reply}", "batch_size": 8},
        "explore": {"n": 3, "max_tokens": 64},
        "refine": {"m": 2, "max_tokens": 64, "budget": {"solved": "off", "hopeless": "off"}},
        "pairs": {"min_pairs": 4, "k": 2},
        "evaluate": {"max_tokens": 64},
        "train": {"learning_rate": 1e-4, "batch_size": 1, "max_length": 256},
    }
    for name, value in changes.items():
        _set(found, name.split("__"), value)
    return found


def write_model(folder: Path) -> Path:
    """The least that counts as a model folder: it can be checked, and not opened."""
    folder.mkdir(parents=True)
    (folder / "config.json").write_text("{}", encoding="utf-8")
    save_file({"weight": np.zeros(4, dtype=np.float32)}, folder / "model.safetensors")
    return folder


def write_config(folder: Path, model: Path, reply: str = "mixed", file: str = "run.toml", **changes: Any) -> Path:
    """The same values as a TOML file in `folder`, with its prompt files beside it."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / file
    lines = [f"{name} = {toml(value)}" for name, value in values(folder, model, reply, **changes).items()]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def toml(value: Any) -> str:
    """A TOML value; tables inline."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{name} = {toml(one)}" for name, one in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(toml, value)) + "]"
    return json.dumps(value)


@dataclass(frozen=True)
class Said:
    """How a command ended and what it said."""

    code: int
    out: str
    err: str


def rlrf(*arguments: str | Path) -> Said:
    """The command line in this process, through its entry point."""
    from flows.cli import main

    before, sys.argv = sys.argv, ["rlrf", *map(str, arguments)]
    out, err, code = io.StringIO(), io.StringIO(), 0
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            main()
    except SystemExit as end:
        code = int(end.code or 0)
    finally:
        sys.argv = before
    return Said(code, out.getvalue(), err.getvalue())


@dataclass(frozen=True)
class Ran:
    """A run of the command line, its configuration and the store that it left."""

    said: Said
    path: Path
    config: RunConfig
    store: Store
    run_id: str

    @property
    def run(self) -> dict[str, Any]:
        """The row of `runs`."""
        return self.store.query("SELECT * FROM runs WHERE run_id = ?", [self.run_id])[0]

    @property
    def produced(self) -> dict[str, int]:
        """What this run added to the store."""
        return reading.produced(self.store, self.run_id)

    def made(self, table: str) -> int:
        """How many rows of a table this run added."""
        return int(self.store.value(f"SELECT count(*) FROM {table} WHERE run_id = ?", [self.run_id]))


def run(path: Path, *options: str) -> Ran:
    """`rlrf run` and what came of it; only for runs that start."""
    said, config = rlrf("run", path, *options), load_config(path)
    store = open_store(config.store_path)
    run_id = reading.latest_run(store)
    assert run_id is not None, said.err
    return Ran(said, path, config, store, run_id)


def _set(table: dict[str, Any], names: list[str], value: Any) -> None:
    for name in names[:-1]:
        table = table.setdefault(name, {})
    if value is None:
        table.pop(names[-1], None)
    else:
        table[names[-1]] = value
