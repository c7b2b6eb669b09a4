from __future__ import annotations

import json
from dataclasses import replace

import pytest

from rlrf.records import Case, Choice, Prompt, Rating
from storage import judgements, promising, rows
from storage.store import Store
from tests.storage.builders import (
    JUDGE,
    RUN,
    completion,
    failure,
    judge,
    judgement,
    members,
    prompt,
    respond,
    uid,
)

HOSTILE = "'; DROP TABLE responses; -- \x00 \u2028 \U0001f9ea <|im_end|> \" \\ {feedback} $set"


def everything(store: Store) -> dict[str, list[dict[str, object]]]:
    tables = ("prompts", "responses", "failures", "judgements", "ratings", "members")
    return {name: store.query(f"SELECT * FROM {name} ORDER BY ALL") for name in tables}


def test_prompts_come_back_as_they_were(store: Store) -> None:
    given = [prompt("a"), replace(prompt("b", reference=None, text=HOSTILE), metadata={"deep": [1, {"x": None}]})]
    assert rows.add_prompts(store, given) == 2
    key = members(store, "both", "ab")
    assert rows.prompts_of(store, key) == sorted(given, key=lambda one: one.prompt_id)


def test_every_insert_may_be_repeated(store: Store) -> None:
    def write() -> list[int]:
        members(store, "set", "xyz")
        return [
            rows.add_prompts(store, [prompt("p")]),
            respond(store, "p", [completion("x"), completion("y"), failure("z")]),
            judge(store, judgement("x", 1, 0), judgement("y", reason="truncated")),
        ]

    assert write() == [1, 2, 2]
    first = everything(store)
    assert {name: len(found) for name, found in first.items()} == {
        "prompts": 1,
        "responses": 2,
        "failures": 1,
        "judgements": 2,
        "ratings": 2,
        "members": 3,
    }
    assert write() == [0, 0, 0]
    assert everything(store) == first


def test_a_batch_that_is_partly_there_adds_the_rest_and_keeps_the_first_text(store: Store) -> None:
    rows.add_prompts(store, [prompt("p")])
    respond(store, "p", [completion("x", "first")])
    assert respond(store, "p", [completion("x", "second"), completion("y")]) == 1
    assert store.value("SELECT text FROM responses WHERE response_id = ?", [uid("x")]) == "first"


def test_a_request_that_failed_may_succeed_later(store: Store) -> None:
    rows.add_prompts(store, [prompt("p")])
    respond(store, "p", [failure("x")])
    assert rows.existing(store, [uid("x")]) == set()
    respond(store, "p", [completion("x")])
    assert rows.existing(store, [uid("x"), uid("x"), uid("unknown")]) == {uid("x")}
    assert rows.existing(store, []) == set()
    assert store.query("SELECT reason, detail FROM failures") == [{"reason": "timeout", "detail": "no reply in 120 s"}]


def test_hostile_text_is_stored_as_it_is(store: Store) -> None:
    rows.add_prompts(store, [prompt("p")])
    respond(store, "p", [completion("x", HOSTILE)])
    judge(store, judgement("x", 1, 1, critique=HOSTILE))
    found = store.query("SELECT r.text, t.critique FROM responses r JOIN ratings t USING (response_id)")
    assert found == [{"text": HOSTILE, "critique": HOSTILE}] * 2


def test_an_unrated_judgement_keeps_its_reason_and_raw_reply_and_has_no_score(store: Store) -> None:
    rows.add_prompts(store, [prompt("p")])
    respond(store, "p", [completion("x"), completion("y")])
    judge(store, judgement("x", 1, None, reason="no rating for 'steps'"), judgement("y", 1, 0))
    found = store.query("SELECT score, reason, raw_reply FROM judgements ORDER BY reason NULLS LAST")
    assert found == [
        {"score": None, "reason": "no rating for 'steps'", "raw_reply": "raw words"},
        {"score": 0.5, "reason": None, "raw_reply": None},
    ]
    assert store.value("SELECT count(*) FROM ratings WHERE rating IS NULL") == 1


def test_unjudged_are_the_members_that_this_judge_has_not_seen(store: Store) -> None:
    rows.add_prompts(store, [prompt("p", reference="42")])
    respond(store, "p", [completion("x"), completion("y", finish="length"), completion("z"), completion("outside")])
    key = members(store, "set", "xyz")
    judge(store, judgement("x", 1, 1), judgement("z", reason="no reply"))
    judge(store, judgement("y", 1, 1), judge_key=uid("another judge"))
    message = {"role": "user", "content": "question p?"}
    assert judgements.unjudged(store, key, JUDGE) == [
        Case(uid("y"), (message,), "42", "text of y", "length", {"n": 1}, uid("p"))
    ]


def test_a_refinement_is_rated_on_its_parents_aspects_and_a_response_on_those_chosen_for_its_prompt(
    store: Store,
) -> None:
    rows.add_prompts(store, [prompt("p"), prompt("q")])
    respond(store, "p", [completion("x")])
    respond(store, "p", [completion("x refined")], parent="x")
    respond(store, "q", [completion("z")])
    judge(store, judgement("x", 1, 0))
    judgements.add_choices(store, uid("chooser"), [Choice(uid("p"), ("depth",)), Choice(uid("q"), ("clarity",))], RUN)
    key = members(store, "set", ["x refined", "z"])
    found = {one.response_id: one.aspects for one in judgements.unjudged(store, key, JUDGE, uid("chooser"))}
    assert found == {uid("x refined"): ("answer", "steps"), uid("z"): ("clarity",)}


