"""The views on a small store whose numbers can be worked out by hand."""

from __future__ import annotations

import pytest

from rlrf.handles import Outcome, Trained
from rlrf.pair_config import Pairs
from rlrf.records import UNBOUNDED, Judgement, Rating
from rlrf.stages import Key
from storage import ledger, reading
from storage.judgements import add_judgements
from storage.pairing import select_pairs
from storage.rows import add_prompts
from storage.store import Store
from tests.storage.builders import (
    GEN,
    JUDGE,
    RUN,
    completion,
    evaluation,
    judge,
    judgement,
    members,
    policy,
    prompt,
    respond,
    uid,
)

BASE, MADE = policy("base"), policy("made")


@pytest.fixture
def wheel(store: Store) -> Store:
    """One turn: two prompts, three responses to the first and one to the second, two refinements, one pair, one training.

    p: x (1, 0), y (-1, -1), z unrated; x+ (1, 1) and x- (0, 0) refine x. q: w, cut off and unrated.
    """
    add_prompts(store, [prompt("p"), prompt("q")])
    for one, kind in ((BASE, "model"), (MADE, "trained")):
        ledger.add_policy(store, one, kind)
    ledger.record_keys(store, Key("response", GEN, {"temperature": 1.0}))
    respond(store, "p", [completion("x", tokens=10), completion("y", tokens=20), completion("z", tokens=30)])
    respond(store, "q", [completion("w", finish="length", tokens=40)])
    respond(store, "p", [completion("x+", tokens=12), completion("x-", tokens=8)], "x", gen_key=uid("refinement"))
    judge(store, judgement("x", 1, 0), judgement("y", -1, -1), judgement("z", reason="no reply"))
    judge(store, judgement("w", reason="truncated"), judgement("x+", 1, 1), judgement("x-", 0, 0))
    members(store, "responses", "xyzw")
    members(store, "refinements", ["x+", "x-"])
    prompts = members(store, "prompts", "pq")
    sets = [uid("responses"), uid("refinements")]
    select_pairs(store, uid("pairs"), prompts=prompts, responses=sets, judge_key=JUDGE, rule=Pairs(k=2), seed=0)
    trained = Trained(policy=MADE, base=BASE, key=uid("training"), steps=1)
    record = {"pair_set": uid("pairs"), "spec": {}, "rows": 1, "excluded": {}}
    ledger.add_training(store, trained, record, [], 1.0)
    return store


def test_aspect_means(wheel: Store) -> None:
    found = wheel.query("SELECT * FROM aspect_means ORDER BY refinement, place")
    assert [(row["aspect"], row["refinement"], row["mean"], row["rated"], row["unrated"]) for row in found] == [
        ("answer", False, 0.0, 2, 0),
        ("steps", False, -0.5, 2, 0),
        ("answer", True, 0.5, 2, 0),
        ("steps", True, 0.5, 2, 0),
    ]
    assert found[1]["standard_error"] == pytest.approx(0.5)  # of 0 and -1


def test_refinements_against_their_parents(wheel: Store) -> None:
    judge(wheel, judgement("x", 1, 1), judgement("x+", reason="no reply"), judge_key=uid("another judge"))
    found = wheel.query("SELECT * FROM refinement_against_parent ORDER BY judge_key = ?, score DESC", [JUDGE])
    assert [(row["response_id"], row["parent_score"], row["score"], row["lift"], row["outcome"]) for row in found] == [
        (uid("x+"), 1.0, None, None, "unrated"),
        (uid("x+"), 0.5, 1.0, 0.5, "win"),
        (uid("x-"), 0.5, 0.0, -0.5, "loss"),
    ]


def test_pair_texts_and_their_summary(wheel: Store) -> None:
    found = wheel.query("SELECT * FROM pair_texts")
    assert len(found) == 1
    pair = found[0]
    assert (pair["chosen"], pair["chosen_is_refinement"], pair["chosen_tokens"]) == ("text of x+", True, 12)
    assert pair["rejected_id"] in {uid("x"), uid("y"), uid("x-")}
    summary = wheel.query("SELECT * FROM pair_set_summary")
    assert summary == [
        {
            "pair_set": uid("pairs"),
            "pairs": 1,
            "prompts_paired": 1,
            "prompts_dropped": 1,
            "refinement_share": 1.0,
            "chosen_tokens": 12.0,
            "rejected_tokens": float(pair["rejected_tokens"]),
        }
    ]


