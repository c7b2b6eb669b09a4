"""Judging a set: what is asked, what is kept, what is asked again, and when it stops. No Prefect server."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from rlrf.config import parse_config
from rlrf.errors import StoppedError
from rlrf.fingerprints import content_id
from rlrf.handles import Policy, Run
from rlrf.judging import key_of
from rlrf.records import Completion, Prompt
from storage import judgements, ledger, rows, sets
from storage.store import Store, open_store
from tasks.judging import judge_set
from tasks.progress import StageProgress
from tasks.stage import Stage
from tests import builders
from tests.tasks import judge_replies

SET = content_id("test", "a set")
PROMPTS = 4


def rubric_judge(reply: str, **more: Any) -> dict[str, Any]:
    engine = {"type": "scripted", "reply": f"tests.tasks.judge_replies:{reply}", "batch_size": 8}
    return {"type": "rubric", "rubric": "math", "engine": engine, "retries": 0} | more


def stage_with(folder: Path, judge: dict[str, Any], responses: int = 0, unrated: float = 1.0) -> Stage:
    """A stage over a store with this many responses ('response 0', ...) to four prompts, in one set."""
    values = builders.values(folder, folder / "model", judge=judge, limits={"unrated": unrated})
    config = parse_config(values, "a test")
    store = open_store(config.store_path)
    run = Run(run_id=content_id("test", "run"), store_id=store.store_id, config=config)
    _fill(store, responses, run.run_id)
    judge_replies.asked.clear()
    return Stage("judge", SET, run, store, StageProgress("judge"))


def _fill(store: Store, responses: int, run_id: str) -> None:
    prompts = [
        Prompt(content_id("p", at), "s", ({"role": "user", "content": f"prompt {at}?"},)) for at in range(PROMPTS)
    ]
    rows.add_prompts(store, prompts)
    results = [Completion(content_id("r", at), f"response {at}", "stop", 3, 5) for at in range(responses)]
    planned = {
        one.request_id: {"prompt_id": prompts[at % PROMPTS].prompt_id, "parent_id": None, "position": at, "seed": at}
        for at, one in enumerate(results)
    }
    common = {"gen_key": content_id("g", 0), "policy_id": content_id("m", 0), "backend": "test", "run_id": run_id}
    rows.add_results(store, results, planned, common)
    sets.add_members(store, SET, [one.request_id for one in results])


def judge(stage: Stage) -> None:
    judge_set(stage, stage.store, SET, stage.config.judge, stage.progress)


def said(stage: Stage, key: str | None = None) -> dict[str, tuple[float | None, str | None]]:
    """From a response's text to its score and reason."""
    sql = """SELECT r.text, j.score, j.reason FROM judgements j JOIN responses r USING (response_id)
             WHERE j.judge_key = ?"""
    found = stage.store.query(sql, [key or key_of(stage.config.judge).key])
    return {row["text"]: (row["score"], row["reason"]) for row in found}


def test_three_in_ten_replies_that_fail_in_five_ways_never_become_a_score(tmp_path: Path) -> None:
    stage = stage_with(tmp_path, rubric_judge("failing"), responses=50)
    judge(stage)
    found = said(stage)
    assert len(found) == 50
    for at in range(50):
        score, reason = found[f"response {at}"]
        if at % 10 >= 3:
            assert (score, reason) == (1 if at % 2 == 0 else -1, None)
        else:
            assert score is None
            assert reason is not None
    reasons = {at: (found[f"response {at * 10}"][1] or "").split(":")[0] for at in range(5)}
    assert reasons == {0: "judge_failed", 1: "judge_truncated", 2: "no_json", 3: "contradiction", 4: "unrated_aspects"}
    unread = "reason IS NOT NULL AND (positive OR score IS NOT NULL OR raw_reply IS NULL)"
    assert stage.store.value(f"SELECT count(*) FROM judgements WHERE {unread}") == 0
    assert stage.store.value("SELECT count(*) FROM ratings WHERE rating IS NOT NULL") == 35


def test_over_the_limit_the_stage_stops_with_the_reason_before_it_asks_everything(tmp_path: Path) -> None:
    stage = stage_with(tmp_path, rubric_judge("failing"), responses=400, unrated=0.1)
    with pytest.raises(StoppedError, match=r"4\d of 400 responses could not be rated, limits.unrated is 10%.*no_json"):
        judge(stage)
    assert judge_replies.asked["failing"] < 200
    assert stage.store.value("SELECT count(*) FROM judgements WHERE score IS NOT NULL AND reason IS NOT NULL") == 0


def test_an_unreadable_reply_is_asked_for_again_a_bounded_number_of_times(tmp_path: Path) -> None:
    stage = stage_with(tmp_path, rubric_judge("failing", retries=2), responses=20)
    judge(stage)
    assert judge_replies.asked["failing"] == 14 + 6 * 3
    attempts = stage.store.query("SELECT reason IS NULL AS rated, max(attempts) AS most FROM judgements GROUP BY ALL")
    assert {row["rated"]: row["most"] for row in attempts} == {True: 1, False: 3}


def test_what_got_no_reply_is_asked_for_again_and_what_could_not_be_read_is_not(tmp_path: Path) -> None:
    stage = stage_with(tmp_path, rubric_judge("up_and_down"), responses=10)
    judge_replies.OUTAGE[0] = True
    try:
        judge(stage)
    finally:
        judge_replies.OUTAGE[0] = False
    assert sum(reason is not None for _, reason in said(stage).values()) == 6
    judge_replies.asked.clear()
    judge(stage)
    assert judge_replies.asked["up_and_down"] == 5
    assert {text for text, (_, reason) in said(stage).items() if reason} == {"response 2"}