def test_a_prompt_gets_its_aspects_once(store: Store) -> None:
    rows.add_prompts(store, [prompt("p"), prompt("q")])
    respond(store, "p", [completion("x")])
    respond(store, "q", [completion("y")])
    key = members(store, "set", "xy")
    choice = Choice(uid("p"), (), reason="no_json", raw_reply="none of them")
    assert judgements.add_choices(store, uid("chooser"), [choice], RUN) == 1
    assert [one.prompt_id for one in judgements.unchosen(store, key, uid("chooser"))] == [uid("q")]
    assert judgements.add_choices(store, uid("chooser"), [Choice(uid("p"), ("depth",))], RUN) == 0


def test_a_changed_reference_drops_the_judgements_of_that_prompt_alone(store: Store) -> None:
    rows.add_prompts(store, [prompt("p", "4"), prompt("q", "4"), prompt("r", None)])
    for name in "pqr":
        respond(store, name, [completion(f"{name} answer")])
        judge(store, judgement(f"{name} answer", 1, 1))
    given = [prompt("p", "5"), prompt("q", "4"), prompt("r", None)]
    assert rows.add_prompts(store, given) == 0
    left = {row["response_id"] for row in store.query("SELECT response_id FROM judgements")}
    assert left == {uid("q answer"), uid("r answer")}
    assert left == {row["response_id"] for row in store.query("SELECT response_id FROM ratings")}
    key = members(store, "all", "pqr")
    assert {one.prompt_id: one.reference for one in rows.prompts_of(store, key)} == {
        uid("p"): "5",
        uid("q"): "4",
        uid("r"): None,
    }
    assert store.value("SELECT count(*) FROM responses") == 3
    assert judge(store, judgement("p answer", 0, 0)) == 1


@pytest.mark.parametrize(("before", "after"), [(None, "4"), ("4", None), ("", None)])
def test_gaining_and_losing_a_reference_are_changes(store: Store, before: str | None, after: str | None) -> None:
    rows.add_prompts(store, [prompt("p", before)])
    respond(store, "p", [completion("x")])
    judge(store, judgement("x", 1, 1))
    rows.add_prompts(store, [prompt("p", after)])
    assert store.value("SELECT count(*) FROM judgements") == 0
    assert store.query("SELECT reference FROM prompts") == [{"reference": after}]


def test_external_responses_are_responses_without_seed_or_length(store: Store) -> None:
    rows.add_prompts(store, [prompt("p"), prompt("q")])
    given = [external("p"), external("q")]
    assert rows.add_external(store, given) == 2
    assert rows.add_external(store, given) == 0
    every, asked = members(store, "responses", ["by hand p", "by hand q"]), members(store, "prompts", ["q"])
    assert rows.responses_within(store, every, asked) == [uid("by hand q")]


def external(prompt_name: str) -> dict[str, object]:
    return {
        "response_id": uid(f"by hand {prompt_name}"),
        "prompt_id": uid(prompt_name),
        "parent_id": None,
        "gen_key": uid("a person"),
        "policy_id": uid("a person"),
        "position": 0,
        "text": f"an answer to {prompt_name}",
        "finish_reason": "stop",
        "backend": "external",
        "run_id": uid("run"),
    }


def judged_prompt(store: Store) -> str:
    """One prompt with every kind of response; returns the key of the set."""
    rows.add_prompts(store, [prompt("p")])
    names = ["top 1", "top 2", "half", "low", "unrated", "cut", "outside"]
    finish = {"cut": "length"}
    respond(store, "p", [completion(name, finish=finish.get(name, "stop")) for name in names])
    judge(store, judgement("top 1", 1, 1), judgement("top 2", 1, 1), judgement("half", 1, 0, critique="half right"))
    judge(store, judgement("low", -1, 0), judgement("unrated", reason="no reply"), judgement("cut", 1, 1))
    judge(store, judgement("outside", 1, 1))
    judge(store, judgement("low", 1, 1), judge_key=uid("another judge"))
    return members(store, "set", names[:-1])


def test_promising_is_the_best_rated_response_that_ended_by_itself(store: Store) -> None:
    key = judged_prompt(store)
    picked = {promising.promising(store, key, JUDGE, "best", seed)[0]["response_id"] for seed in range(12)}
    assert picked == {uid("top 1"), uid("top 2")}
    one, again = (promising.promising(store, key, JUDGE, "best", 3) for _ in range(2))
    assert one == again


def test_best_imperfect_passes_over_the_top(store: Store) -> None:
    found = promising.promising(store, judged_prompt(store), JUDGE, "best_imperfect", 0)
    assert found == [
        {
            "prompt_id": uid("p"),
            "messages": ({"role": "user", "content": "question p?"},),
            "reference": "4",
            "response_id": uid("half"),
            "text": "text of half",
            "ratings": (Rating("answer", 1, "half right"), Rating("steps", 0, "half right")),
        }
    ]


def test_a_prompt_without_a_rated_response_has_no_promising_one(store: Store) -> None:
    rows.add_prompts(store, [prompt("p"), prompt("q")])
    respond(store, "p", [completion("x", finish="length")])
    respond(store, "q", [completion("y")])
    judge(store, judgement("x", 1, 1), judgement("y", reason="no reply"))
    assert promising.promising(store, members(store, "set", "xy"), JUDGE, "best", 0) == []


def test_messages_are_kept_as_json_that_people_can_query(store: Store) -> None:
    chat = Prompt(uid("p"), "s", ({"role": "system", "content": "be brief"}, {"role": "user", "content": "hi"}))
    rows.add_prompts(store, [chat])
    assert store.value("SELECT messages->1->>'content' FROM prompts") == "hi"
    assert json.loads(store.value("SELECT messages FROM prompts")) == list(chat.messages)
