"""What goes with a stage's result, on rows made by hand: exactly what rests on it."""

from __future__ import annotations

from pathlib import Path

import pytest

from rlrf.fingerprints import content_id
from rlrf.handles import Handle
from rlrf.pair_config import Pairs
from rlrf.stages import Key
from storage import invalidating, ledger, pairing, rows, sets
from storage.invalidating import Target
from storage.ledger import Counts
from storage.store import Store
from tests.builders import write_model
from tests.storage.builders import (
    GEN,
    JUDGE,
    RUN,
    completion,
    failure,
    judge,
    judgement,
    members,
    policy,
    prompt,
    respond,
    uid,
)

EXPLORE = Target("explore", uid("explore"), GEN, uid("prompts"), (0, 2))
JUDGED = Target("judge", uid("judged"), judges=(JUDGE,))
REFINED = uid("refinement key")


def receipt(store: Store, name: str, stage: str) -> None:
    handle = Handle(stage=stage, key=uid(name), rows=1, digest=uid("digest"))
    ledger.write_receipt(store, handle, Counts(tokens=70), 1.5, RUN)


def ids(store: Store, sql: str) -> set[str]:
    return {str(next(iter(row.values()))) for row in store.query(sql)}


@pytest.fixture
def turned(store: Store) -> Store:
    """Two prompts, three responses each (one external, one failed), one refined, all judged, paired and audited."""
    rows.add_prompts(store, [prompt("p"), prompt("q")])
    members(store, "prompts", ["p", "q"])
    respond(store, "p", [completion("p0"), completion("p1"), completion("p2")])
    respond(store, "q", [completion("q0"), failure("q1")])
    respond(store, "p", [completion("r0"), completion("r1")], parent="p0", gen_key=REFINED)
    rows.add_external(store, [external("x", "q")])
    members(store, "explore", ["p0", "p1", "p2", "q0", "x"])
    members(store, "judged", ["p0", "p1", "p2", "q0", "x"])
    members(store, "refine", ["r0", "r1"])
    judge(store, judgement("p0", 1, 1), judgement("p1", -1, 0), judgement("p2", 0, 0), judgement("q0", 1, 1))
    judge(store, judgement("x", -1, -1), judgement("r0", 1, 1), judgement("r1", 1, -1))
    judge(store, judgement("p0", 0, 0), judge_key=uid("other judge"))
    pairing.select_pairs(
        store,
        uid("pairs"),
        prompts=uid("prompts"),
        responses=[uid("judged"), uid("refine")],
        judge_key=JUDGE,
        rule=Pairs(),
        seed=1,
    )
    ledger.record_keys(store, Key("judged", uid("judged"), {"judge": JUDGE, "responses": uid("digest")}))
    for name, stage in (("explore", "explore"), ("judged", "judge"), ("refine", "refine"), ("pairs", "select_pairs")):
        receipt(store, name, stage)
    receipt(store, "elsewhere", "explore")
    return store


def external(name: str, of: str) -> dict[str, object]:
    found: dict[str, object] = {
        "response_id": uid(name),
        "prompt_id": uid(of),
        "parent_id": None,
        "gen_key": uid("written"),
    }
    return found | {
        "policy_id": uid("written"),
        "position": 0,
        "text": name,
        "finish_reason": "stop",
        "backend": "external",
    }


def test_explored_responses_take_along_all_that_rests_on_them(turned: Store) -> None:
    [gone], backup = invalidating.invalidate(turned, [EXPLORE])
    assert gone.rows["responses"] == 6, "the refinements too"
    assert gone.rows["failures"] == 1
    assert gone.tokens == 6 * 7 + 7 * 13
    assert gone.seconds == 4 * 1.5, "explore, judge, refine and the pairs"
    assert ids(turned, "SELECT response_id FROM responses") == {uid("x")}, "external ones were not made here"
    assert (
        ids(turned, "SELECT response_id FROM judgements")
        == ids(turned, "SELECT response_id FROM ratings")
        == {uid("x")}
    )
    assert ids(turned, "SELECT stage_key FROM receipts") == {uid("elsewhere")}
    assert turned.query("FROM pairs") == turned.query("FROM unpaired") == turned.query("FROM failures") == []
    assert sets.members(turned, uid("prompts")) == sorted([uid("p"), uid("q")])
    assert sets.members(turned, uid("explore")) == []
    assert backup is not None
    assert len(ids(Store(backup), "SELECT response_id FROM responses")) == 7