def test_a_panel_keeps_every_verdict_and_merges_them_by_its_rule(tmp_path: Path) -> None:
    panel = {"type": "panel", "merge": "min", "judges": [rubric_judge("fair"), rubric_judge("strict")]}
    stage = stage_with(tmp_path, panel, responses=8)
    judge(stage)
    fair, strict = (said(stage, key_of(member).key) for member in stage.config.judge.judges)  # type: ignore[union-attr]
    assert [fair[f"response {at}"][0] for at in range(8)] == [1, -1, 1, -1, 1, -1, 1, -1]
    assert [strict[f"response {at}"][0] for at in range(8)] == [1, -1, -1, -1, 1, -1, -1, -1]
    assert [said(stage)[f"response {at}"][0] for at in range(8)] == [1, -1, -1, -1, 1, -1, -1, -1]
    assert stage.store.value("SELECT count(*) FROM judgements") == 24
    judge_replies.asked.clear()
    judge(stage)
    assert not judge_replies.asked


def test_a_panel_without_its_quorum_is_unrated_until_the_missing_verdict_comes(tmp_path: Path) -> None:
    panel = {"type": "panel", "merge": "mean", "judges": [rubric_judge("fair"), rubric_judge("up_and_down")]}
    stage = stage_with(tmp_path, panel, responses=10)
    judge_replies.OUTAGE[0] = True
    try:
        judge(stage)
    finally:
        judge_replies.OUTAGE[0] = False
    assert sum(reason is not None for _, reason in said(stage).values()) == 6
    judge(stage)
    found = said(stage)
    assert {text for text, (_, reason) in found.items() if reason} == {"response 2"}
    assert found["response 4"] == (1, None)


def test_aspects_are_named_once_per_prompt_and_reused_for_all_its_responses(tmp_path: Path) -> None:
    settings = rubric_judge("choosing", rubric="general", aspects="prompt", choose=2)
    stage = stage_with(tmp_path, settings, responses=12)
    judge(stage)
    assert judge_replies.asked == {"chosen": PROMPTS, "rated": 12}
    aspects = stage.store.query("SELECT DISTINCT aspect FROM ratings ORDER BY aspect")
    assert [row["aspect"] for row in aspects] == ["completeness", "readability"]
    assert stage.store.value("SELECT count(*) FROM ratings") == 24
    assert all(score == 1 for score, _ in said(stage).values())


def test_the_policy_as_its_own_judge_is_another_judge_once_it_is_another_policy(tmp_path: Path) -> None:
    from tests.rlrf.backends.tiny_model import build_tiny_model

    first, second = (
        Policy(policy_id=content_id("m", name), name=name, folder=str(build_tiny_model(tmp_path / name, seed=seed)))
        for seed, name in enumerate(("first", "second"))
    )
    for whose, same in (("first", True), ("current", False)):
        stage = stage_with(tmp_path, rubric_judge("fair", policy=whose))
        run = stage.run.model_copy(update={"first": first})
        keys = [key_of(run.judged_by(policy).config.judge).key for policy in (first, second)]
        assert (keys[0] == keys[1]) is same
        assert run.judged_by(first).config.judge.model == first.folder  # type: ignore[union-attr]


def rubric_file(folder: Path, *aspects: str) -> str:
    levels = 'definition = "d"\nsuccess = "s"\nmoderate = "m"\nfailure = "f"\n'
    path = folder / f"{'-'.join(aspects)}.toml"
    path.write_text('name = "r"\n' + "".join(f'[[aspects]]\nname = "{name}"\n{levels}' for name in aspects))
    return str(path)


def test_a_panels_members_and_later_rubrics_keep_the_ratings_of_aspects_that_stayed(tmp_path: Path) -> None:
    first = stage_with(tmp_path, rubric_judge("choosing", rubric=rubric_file(tmp_path, "a", "b")), responses=6)
    judge(first)
    members = [rubric_judge("choosing", rubric=rubric_file(tmp_path, *names)) for names in (("b", "c"), ("b", "a"))]
    panel = stage_with(tmp_path, {"type": "panel", "merge": "min", "judges": members})
    judge(panel)
    assert judge_replies.asked == {"rated": 6}, "of both members only c is new"
    sql = """SELECT DISTINCT raw_reply::JSON -> 'kept' AS kept, attempts FROM judgements WHERE raw_reply LIKE '{"kept"%'
             ORDER BY attempts"""
    key = key_of(first.config.judge).key
    assert [(row["kept"], row["attempts"]) for row in panel.store.query(sql)] == [
        (f'{{"b":"{key}","a":"{key}"}}', 0),
        (f'{{"b":"{key}"}}', 1),
    ]
    assert panel.store.value("SELECT count(*) FROM ratings") == 6 * (2 + 2 + 2 + 3)


def test_an_aspect_that_was_left_unrated_is_asked_for_again(tmp_path: Path) -> None:
    narrow = stage_with(tmp_path, rubric_judge("failing"), responses=10)
    judge(narrow)
    path = rubric_file(tmp_path, "new")
    text = Path("rlrf/rubrics/math.toml").read_text(encoding="utf-8")
    Path(path).write_text(text + Path(path).read_text(encoding="utf-8").split("\n", 1)[1], encoding="utf-8")
    wide = stage_with(tmp_path, rubric_judge("failing", rubric=path))
    assert [case.known != () for case in judgements.unjudged(wide.store, SET, _recorded(wide))].count(False) == 3


def _recorded(stage: Stage) -> str:
    key = key_of(stage.config.judge)
    ledger.record_keys(stage.store, key)
    return key.key
