"""The audit of a pair set: every measure on a store in which each number is known."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import pytest

from rlrf.auditing import SHOWN, Measure
from rlrf.handles import Handle
from rlrf.pair_config import Audit
from rlrf.records import Completion, Prompt
from storage import audits, ledger, rows, sets
from storage.auditing import audit, check_digest
from storage.store import Store, insert
from tests.storage.builders import JUDGE, completion, judge, judgement, members, prompt, respond, uid

STAGE, PAIRS, NO_LIMITS = (
    uid("audit"),
    uid("pairs"),
    Audit(equal_texts=1, ties=None, length_ratio=None, near_duplicate_prompts=None, evaluation_overlap=None),
)
SHARED = "a train leaves the town at seven in the morning and drives north for two hours"


def add_pairs(store: Store, pairs: Sequence[tuple[str, str, str]], pair_set: str = PAIRS) -> None:
    """Rows of prompt, chosen and rejected."""
    found = [
        {"pair_set": pair_set, "prompt_id": uid(asked), "position": 0, "chosen_id": uid(a), "rejected_id": uid(b)}
        for asked, a, b in pairs
    ]
    with store.connect() as connection:
        insert(connection, "pairs", found)


def add_check(store: Store, data: str, at: str = "2026-01-01", **confusions: dict[str, dict[str, int]]) -> None:
    """A check of the judge, a row per aspect."""
    found: list[dict[str, Any]] = [
        {
            "judge_key": JUDGE,
            "data": uid(data),
            "aspect": aspect,
            "n": 1,
            "unrated": 0,
            "confusion": json.dumps(confusion),
            "created_at": at,
        }
        for aspect, confusion in confusions.items()
    ]
    with store.connect() as connection:
        insert(connection, "judge_checks", found)


def looked_at(store: Store, settings: Audit = NO_LIMITS, stage_key: str = STAGE, seed: int = 0) -> dict[str, Measure]:
    """The audit of the pairs, by name; what is returned is what is kept."""
    judged = [uid("explored"), uid("refined")]
    measures = audit(
        store,
        stage_key,
        PAIRS,
        judged=judged,
        judge_key=JUDGE,
        held_out=uid("held out"),
        settings=settings,
        seed=seed,
    )
    assert audits.measures_of(store, stage_key) == measures
    return {one.name: one for one in measures}


@pytest.fixture
def pairs(store: Store) -> Store:
    """Four pairs of four prompts from two sources.

    p1: equal texts but for case; p2: equal scores; p3: a long refinement against a short response; p4: as it should be. p1
    and p2 are near-duplicates, p3 shares words with a held-out prompt. A fifth prompt has one response that is unrated and
    one that isn't at the top.
    """
    asked = {"p1": "What is five and six?", "p2": "what is five and SIX", "p3": f"Say: {SHARED} and then stops."}
    prompts = [prompt(name, text=text) for name, text in asked.items()] + [prompt("p5")]
    prompts.append(Prompt(uid("p4"), "elsewhere", ({"role": "user", "content": "Why?"},)))
    rows.add_prompts(store, prompts)
    rows.add_prompts(store.held_out(), [prompt("h1", text=f"{SHARED.upper()}, how far is that?"), prompt("h2")])
    members(store.held_out(), "held out", ["h1", "h2"])
    respond(store, "p1", [completion("a1", "It's \n eleven", tokens=10), completion("b1", "it's ELEVEN ", tokens=10)])
    respond(store, "p2", [completion("a2", tokens=10), completion("b2", tokens=20)])
    respond(store, "p3", [completion("b3", tokens=10)])
    respond(store, "p3", [completion("a3", tokens=70)], parent="b3")
    respond(store, "p4", [completion("a4", tokens=10), completion("b4", tokens=10)])
    respond(store, "p5", [completion("mute"), completion("weak")])
    judge(store, *(judgement(name, 1, 1) for name in ("a1", "a2", "a3", "a4")), judgement("mute", reason="no reply"))
    judge(store, judgement("b1", -1, 1), judgement("b2", 1, 1), judgement("b3", 0, 1), judgement("b4", -1, -1))
    judge(store, judgement("weak", 0, 0))
    members(store, "explored", ["a1", "b1", "a2", "b2", "b3", "a4", "b4", "mute", "weak"])
    members(store, "refined", ["a3"])
    add_pairs(store, [(f"p{at}", f"a{at}", f"b{at}") for at in range(1, 5)])
    return store


def test_every_measure_of_a_known_store(pairs: Store) -> None:
    found = looked_at(pairs)
    assert [(one.name, one.value, one.n) for one in found.values()] == [
        ("equal_texts", 0.25, 4),
        ("ties", 0.25, 4),
        ("length_ratio", 2.0, 4),
        ("near_duplicate_prompts", 0.5, 4),
        ("evaluation_overlap", 0.25, 4),
        ("largest_source", 0.75, 4),
        ("refinements", 0.25, 4),
        ("top_yield", 5 / 9, 9),
        ("unrated", 0.1, 10),
        ("label_noise", None, 0),
        ("inverted_labels", None, 0),
    ]
    assert all(one.passed for one in found.values())
    assert found["equal_texts"].low == pytest.approx(0.0456, abs=1e-3)  # Wilson's of 1 in 4


def test_each_measure_names_the_rows_that_offend(pairs: Store) -> None:
    found = {name: [(one.prompt_id, one.chosen_id) for one in told.offences] for name, told in looked_at(pairs).items()}
    assert found["equal_texts"] == [(uid("p1"), uid("a1"))]
    assert found["ties"] == [(uid("p2"), uid("a2"))]
    assert found["length_ratio"] == [(uid("p3"), uid("a3"))]
    assert {one for one, _ in found["near_duplicate_prompts"]} == {uid("p1"), uid("p2")}
    assert found["evaluation_overlap"] == [(uid("p3"), None)]
    assert found["refinements"] == [(uid("p3"), uid("a3"))]
    assert found["top_yield"] == found["unrated"] == [(uid("p5"), None)]
    assert len(found["largest_source"]) == 2
    worst = looked_at(pairs)["evaluation_overlap"].offences[0].said
    assert uid("h1") in worst
    assert worst.endswith("first: a train leaves the town at seven in the morning and drives north")


def test_limits_fail_what_passes_them_and_nothing_else(pairs: Store) -> None:
    tight = Audit(equal_texts=0, ties=0.25, length_ratio=1.5, near_duplicate_prompts=0.4, evaluation_overlap=0.2)
    assert {name for name, one in looked_at(pairs, tight).items() if not one.passed} == {
        *("equal_texts", "length_ratio", "near_duplicate_prompts", "evaluation_overlap")
    }
    changes = {"largest_source": 0.7, "refinements": 0.2, "top_yield": 0.6, "label_noise": 0.3, "ngram": 14, "ties": 0}
    others = NO_LIMITS.model_copy(update=changes)
    found = looked_at(pairs, others, uid("another audit"))
    assert {name for name, one in found.items() if not one.passed} == {
        *("ties", "largest_source", "refinements", "top_yield", "label_noise")
    }
    assert "rlrf judge check" in found["label_noise"].said
    assert found["evaluation_overlap"].value == 0.25, "the two have 16 words in a row"
    assert looked_at(pairs, Audit(ngram=17), uid("a third"))["evaluation_overlap"].value == 0


def test_length_is_in_characters_where_a_response_came_without_tokens(pairs: Store) -> None:
    assert "tokens" in looked_at(pairs)["length_ratio"].said
    with pairs.connect() as connection:
        connection.execute("UPDATE responses SET completion_tokens = NULL WHERE response_id = ?", [uid("b4")])
    found = looked_at(pairs, stage_key=uid("again"))["length_ratio"]
    assert "characters" in found.said
    lengths = [(13, 12), (10, 10), (10, 10), (10, 10)]
    assert found.value == pytest.approx(sum(a for a, _ in lengths) / sum(b for _, b in lengths))


def test_the_verdicts_of_other_judges_and_other_sets_dont_count(pairs: Store) -> None:
    before = looked_at(pairs)
    judge(pairs, *(judgement(name, 1, 1) for name in ("b1", "b4", "weak")), judge_key=uid("another judge"))
    respond(pairs, "p5", [completion("outside")])
    judge(pairs, judgement("outside", 1, 1))
    assert looked_at(pairs) == before


def test_label_noise_is_that_of_the_judges_latest_check_on_its_worst_aspect(pairs: Store) -> None:
    right = {"true": {"1": 95, "0": 5}, "false": {"1": 5, "-1": 95}}
    wrong = {"true": {"1": 80, "0": 20}, "false": {"1": 20, "-1": 80}}
    add_check(pairs, "old", "2026-01-01", answer=wrong)
    before = check_digest(pairs, JUDGE)
    add_check(
        pairs, "new", "2026-01-02", answer=right, steps={"true": {"1": 90, "0": 10}, "false": {"1": 10, "-1": 90}}
    )
    assert check_digest(pairs, JUDGE) not in {before, None}
    found = looked_at(pairs, Audit(equal_texts=1, label_noise=0.2))
    # p2's rejected response is at the top too, so it is right as often as the chosen one
    noise, inverted = (3 * (1 - 0.9 * 0.9) + (1 - 0.9 * 0.1)) / 4, (3 * 0.1 * 0.1 + 0.1 * 0.9) / 4
    assert found["label_noise"].value == pytest.approx(noise)
    assert found["inverted_labels"].value == pytest.approx(inverted)
    assert not found["label_noise"].passed
    assert found["label_noise"].low < noise < found["label_noise"].high  # type: ignore[operator]
    assert "'steps'" in found["label_noise"].said
    closest = [one.prompt_id for one in found["label_noise"].offences]
    assert closest[0] == uid("p2")
    assert closest[-1] == uid("p4")


def test_a_check_that_cant_be_used_is_not_measured_and_says_why(pairs: Store) -> None:
    add_check(pairs, "letters", answer={"A": {"1": 3}, "B": {"1": 2}})
    found = looked_at(pairs)["label_noise"]
    assert found.value is None
    assert "['A', 'B'] are neither true and false" in found.said
    assert check_digest(pairs, uid("another judge")) is None


def test_no_more_than_ten_rows_are_kept_and_they_are_the_worst(store: Store) -> None:
    names = [f"q{at:02}" for at in range(14)]
    rows.add_prompts(store, [prompt(name) for name in names])
    for at, name in enumerate(names):
        several: list[Completion] = [completion(f"a{name}", tokens=10 + at), completion(f"b{name}", tokens=10)]
        respond(store, name, several)
        judge(store, judgement(f"a{name}", 1, 1), judgement(f"b{name}", 0, 0))
    add_pairs(store, [(name, f"a{name}", f"b{name}") for name in names])
    found = looked_at(store)["length_ratio"].offences
    assert len(found) == SHOWN
    assert [one.chosen_id for one in found] == [uid(f"a{name}") for name in reversed(names[4:])]
    assert found[0].said == "chosen has 23 tokens, rejected 10"


def test_offending_rows_come_with_their_texts(pairs: Store) -> None:
    looked_at(pairs)
    assert audits.offending_rows(pairs, STAGE, "equal_texts") == [
        {
            "place": 0,
            "said": "both sides have the same text",
            "prompt_id": uid("p1"),
            "prompt": "What is five and six?",
            "chosen": "It's \n eleven",
            "rejected": "it's ELEVEN ",
        }
    ]
    assert audits.offending_rows(pairs, STAGE, "unrated")[0]["chosen"] is None


def test_the_audit_of_an_empty_pair_set_measures_nothing(store: Store) -> None:
    found = looked_at(store)
    assert {one.value for one in found.values()} == {None}
    assert not found["equal_texts"].passed
    assert {one.offences for one in found.values()} == {()}


def test_an_audit_is_found_by_its_pairs_and_by_equal_ones(pairs: Store) -> None:
    assert audits.audit_of(pairs, PAIRS) == []
    first = looked_at(pairs, seed=1)
    assert audits.audit_of(pairs, PAIRS) == list(first.values())
    add_pairs(pairs, [(f"p{at}", f"a{at}", f"b{at}") for at in range(1, 5)], uid("equal pairs"))
    digest = sets.digest(pairs, "pairs", PAIRS)
    assert digest == sets.digest(pairs, "pairs", uid("equal pairs"))
    for key in (PAIRS, uid("equal pairs")):
        handle = Handle(stage="select_pairs", key=key, rows=4, digest=digest)
        ledger.write_receipt(pairs, handle, ledger.Counts(0, 4, 0, 0), 0.1, uid("run"))
    assert audits.audit_of(pairs, uid("equal pairs")) == list(first.values())
    assert audits.audit_of(pairs, uid("other pairs")) == []
    later = looked_at(pairs, Audit(equal_texts=0.5), uid("another audit"))
    assert audits.audit_of(pairs, PAIRS) == list(later.values())
