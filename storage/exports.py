"""Pairs and lineage leaving the store: trl's conversational format, Parquet or JSONL, and a model card."""

from __future__ import annotations

import json
import random
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from rlrf.handles import Trained
from storage.store import Store


def trl_rows(store: Store, pair_set: str) -> list[dict[str, Any]]:
    """Pairs as trl takes them: prompt, chosen and rejected as lists of messages. The prompt is the original chat, so
    that what refinement found is distilled into direct answers (paper, section 3.4)."""
    sql = "SELECT messages, chosen, rejected FROM pair_texts WHERE pair_set = ? ORDER BY prompt_id, position"
    return [
        {"prompt": json.loads(row["messages"]), "chosen": _turn(row["chosen"]), "rejected": _turn(row["rejected"])}
        for row in store.query(sql, [pair_set])
    ]


def demonstration_rows(path: Path, seed: int) -> Iterator[dict[str, Any]]:
    """Demonstrations as prompt and chosen, in seeded order."""
    # Only "\n" ends a line of JSONL: splitlines() would also cut at U+2028 and the like within a text.
    lines = path.read_text(encoding="utf-8").rstrip("\n").split("\n")
    random.Random(seed).shuffle(lines)
    for line in lines:
        messages = json.loads(line)["messages"]
        yield {"prompt": messages[:-1], "chosen": messages[-1:]}


def write_jsonl(path: Path, rows: Iterable[dict[str, Any]]) -> int:
    """Write one JSON object per line, whole or not at all; returns the number of rows."""
    partial, count = path.with_name(path.name + ".partial"), 0
    with open(partial, "w", encoding="utf-8") as file:
        for row in rows:
            file.write(json.dumps(row, ensure_ascii=False) + "\n")
            count += 1
    partial.replace(path)
    return count


def write_parquet(path: Path, rows: Iterable[dict[str, Any]]) -> int:
    """Write rows as Parquet, whole or not at all; returns their number."""
    table, partial = pa.Table.from_pylist(list(rows)), path.with_name(path.name + ".partial")
    pq.write_table(table, partial)
    partial.replace(path)
    return int(table.num_rows)


def write_card(folder: Path, trained: Trained, spec: dict[str, Any], lineage: dict[str, Any]) -> None:
    """The model card, and `lineage.json` with all that the model was made of."""
    record = {"policy_id": trained.policy.policy_id, "base": trained.base.model_dump(), "training": spec, **lineage}
    (folder / "lineage.json").write_text(json.dumps(record, indent=2), encoding="utf-8")
    facts = "\n".join(f"| {name} | {value} |" for name, value in lineage.items())
    (folder / "README.md").write_text(
        f"---\nlibrary_name: transformers\ntags: [rlrf, {spec['method']}]\n---\n# {trained.policy.name}\n\n"
        f"Made by rlrf with {spec['method'].upper()} from `{trained.base.name}` (weights {trained.base.policy_id}) in "
        f"{trained.steps} optimiser steps. Weights digest: {trained.policy.policy_id}. All values: `lineage.json`.\n\n"
        f"| | |\n|---|---|\n{facts}\n",
        encoding="utf-8",
    )


def _turn(text: str) -> list[dict[str, str]]:
    return [{"role": "assistant", "content": text}]