def test_what_is_shared_with_another_set_unfinishes_that_set(turned: Store) -> None:
    members(turned, "more", ["p0", "x", "y"])
    receipt(turned, "more", "explore")
    invalidating.invalidate(turned, [EXPLORE])
    assert sets.members(turned, uid("more")) == sorted([uid("x"), uid("y")])
    assert uid("more") not in ids(turned, "SELECT stage_key FROM receipts")


def test_responses_of_a_stage_that_did_not_end_go_and_those_at_other_positions_stay(turned: Store) -> None:
    fewer = Target("explore", uid("unfinished"), GEN, uid("prompts"), (2, 2))
    [gone], _ = invalidating.invalidate(turned, [fewer])
    assert gone.rows["responses"] == 1
    assert uid("p2") not in ids(turned, "SELECT response_id FROM responses")
    assert uid("p0") in ids(turned, "SELECT response_id FROM responses")


def test_a_judging_takes_this_judges_words_alone(turned: Store) -> None:
    [gone], _ = invalidating.invalidate(turned, [JUDGED])
    assert gone.rows == {"judgements": 5, "ratings": 10, "members": 5, "receipts": 1}
    assert ids(turned, "SELECT response_id FROM judgements WHERE judge_key <> '" + JUDGE + "'") == {uid("p0")}
    assert ids(turned, "SELECT response_id FROM judgements WHERE judge_key = '" + JUDGE + "'") == {uid("r0"), uid("r1")}
    assert len(ids(turned, "SELECT response_id FROM responses")) == 7
    assert turned.query("FROM pairs") != []


def test_a_judging_of_another_set_with_the_same_verdicts_is_unfinished(turned: Store) -> None:
    for name, by in (("same judge", JUDGE), ("another judge", uid("other judge"))):
        members(turned, name, ["p0"])
        ledger.record_keys(turned, Key("judged", uid(name), {"judge": by, "responses": uid(name)}))
        receipt(turned, name, "judge")
    members(turned, "beside", ["p1"])
    ledger.record_keys(turned, Key("judged", uid("beside"), {"judge": uid("other judge"), "beside": [JUDGE]}))
    receipt(turned, "beside", "judge")
    invalidating.invalidate(turned, [JUDGED])
    left = ids(turned, "SELECT stage_key FROM receipts WHERE stage = 'judge'")
    assert left == {uid("another judge")}


def test_a_pair_set_goes_alone(turned: Store) -> None:
    pairs = len(turned.query("FROM pairs"))
    [gone], _ = invalidating.invalidate(turned, [Target("select_pairs", uid("pairs"))])
    assert pairs >= 2
    assert gone.rows == {"pairs": pairs, "receipts": 1}
    assert len(ids(turned, "SELECT stage_key FROM receipts")) == 4


def test_a_count_changes_nothing_and_says_what_goes(turned: Store) -> None:
    before, identity = turned.query("FROM responses ORDER BY ALL"), turned.store_id
    counted = invalidating.count(turned, [EXPLORE, JUDGED])
    assert turned.query("FROM responses ORDER BY ALL") == before
    assert turned.store_id == identity
    assert list((turned.path.parent).glob("backups/*")) == []
    assert invalidating.invalidate(turned, [EXPLORE, JUDGED])[0] == counted
    assert turned.store_id != identity, "so that nothing in Prefect's cache outlives its rows"


def test_a_second_time_nothing_goes_and_no_copy_is_made(turned: Store) -> None:
    _, first = invalidating.invalidate(turned, [EXPLORE])
    identity = turned.store_id
    [gone], second = invalidating.invalidate(turned, [EXPLORE])
    assert (gone.rows, second) == ({}, None)
    assert [first] == list((turned.path.parent / "backups").iterdir())
    assert turned.store_id == identity


def test_two_copies_of_one_second_are_two(turned: Store) -> None:
    copies = {
        invalidating.invalidate(turned, [one])[1] for one in (Target("select_pairs", uid("pairs")), JUDGED, EXPLORE)
    }
    assert len(copies) == 3


