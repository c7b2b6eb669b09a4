"""`rlrf pairs`: responses of other models judged, paired by several rules and audited; nothing is trained."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from storage.store import open_store
from tests import builders
from tests.builders import rlrf

DATA = Path(__file__).parents[3] / "shared" / "data"
ROOT = Path(__file__).parents[2]
RULES = ("paper", "best_worst", "length_controlled")
JUDGE = {
    "type": "python",
    "function": str(ROOT / "deployments" / "plain_form.py") + ":rate",
    "aspects": ["complete", "on_task", "clean"],
}
REPLY = {aspect: {"reason": "Because.", "score": "4"} for aspect in ("helpfulness", "clarity", "factuality", "depth")}


def rules() -> list[str]:
    return [word for rule in RULES for word in ("--rule", rule)]


def write_config(folder: Path, data: Path, **changes: Any) -> Path:
    """The shipped configuration's sources, judge and observer over the files in `data`."""
    columns = {"prompt_key": "id", "response": "response", "policy": "model"}
    prompts = {"name": "items", "path": str(data / "items.jsonl"), "columns": {"prompt": "instruction", "id": "id"}}
    external = {"name": "others", "path": str(data / "responses.jsonl"), "columns": columns, "prompts": prompts}
    recorded = {"type": "recorded", "path": str(data / "judge_replies.jsonl"), "rubric": "just_eval"}
    settings: dict[str, Any] = {
        "policy": {"bootstrap": {"prompts": 1, "held_out": 1}},
        "prompts": None,
        "external": [external],
        "judge": JUDGE,
        "observers": [recorded | {"prompt": "instruction"}],
        "explore": {"n": 0},
        "refine": {"m": 0},
        "pairs": {"min_pairs": 2},
        "evaluate": {"aspect": "complete"},
        "engine": None,
    }
    return builders.write_config(folder, folder / "none", **settings | changes)


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three models' answers to eight questions: a good one, one that is cut off, one that refuses; one recorded reply."""
    folder = tmp_path_factory.mktemp("small")
    items = [{"id": at, "instruction": f"Tell me of the number {at} and its friends."} for at in range(8)]
    texts = {
        "good": "The number {0} has many friends. They meet on Sundays.",
        "cut": "The number {0} is known for its friends, of whom there are so many that one would have to",
        "refuses": "I'm sorry, but I cannot help with that.",
    }
    answers = [
        {"id": at, "model": name, "response": text.format(at)} for at in range(8) for name, text in texts.items()
    ]
    reply = {
        "instruction": items[0]["instruction"],
        "response": texts["good"].format(0),
        "judge_reply": json.dumps(REPLY | {"engagement": {"reason": "None.", "score": "N/A"}}),
    }
    builders.write_lines(folder / "items.jsonl", items)
    builders.write_lines(folder / "responses.jsonl", answers)
    builders.write_lines(folder / "judge_replies.jsonl", [reply])
    return folder


def test_it_prints_lengths_means_and_every_rules_pairs_with_their_audit(
    prefect_server: str, small: Path, tmp_path: Path
) -> None:
    path = write_config(tmp_path, small)
    said = rlrf("pairs", path, *rules())
    assert said.code == 0, said.err
    for word in ("good", "cut", "refuses", *RULES, "on_task", "helpfulness", "length_ratio"):
        assert word in said.out, said.out
    store = open_store(tmp_path / "home" / "store.duckdb")
    assert store.value("SELECT count(*) FROM trainings") == 0
    chosen = store.query(
        "SELECT DISTINCT p.name FROM pairs a JOIN responses r ON r.response_id = a.chosen_id "
        "JOIN policies p USING (policy_id)"
    )
    assert chosen == [{"name": "good"}]
    by_rule = store.query("SELECT pair_set, count(*) AS n FROM pairs GROUP BY ALL")
    assert [row["n"] for row in by_rule] == [8, 8, 8]
    recorded = store.query(
        "SELECT j.reason, count(*) AS n FROM judgements j JOIN keys k ON k.key = j.judge_key "
        "WHERE k.ingredients ->> 'type' = 'recorded' GROUP BY ALL ORDER BY n"
    )
    assert [row["n"] for row in recorded] == [1, 23]
    assert "engagement" in recorded[0]["reason"] and "N/A" in recorded[0]["reason"]
    assert recorded[1]["reason"] == "not_recorded"


def test_an_audit_over_its_limit_is_said_and_the_other_rules_go_on(
    prefect_server: str, small: Path, tmp_path: Path
) -> None:
    path = write_config(tmp_path, small, audit={"length_ratio": 1.05})
    said = rlrf("pairs", path, *rules())
    assert said.code == 0, said.err
    assert "a run would stop here" in said.out
    assert "length_ratio" in said.out


def test_a_judge_over_its_limit_stops_it_with_the_reason_in_the_store(
    prefect_server: str, small: Path, tmp_path: Path
) -> None:
    path = write_config(tmp_path, small, judge={"type": "math"}, evaluate={"aspect": "answer"})
    said = rlrf("pairs", path, *rules())
    assert said.code == 3, said.err
    assert "no_reference" in said.err
    run = open_store(tmp_path / "home" / "store.duckdb").query("SELECT status, reason FROM runs")[0]
    assert run["status"] == "stopped"
    assert "no_reference" in run["reason"]


def test_a_rule_that_does_not_exist_is_wrong_usage(small: Path, tmp_path: Path) -> None:
    said = rlrf("pairs", write_config(tmp_path, small), "--rule", "bestworst")
    assert said.code == 2
    assert "best_worst" in said.err


@pytest.mark.skipif(not (DATA / "just_eval").is_dir(), reason="the whole of just-eval's data isn't here")
def test_six_thousand_real_responses_are_judged_and_paired(prefect_server: str, tmp_path: Path) -> None:
    path = write_config(tmp_path, DATA / "just_eval", pairs=None)
    said = rlrf("pairs", path, *rules())
    assert said.code == 0, said.err
    print(said.out)
    models = ("gpt-4-0613", "gpt-3.5-turbo-0301", "Llama-2-7b-chat-hf", "Mistral-7B-Instruct-v0.1", "tulu-2-dpo-7b")
    assert all(re.search(rf"{re.escape(model)}\s+1,000", said.out) for model in models)
    assert re.search(r"vicuna-7b-v1.5\s+999", said.out), "one of its responses is empty"
    store = open_store(tmp_path / "home" / "store.duckdb")
    assert store.value("SELECT count(*) FROM responses WHERE backend = 'external'") == 5999
    assert store.query("SELECT reason FROM dropped_responses") == [{"reason": "empty"}]
    replies = "SELECT count(DISTINCT raw_reply) FROM judgements j JOIN keys k ON k.key = j.judge_key WHERE k.ingredients ->> 'type' = 'recorded'"
    assert store.value(f"{replies} AND j.reason IS DISTINCT FROM 'not_recorded'") == 500
    assert store.value("SELECT count(DISTINCT pair_set) FROM pairs") == 3
