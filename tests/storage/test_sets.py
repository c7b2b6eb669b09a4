from __future__ import annotations

from pathlib import Path

import pytest

from storage import rows, sets
from storage.store import Store, open_store
from tests.storage.builders import JUDGE, completion, judge, judgement, members, prompt, respond, uid

KINDS = ("prompts", "responses", "judgements", "pairs")


def digest_of_one(store: Store, **changed: str | int) -> dict[str, str]:
    """Digests of a prompt, a response and its judgement, with one thing changed."""
    value = {"reference": "4", "text": "2 + 2 = 4", "critique": "right", "rating": 1, "finish": "stop"} | changed
    rows.add_prompts(store, [prompt("p", str(value["reference"]))])
    respond(store, "p", [completion("x", str(value["text"]), str(value["finish"]))])
    judge(store, judgement("x", int(str(value["rating"])), 0, critique=str(value["critique"])))
    responses = members(store, "responses", ["x"])
    return {
        "prompts": sets.digest(store, "prompts", members(store, "prompts", ["p"])),
        "responses": sets.digest(store, "responses", responses),
        "judgements": sets.digest(store, "judgements", responses, JUDGE),
    }


@pytest.mark.parametrize(
    ("changed", "moves"),
    [
        ({}, set()),
        ({"reference": "5"}, {"prompts", "responses"}),
        ({"text": "2 + 2 = 5"}, {"responses"}),
        ({"finish": "length"}, {"responses"}),
        ({"critique": "wrong"}, {"judgements"}),
        ({"rating": -1}, {"judgements"}),
    ],
    ids=lambda given: str(given) if isinstance(given, dict) else "",
)
def test_digests_see_what_a_later_stage_reads(tmp_path: Path, changed: dict[str, str | int], moves: set[str]) -> None:
    one = digest_of_one(open_store(tmp_path / "one.duckdb"))
    other = digest_of_one(open_store(tmp_path / "other.duckdb"), **changed)
    assert {kind for kind in one if one[kind] != other[kind]} == moves


def test_an_unrated_reason_is_part_of_the_digest(store: Store) -> None:
    rows.add_prompts(store, [prompt("p")])
    respond(store, "p", [completion("x")])
    key, digests = members(store, "set", ["x"]), set()
    for number, reason in enumerate([None, "no reply", "truncated"]):
        judge(store, judgement("x", reason=reason), judge_key=uid(f"judge {number}"))
        digests.add(sets.digest(store, "judgements", key, uid(f"judge {number}")))
    assert len(digests) == 3


def test_where_one_value_ends_and_the_next_begins_matters(tmp_path: Path) -> None:
    found = set()
    for number, (reference, text) in enumerate(
        [("1", "2 apples"), ("12", " apples"), ("", "12 apples"), (None, "12 apples")]
    ):
        store = open_store(tmp_path / f"{number}.duckdb")
        rows.add_prompts(store, [prompt("p", reference)])
        respond(store, "p", [completion("x", text)])
        found.add(sets.digest(store, "responses", members(store, "set", ["x"])))
    assert len(found) == 4


def test_no_reference_is_not_an_empty_one(tmp_path: Path) -> None:
    found = set()
    for number, reference in enumerate([None, ""]):
        store = open_store(tmp_path / f"{number}.duckdb")
        rows.add_prompts(store, [prompt("p", reference)])
        found.add(sets.digest(store, "prompts", members(store, "set", ["p"])))
    assert len(found) == 2


def filled(store: Store, order: list[int]) -> dict[str, str]:
    """Digests of prompts with a response and a judgement each, inserted in this order."""
    for at in order:
        rows.add_prompts(store, [prompt(f"p{at}")])
        respond(store, f"p{at}", [completion(f"x{at}")])
        judge(store, judgement(f"x{at}", at % 3 - 1, 1))
        members(store, "prompts", [f"p{at}"])
        members(store, "responses", [f"x{at}"])
        with store.connect() as connection:
            connection.execute("INSERT INTO pairs VALUES (?, ?, 0, ?, ?)", _pair(at))
    keys = {
        "prompts": uid("prompts"),
        "responses": uid("responses"),
        "judgements": uid("responses"),
        "pairs": uid("pairs"),
    }
    return {kind: sets.digest(store, kind, keys[kind], JUDGE if kind == "judgements" else None) for kind in KINDS}


def _pair(at: int) -> list[str]:
    return [uid("pairs"), uid(f"p{at}"), uid(f"x{at}"), uid(f"y{at}")]


def test_digests_are_free_of_order(tmp_path: Path) -> None:
    one, other = (open_store(tmp_path / f"{name}.duckdb") for name in ("one", "other"))
    assert filled(one, [0, 1, 2, 3]) == filled(other, [2, 0, 3, 1])


def test_each_row_counts(store: Store) -> None:
    rows.add_prompts(store, [prompt("a"), prompt("b")])
    keys = [members(store, name, name) for name in ("a", "b", "ab")]
    empty = sets.digest(store, "prompts", uid("nobody"))
    assert empty == "00000000-0000-0000-0000-000000000000"
    assert len({empty, *(sets.digest(store, "prompts", key) for key in keys)}) == 4


def test_copied_members_are_the_same_set_and_may_be_copied_again(store: Store) -> None:
    key = members(store, "one", "abc")
    for _ in range(2):
        sets.copy_members(store, key, uid("two"))
    assert sets.members(store, uid("two")) == sets.members(store, key) == sorted(map(uid, "abc"))


def test_prompts_behind_are_each_named_once(store: Store) -> None:
    rows.add_prompts(store, [prompt("p"), prompt("q"), prompt("r")])
    for name, answers in (("p", "abc"), ("q", "d"), ("r", "e")):
        respond(store, name, [completion(one) for one in answers])
    assert sets.prompts_behind(store, members(store, "set", "abd")) == sorted([uid("p"), uid("q")])
