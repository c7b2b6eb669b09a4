"""Stage keys: what they are made of, and that they stay what they are."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from rlrf import judging, stages
from rlrf.config import RunConfig, parse_config
from rlrf.handles import Corpus, Evaluation, Handle, Policy
from rlrf.stages import Key
from tests.builders import source
from tests.storage.builders import evaluation, uid


def config(**changes: Any) -> RunConfig:
    """A configuration that needs no file."""
    values: dict[str, Any] = {
        "name": "keys",
        "home": "home",
        "policy": {"model": "folder"},
        "prompts": {"sources": [source(Path("a.jsonl"))], "system": "Be brief.", "held_out": {"fraction": 0.1}},
    }
    return parse_config(values | changes, "test")


def handle(stage: str) -> Handle:
    return Handle(stage=stage, key=uid(f"{stage} key"), rows=3, digest=uid(f"{stage} digest"))


CORPUS = Corpus(prompts=handle("prompts"), held_out=handle("held_out"), external=handle("external"))
POLICY = Policy(policy_id=uid("weights"), name="tiny", folder="f")
FILE = Key("file", uid("file"), {"name": "a.jsonl", "bytes": 7})
TEMPLATE = Key("text", uid("template"), {"text": "Rewrite."})
REWARD = Key("judge", uid("reward"), {"type": "reward"})
OLD: Evaluation = evaluation("old", POLICY)
NEW: Evaluation = evaluation("new", POLICY)


def all_keys() -> dict[str, Key]:
    """Every kind of key once, of fixed ingredients."""
    one = config()
    judge = judging.key_of(one.judge)
    refinement = stages.refinement_key(one, POLICY, judge, TEMPLATE)
    return {
        "ingest": stages.ingest_key(one, [[FILE]]),
        "sample_prompts": stages.sample_prompts_key(one, CORPUS, 2),
        "response": stages.response_key(one, POLICY, one.explore),
        "explore": stages.explore_key(one, CORPUS, POLICY, handle("sample_prompts")),
        "judge": judge,
        "judged": stages.judged_key(judge, handle("explore"), [REWARD], 3),
        "refinement": refinement,
        "refine": stages.refine_key(one, handle("judge"), refinement, None),
        "compare": stages.compare_key(one, POLICY, handle("refine")),
        "select_pairs": stages.select_pairs_key(one, (handle("judge"), handle("refine")), REWARD),
        "train_policy": stages.train_policy_key(one, POLICY, handle("select_pairs").digest),
        "evaluate": stages.evaluate_key(one, POLICY, CORPUS.held_out, judge),
        "decide": stages.decide_key(one, NEW, OLD),
    }


GOLDEN = {
    "ingest": "81bee7c7-5b31-7c18-0724-3545ae998a8b",
    "sample_prompts": "601c61d8-9f1b-215a-77dd-e884d5df02f6",
    "response": "914c8fe4-a233-8239-6820-22cf002d7682",
    "explore": "7dfb0f97-58a6-abf7-ea0e-ac1490b2f47b",
    "judge": "fb8db599-5c32-0a6d-e9a9-c728295b5d1c",
    "judged": "21b286a9-1719-ad54-b07a-169906238f78",
    "refinement": "e8fa8b9e-dfc8-fc59-feef-bc7726e9fdaf",
    "refine": "5b13b966-5e93-e2c9-2f63-4c3a8d3fdd80",
    "compare": "d085cd40-b70d-13a6-8063-7f46a86e3e3f",
    "select_pairs": "27bd26e3-33d1-d7fd-cd2e-4a7d74ea1351",
    "train_policy": "3a41d172-666b-c9fe-0b22-28f0c43e2b5e",
    "evaluate": "201211d6-3518-b575-d96e-1a4d5a26cba2",
    "decide": "b668d6fe-c9ec-a5e4-bf6b-c4d0554ee38d",
}
"""Stores are keyed by these: a failure here means that finished stages would be done again."""


@pytest.mark.parametrize("kind", GOLDEN)
def test_keys_never_change(kind: str) -> None:
    assert all_keys()[kind].key == GOLDEN[kind]


def test_parts_are_the_keys_among_the_ingredients() -> None:
    keys = all_keys()
    for key in keys.values():
        for path, part in key.parts.items():
            value: Any = key.ingredients
            for step in path.split("."):
                value = value[int(step)] if isinstance(value, list) else value[step]
            assert value == part.key
    assert keys["ingest"].parts == {"contents.0.0": FILE}
    assert keys["judged"].parts == {"judge": keys["judge"], "beside.0": REWARD}
    assert [one.kind for one in keys["refine"].whole()] == ["refine", "refinement", "judge", "text"]


def test_the_code_version_is_an_ingredient(monkeypatch: pytest.MonkeyPatch) -> None:
    before = all_keys()["response"]
    monkeypatch.setitem(stages.CODE, "response", 99)
    after = all_keys()["response"]
    assert before.key != after.key
    assert after.ingredients == before.ingredients | {"code": 99}