def test_a_decision_stays_and_can_be_made_again(store: Store) -> None:
    for name in ("a", "b"):
        ledger.add_policy(store, policy(name), "model")
    ledger.decide(store, "promote", policy("b"), policy("b"), "better", "gate", stage_key=uid("decide"))
    receipt(store, "decide", "decide")
    [gone], _ = invalidating.invalidate(store, [Target("decide", uid("decide"))])
    assert gone.rows == {"receipts": 1, "decisions": 1}
    assert ledger.decision(store, uid("decide")) is None
    assert ledger.champion(store) == policy("b")
    ledger.decide(store, "keep", policy("b"), policy("a"), "worse", "gate", stage_key=uid("decide"))
    assert ledger.champion(store) == policy("a")
    assert len(store.query("FROM decisions")) == 2


def trained(store: Store, name: str = "models/run-12345678") -> Path:
    folder = write_model(store.path.parent / name)
    made = policy("made").model_copy(update={"folder": str(folder)})
    ledger.add_policy(store, made, "trained", uid("base"), uid("training"))
    receipt(store, "training", "train_policy")
    return folder


def test_a_trained_policy_stays_in_a_folder_that_makes_room(store: Store) -> None:
    folder = trained(store)
    [gone], _ = invalidating.invalidate(store, [Target("train_policy", uid("training"))])
    aside = folder.with_name("run-12345678.invalidated-1")
    assert gone.folders == {folder: aside}
    assert not folder.exists()
    assert ledger.policy(store, uid("made")).folder == str(aside)
    assert aside.is_dir()
    assert ledger.made_policy(store, uid("training")) is None
    again = write_model(folder)
    made = policy("another").model_copy(update={"folder": str(again)})
    ledger.add_policy(store, made, "trained", uid("base"), uid("training"))
    receipt(store, "training", "train_policy")
    [gone], _ = invalidating.invalidate(store, [Target("train_policy", uid("training"))])
    assert gone.folders == {folder: folder.with_name("run-12345678.invalidated-2")}


def test_a_kill_before_the_folder_was_moved_is_made_good(store: Store) -> None:
    folder, target = trained(store), Target("train_policy", uid("training"))
    [gone], _ = invalidating.invalidate(store, [target])
    gone.folders[folder].rename(folder)  # as a kill right after the commit leaves it
    invalidating.invalidate(store, [target])
    assert gone.folders[folder].is_dir()
    assert not folder.exists()


def test_a_model_folder_elsewhere_is_not_touched(store: Store, tmp_path: Path) -> None:
    folder = trained(store, "elsewhere/run-12345678")
    [gone], _ = invalidating.invalidate(store, [Target("train_policy", uid("training"))])
    assert gone.folders == {}
    assert folder.is_dir()
    assert ledger.policy(store, uid("made")).folder == str(folder)


def test_an_evaluation_takes_the_held_out_answers_and_every_evaluation_of_them(store: Store) -> None:
    held_out = store.held_out()
    rows.add_prompts(held_out, [prompt("h")])
    members(held_out, "exam", ["h"])
    respond(held_out, "h", [completion("answer")])
    judge(held_out, judgement("answer", 1, 1))
    for name in ("first", "second"):
        members(held_out, name, ["answer"])
        receipt(store, name, "evaluate")
        with store.connect() as connection:
            connection.execute("INSERT INTO evaluation_aspects VALUES (?, 'answer', 0, 1, 1, 1, 1)", [uid(name)])
    [gone], _ = invalidating.invalidate(store, [Target("evaluate", uid("first"), GEN, uid("exam"))])
    assert gone.rows == {
        "held_out.responses": 1,
        "held_out.judgements": 1,
        "held_out.ratings": 2,
        "held_out.members": 2,
        "evaluation_aspects": 2,
        "receipts": 2,
    }
    assert store.query("FROM held_out.prompts") != []


def test_sampled_prompts_stay_prompts(store: Store) -> None:
    rows.add_prompts(store, [prompt("p")])
    members(store, "sample", ["p"])
    members(store.held_out(), content_id("held_out", "x"), [])
    receipt(store, "sample", "sample_prompts")
    [gone], _ = invalidating.invalidate(store, [Target("sample_prompts", uid("sample"))])
    assert gone.rows == {"members": 1, "receipts": 1}
    assert len(store.query("FROM prompts")) == 1