def test_lineage_leads_from_a_response_to_what_it_taught(wheel: Store) -> None:
    rows = wheel.query("SELECT * FROM lineage")
    assert len(rows) == 6
    found = {row["response_id"]: row for row in rows}
    chosen = found[uid("x+")]
    assert (chosen["parent_text"], chosen["chosen_in"], chosen["rejected_in"]) == ("text of x", uid("pairs"), None)
    assert (chosen["taught_policy"], chosen["policy"], chosen["score"]) == (MADE.policy_id, "base", 1.0)
    assert found[uid("x")]["made_with"] == '{"temperature": 1.0}'
    unused = found[uid("w")]
    assert (unused["unrated_because"], unused["taught_policy"], unused["finish_reason"]) == (
        "truncated",
        None,
        "length",
    )


def test_judged_sets(wheel: Store) -> None:
    found = {row["set_key"]: row for row in wheel.query("SELECT * FROM judged_sets")}
    assert {
        name: found[uid("responses")][name] for name in ("judged", "unrated", "unrated_share", "top_share", "tokens")
    } == {
        "judged": 4,
        "unrated": 2,
        "unrated_share": 0.5,
        "top_share": 0.0,
        "tokens": 100,
    }
    assert (found[uid("refinements")]["top_share"], found[uid("refinements")]["tokens_mean"]) == (0.5, 10.0)


def test_top_share_counts_the_top_of_every_aspect_on_any_scale(wheel: Store) -> None:
    stars, reward = uid("stars"), uid("reward")
    rated = [Judgement(uid(name), (Rating("answer", rating, scale=(1, 5)),)) for name, rating in (("x", 5), ("y", 4))]
    add_judgements(wheel, stars, rated, {"answer": 1.0}, RUN)
    add_judgements(
        wheel, reward, [Judgement(uid("x"), (Rating("answer", 1.0, scale=UNBOUNDED),))], {"answer": 1.0}, RUN
    )
    found = wheel.query("SELECT judge_key, top_share FROM judged_sets WHERE set_key = ?", [uid("responses")])
    assert {row["judge_key"]: row["top_share"] for row in found} == {JUDGE: 0.0, stars: 0.5, reward: 0.0}


def test_the_summary_of_a_run(wheel: Store) -> None:
    first, second, control = (
        evaluation(name, of, share) for name, of, share in (("e0", BASE, 0.5), ("e1", MADE, 0.75), ("ec", MADE, 0.5))
    )
    for one in (first, second, control):
        ledger.add_evaluation(wheel, one, 0, [])
    stages = {"explore": uid("responses"), "refine": uid("refinements"), "select_pairs": uid("pairs")}
    ledger.add_iteration(
        wheel, RUN, "base", Outcome(iteration=0, base=None, evaluation=first, steps=0, stages={}), JUDGE
    )
    turned = Outcome(iteration=1, base=BASE, evaluation=second, steps=1, stages=stages)
    ledger.decide(
        wheel, "promote", MADE, MADE, "a gain", "gate", stage_key=uid("decide"), gain=0.25, low=0.05, high=0.45
    )
    ledger.add_iteration(wheel, RUN, "policy", turned, JUDGE, uid("decide"))
    compared = Outcome(iteration=1, base=BASE, evaluation=control, steps=1, stages={})
    ledger.add_iteration(wheel, RUN, "control", compared, JUDGE)
    found = reading.results(wheel, RUN)
    assert [(row["arm"], row["iteration"], row["accuracy"]) for row in found] == [
        ("base", 0, 0.5),
        ("policy", 1, 0.75),
        ("control", 1, 0.5),
    ]
    turn = found[1]
    assert (turn["explored"], turn["refined"], turn["unrated_share"], turn["tokens"]) == (
        4,
        2,
        pytest.approx(2 / 6),
        120,
    )
    assert (turn["pairs"], turn["prompts_dropped"], turn["refinement_share"], turn["base"], turn["policy"]) == (
        1,
        1,
        1.0,
        "base",
        "made",
    )
    assert (turn["verdict"], turn["gain"], turn["gain_low"], turn["gain_high"]) == ("promote", 0.25, 0.05, 0.45)
    assert (found[0]["pairs"], found[0]["unrated_share"], found[0]["verdict"]) == (None, None, None)
    assert reading.results(wheel, uid("another run")) == []
