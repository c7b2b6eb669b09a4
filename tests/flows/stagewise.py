"""One turn of the wheel up to its pairs, stage by stage, without Prefect: what it asks for, and what it has in the end."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rlrf import stages
from rlrf.config import RunConfig, parse_config
from rlrf.fingerprints import content_id
from rlrf.handles import Policy, Run
from rlrf.judging import key_of
from storage import ledger, sets
from storage.store import Store, open_store
from tasks.audit_pairs import audit_pairs
from tasks.evaluate import evaluate
from tasks.explore import explore
from tasks.ingest import ingest
from tasks.judge import judge
from tasks.refine import refine
from tasks.sample_prompts import sample_prompts
from tasks.select_pairs import select_pairs
from tests import builders
from tests.flows import replies

POLICY = Policy(policy_id=content_id("a policy", "base"), name="base", folder="")
ASPECTS = ("clear", "complete")
PROMPTS = 8


@dataclass(frozen=True)
class Turn:
    """`asked`: requests by what they were for; `rows`: members of each set; `judged` and `ratings`: how many of them the judge
    rated and on how many aspects in all; `trains`: the key of the training."""

    store: Store
    asked: dict[str, int]
    rows: dict[str, list[str]]
    judged: int
    ratings: int
    trains: str


def turn(config: RunConfig) -> Turn:
    """The stages of one iteration up to the audit, and the evaluation of the policy that it starts from."""
    store = open_store(config.store_path)
    run = Run(run_id=content_id("run", str(config.store_path)), store_id=store.store_id, config=config)
    ledger.add_policy(store, POLICY, "model")
    replies.answered.clear()
    corpus = _do(ingest, run)
    evaluation = _do(evaluate, run, corpus, POLICY)
    prompts = _do(sample_prompts, run, corpus, 1)
    explored = _do(explore, run, corpus, POLICY, prompts)
    feedback = _do(judge, run, explored)
    refined = _do(refine, run, POLICY, feedback)
    verdicts = _do(judge, run, refined)
    pairs = _do(select_pairs, run, prompts, (feedback, verdicts))
    _do(audit_pairs, run, corpus, pairs, (feedback, verdicts))
    found = {
        "explored": sets.members(store, explored.key),
        "refined": sets.members(store, refined.key),
        "exam": sets.members(store.held_out(), evaluation.key),
    }
    rated = [
        _rated(store, config, found["explored"] + found["refined"]),
        _rated(store.held_out(), config, found["exam"]),
    ]
    return Turn(
        store,
        dict(replies.answered),
        found,
        sum(judged for judged, _ in rated),
        sum(ratings for _, ratings in rated),
        stages.train_policy_key(config, POLICY, pairs.digest).key,
    )


def small(folder: Path, **changes: Any) -> RunConfig:
    """A configuration with a rubric judge of two aspects, whose responses are cut off at 32 tokens three times in ten."""
    folder.mkdir(parents=True, exist_ok=True)
    prompts = builders.write_lines(folder / "few.jsonl", builders.prompt_rows("prompts")[:PROMPTS])
    usual: dict[str, Any] = {
        "prompts__per_iteration": None,
        "prompts__sources": [builders.source(prompts)],
        "judge": rubric_judge(folder, ASPECTS),
        "pairs__min_pairs": 1,
        "audit__ties": "off",
        "audit__length_ratio": "off",
        **{f"{stage}__max_tokens": 32 for stage in ("explore", "refine", "evaluate")},
        "evaluate__aspect": "clear",
    }
    return parse_config(builders.values(folder, folder / "model", "rambling", **(usual | changes)), "a test")


def rubric_judge(folder: Path, aspects: tuple[str, ...], **words: dict[str, Any]) -> dict[str, Any]:
    """A judge's table; `words` replace parts of an aspect's definition or weight."""
    lines = ['name = "two"']
    for name in aspects:
        levels = {level: f"{name}: {level}" for level in ("success", "moderate", "failure")}
        aspect = {"name": name, "definition": f"Is it {name}?", **levels, **words.get(name, {})}
        lines += ["[[aspects]]", *(f"{key} = {builders.toml(value)}" for key, value in aspect.items())]
    path = folder / f"rubric-{content_id('rubric', lines)[:8]}.toml"
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    engine = {"type": "scripted", "reply": "tests.flows.replies:rating", "batch_size": 8}
    return {"type": "rubric", "rubric": str(path), "engine": engine, "retries": 0}


def _rated(store: Store, config: RunConfig, response_ids: list[str]) -> tuple[int, int]:
    sql = """SELECT count(DISTINCT response_id) AS judged, count(*) AS ratings FROM ratings
             WHERE judge_key = $judge AND response_id IN (SELECT unnest($ids::UUID[]))"""
    row = store.query(sql, {"judge": key_of(config.judge).key, "ids": response_ids})[0]
    return row["judged"], row["ratings"]


def _do(stage: Any, run: Run, *arguments: Any) -> Any:
    """A stage's own work, without Prefect."""
    return stage.fn(run, *arguments)
