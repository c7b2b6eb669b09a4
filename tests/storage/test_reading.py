from __future__ import annotations

import pytest

from rlrf.errors import StoreError
from rlrf.handles import Handle
from storage import ledger, planning, reading, rows
from storage.ledger import Counts
from storage.store import Store
from tests.storage.builders import (
    RUN,
    completion,
    failure,
    judge,
    judgement,
    policy,
    prompt,
    respond,
    uid,
)
from tests.storage.test_rows import external


def test_a_prompt_is_found_by_the_start_of_its_id_or_part_of_its_text(store: Store) -> None:
    rows.add_prompts(
        store, [prompt("a", text='Say "two"\nthen stop'), prompt("b", text="What is 3 % 2?", reference=None)]
    )
    for what in (uid("a"), uid("a")[:9], uid("a")[:9].upper(), '"two"', 'two"\nthen', 'Say "two"\nthen stop'):
        found = reading.find_prompt(store, what)
        assert found["prompt_id"] == uid("a")
        assert found["messages"] == [{"role": "user", "content": 'Say "two"\nthen stop'}]
    assert reading.find_prompt(store, "3 % 2")["reference"] is None


@pytest.mark.parametrize("what", ["role", "user", "content", "_wo", "%", "nothing like it"])
def test_neither_json_nor_wildcards_match(store: Store, what: str) -> None:
    rows.add_prompts(store, [prompt("a", text="one two")])
    with pytest.raises(StoreError, match="of 0 prompts \\(none\\); be exact"):
        reading.find_prompt(store, what)


def test_several_matches_are_named(store: Store) -> None:
    rows.add_prompts(store, [prompt(name) for name in "ab"])
    with pytest.raises(StoreError, match=f"'question'.*of 2 prompts .*{max(uid('a'), uid('b'))}"):
        reading.find_prompt(store, "question")
    rows.add_prompts(store, [prompt(name) for name in "cdefgh"])
    with pytest.raises(StoreError, match="of more than 5 prompts"):
        reading.find_prompt(store, "question")


def test_a_held_out_prompt_is_not_shown(store: Store) -> None:
    rows.add_prompts(store.held_out(), [prompt("a")])
    with pytest.raises(StoreError, match="of 0 prompts"):
        reading.find_prompt(store, uid("a"))


def test_responses_come_with_their_ratings_and_refinements_below_their_parents(store: Store) -> None:
    rows.add_prompts(store, [prompt("p")])
    ledger.add_policy(store, policy("base"), "model")
    respond(store, "p", [completion("x"), completion("y")])
    respond(store, "p", [completion("x better")], parent="x")
    judge(store, judgement("x", 1, 0, critique="half"), judgement("y", reason="no reply"))
    with store.connect() as connection:
        connection.execute("INSERT INTO pairs VALUES (?, ?, 0, ?, ?)", [uid("s"), uid("p"), uid("x"), uid("y")])
    found = reading.responses_to(store, uid("p"))
    names = [row["response_id"] for row in found]
    assert names.index(uid("x better")) == names.index(uid("x")) + 1
    by_id = {row["response_id"]: row for row in found}
    assert by_id[uid("x")]["ratings"] == [
        {"aspect": "answer", "rating": 1, "critique": "half"},
        {"aspect": "steps", "rating": 0, "critique": "half"},
    ]
    assert (by_id[uid("x")]["chosen"], by_id[uid("x")]["rejected"], by_id[uid("x")]["policy"]) == (1, 0, "base")
    assert (by_id[uid("y")]["reason"], by_id[uid("y")]["ratings"], by_id[uid("y")]["rejected"]) == ("no reply", None, 1)
    assert by_id[uid("x better")]["score"] is None


def test_pair_sets_are_found_by_the_start_of_their_key_or_the_newest(store: Store) -> None:
    with pytest.raises(StoreError, match="no pair set yet.*rlrf status"):
        reading.pair_set(store, None)
    for name in ("old", "new"):
        handle = Handle(stage="select_pairs", key=uid(name), rows=1, digest=uid("d"))
        ledger.write_receipt(store, handle, Counts(), 1.0, RUN)
    assert reading.pair_set(store, None) == uid("new")
    assert reading.pair_set(store, uid("old")[:7]) == uid("old")
    with pytest.raises(StoreError, match="no pair set 'zz'"):
        reading.pair_set(store, "zz")


def test_what_one_run_produced(store: Store) -> None:
    held_out = store.held_out()
    rows.add_prompts(store, [prompt("p")])
    rows.add_prompts(held_out, [prompt("q")])
    respond(store, "p", [completion("x", tokens=5), completion("y", tokens=6), failure("z")])
    respond(held_out, "q", [completion("answer", tokens=7)])
    rows.add_external(store, [external("p")])
    judge(store, judgement("x", 1, 1))
    judge(held_out, judgement("answer", reason="no reply"))
    for stage in ("train_policy", "explore"):
        ledger.write_receipt(store, Handle(stage=stage, key=uid(stage), rows=1, digest=uid("d")), Counts(), 1.0, RUN)
    assert reading.produced(store, RUN) == {"responses": 3, "tokens": 18, "judgements": 2, "trainings": 1}
    assert set(reading.produced(store, uid("another run")).values()) == {0}
    counts = reading.counts(store)
    assert (counts["responses"], counts["failures"], counts["held_out.responses"], counts["prompts"]) == (3, 1, 1, 1)


def test_a_plan_asks_how_long_responses_are(store: Store) -> None:
    assert planning.mean_tokens(store) is None
    rows.add_prompts(store, [prompt("p")])
    respond(store, "p", [completion("x", tokens=10), completion("y", tokens=20)])
    rows.add_external(store, [external("p")])
    assert planning.mean_tokens(store) == 15.0
