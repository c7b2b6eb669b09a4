from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from rlrf.handles import Trained
from rlrf.pair_config import Pairs
from storage import exports
from storage.store import Store
from tests.storage.builders import policy, uid
from tests.storage.pair_cases import Answer, select, write

WRITERS = [exports.write_jsonl, exports.write_parquet]
ODD = 'line\nbreak \u2028 \x85 \x0b \x00 "quotes" \\ \U0001f9ea'


def read(path: Path) -> list[dict[str, Any]]:
    if path.suffix == ".parquet":
        return pq.read_table(path).to_pylist()  # type: ignore[no-any-return]
    return [json.loads(line) for line in path.read_text(encoding="utf-8").rstrip("\n").split("\n")]


@pytest.mark.parametrize("writer", WRITERS)
def test_pairs_leave_as_conversations(store: Store, tmp_path: Path, writer: Callable[..., int]) -> None:
    prompts = {"p": [Answer("good", ODD), Answer("bad", "no", (0, 0)), Answer("worse", "never", (-1, 0))], "q": []}
    select(store, "pairs", write(store, "set", prompts), Pairs(), 0)
    found = exports.trl_rows(store, uid("pairs"))
    assert len(found) == 1
    assert found[0]["prompt"] == [{"role": "user", "content": "question p?"}]
    assert found[0]["chosen"] == [{"role": "assistant", "content": ODD}]
    assert found[0]["rejected"][0]["content"] in {"no", "never"}
    path = tmp_path / ("pairs.jsonl" if writer is exports.write_jsonl else "pairs.parquet")
    assert writer(path, found) == 1
    assert read(path) == found
    assert [file.name for file in tmp_path.iterdir() if file.name.startswith("pairs")] == [path.name]


def test_pairs_leave_in_one_order(store: Store) -> None:
    prompts = {
        name: [Answer(f"{name} {at}", f"text {at}", (1, 1) if at % 2 else (0, 1)) for at in range(6)] for name in "pqr"
    }
    select(store, "pairs", write(store, "set", prompts), Pairs(k=3), 0)
    found = exports.trl_rows(store, uid("pairs"))
    assert len(found) == 9
    asked = [row["prompt"][0]["content"] for row in found]
    assert asked == [f"question {name}?" for name in sorted("pqr", key=uid) for _ in range(3)]
    assert exports.trl_rows(store, uid("pairs")) == found


@pytest.mark.parametrize("writer", WRITERS)
def test_an_interrupted_export_leaves_the_old_file(tmp_path: Path, writer: Callable[..., int]) -> None:
    def interrupted() -> Iterator[dict[str, str]]:
        yield {"a": "new"}
        raise KeyboardInterrupt

    path = tmp_path / ("pairs.jsonl" if writer is exports.write_jsonl else "pairs.parquet")
    with pytest.raises(KeyboardInterrupt):
        writer(path, interrupted())
    assert not path.exists()
    writer(path, [{"a": "old"}])
    with pytest.raises(KeyboardInterrupt):
        writer(path, interrupted())
    assert read(path) == [{"a": "old"}]
    assert writer(path, [{"a": "newer"}]) == 1
    assert read(path) == [{"a": "newer"}]


@pytest.mark.parametrize("writer", WRITERS)
def test_no_rows_make_an_empty_file(tmp_path: Path, writer: Callable[..., int]) -> None:
    assert writer(tmp_path / "none", []) == 0
    assert (tmp_path / "none").is_file()


def test_demonstrations_are_shuffled_by_seed_and_whole(tmp_path: Path) -> None:
    path = tmp_path / "demonstrations.jsonl"
    chats = [
        {"messages": [{"role": "user", "content": f"{at}?"}, {"role": "assistant", "content": f"{ODD}{at}"}]}
        for at in range(9)
    ]
    exports.write_jsonl(path, chats)
    one, again, other = (list(exports.demonstration_rows(path, seed)) for seed in (1, 1, 2))
    assert one == again != other
    key = json.dumps
    assert sorted(one, key=key) == sorted(other, key=key)
    assert {row["chosen"][0]["content"] for row in one} == {f"{ODD}{at}" for at in range(9)}
    assert all(row["prompt"][0]["role"] == "user" and len(row["prompt"]) == 1 for row in one)


def test_the_card_names_the_base_and_the_digest(tmp_path: Path) -> None:
    trained = Trained(policy=policy("made"), base=policy("base"), key=uid("training"), steps=12)
    exports.write_card(tmp_path, trained, {"method": "dpo", "beta": 0.1}, {"pairs": 40, "pair_set": uid("pairs")})
    card = (tmp_path / "README.md").read_text(encoding="utf-8")
    assert all(word in card for word in ("made", "DPO", "base", uid("made"), "12 optimiser steps", uid("pairs")))
    lineage = json.loads((tmp_path / "lineage.json").read_text(encoding="utf-8"))
    assert lineage["base"]["policy_id"] == uid("base")
    assert lineage["training"] == {"method": "dpo", "beta": 0.1}
