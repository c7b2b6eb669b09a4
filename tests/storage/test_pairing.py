"""The rules of pairs against plain statements of them, and what must hold of every pair."""

from __future__ import annotations

import random
from collections import Counter
from typing import get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rlrf.errors import StoreError
from rlrf.pair_config import Pairs as Rule
from rlrf.pair_config import Rule as RuleName
from storage.store import Store, open_store
from tests.storage.builders import completion, judge, judgement, members, respond, uid
from tests.storage.pair_cases import (
    REWARD,
    Answer,
    Drawn,
    Pairs,
    Prompts,
    Sets,
    drawn_prompts,
    many,
    named,
    select,
    write,
)
from tests.storage.plain_rules import ORDERED, expected

RULES = get_args(RuleName)
PAPER = Rule(k=3)
rules = st.builds(Rule, type=st.sampled_from(RULES), k=st.integers(1, 4)) | st.builds(
    Rule, type=st.just("margin"), k=st.integers(1, 4), margin=st.sampled_from([0.1, 0.4, 1.2])
)


@pytest.fixture(scope="module")
def stores(tmp_path_factory: pytest.TempPathFactory) -> tuple[Store, Store]:
    folder = tmp_path_factory.mktemp("pairing")
    return open_store(folder / "one.duckdb"), open_store(folder / "other.duckdb")


@settings(max_examples=5)
@given(
    drawn=drawn_prompts,
    k=st.integers(1, 4),
    margin=st.sampled_from([None, 0.1, 0.4, 1.2]),
    seed=st.integers(0, 99),
    reward=st.sampled_from([None, REWARD]),
)
def test_pairs_are_those_of_the_rule(
    stores: tuple[Store, Store], drawn: Drawn, k: int, margin: float | None, seed: int, reward: str | None
) -> None:
    tag, prompts = named(drawn)
    keys = write(stores[0], tag, prompts)
    for name in RULES:
        rule = Rule(type=name, k=k, margin=margin if name == "margin" else None)
        assert_as_said(stores[0], tag, prompts, keys, rule, seed, reward)


def test_pairs_are_those_of_the_rule_for_many_prompts(store: Store) -> None:
    tag, prompts = named(many(seed=0, prompts=300))
    keys = write(store, tag, prompts)
    for name in RULES:
        for reward in (None, REWARD):
            assert_as_said(store, tag, prompts, keys, Rule(type=name, k=3), 7, reward)


def assert_as_said(
    store: Store, tag: str, prompts: Prompts, keys: Sets, rule: Rule, seed: int, reward: str | None
) -> None:
    """The rule's pairs are those of its plain statement, and lawful."""
    pairs, unpaired = select(store, f"{tag} {rule.type} {reward}", keys, rule, seed, reward)
    assert (pairs, unpaired) == expected(prompts, rule, seed, reward is not None), (rule, reward)
    assert_lawful(prompts, pairs, unpaired, rule, rewarded=reward is not None)


def assert_lawful(prompts: Prompts, pairs: Pairs, unpaired: dict[str, str], rule: Rule, rewarded: bool) -> None:
    """What must hold of pairs whatever the order of a draw."""
    assert pairs.keys() | unpaired.keys() == {uid(name) for name in prompts}
    assert not pairs.keys() & unpaired.keys()
    for name, several in prompts.items():
        by_id = {uid(one.name): one for one in several}
        found = [(by_id[chosen], by_id[rejected]) for chosen, rejected in pairs.get(uid(name), [])]
        assert len(set(found)) == len(found) <= rule.k
        for chosen, rejected in found:
            assert chosen.usable
            assert rejected.usable
            assert chosen.text != rejected.text
            assert chosen.score > rejected.score or (rule.type == "best_worst" and rewarded)
            if rule.type in ORDERED:
                assert (chosen.positive, rejected.positive) == (True, False)
            if rule.type == "own_parent":
                assert chosen.parent == rejected.name
        if rule.type in ("paper", "best_worst", "margin", "length_controlled"):
            used = [one.text for pair in found for one in pair]
            assert len(set(used)) == len(used)


@settings(max_examples=4)
@given(
    drawn=drawn_prompts, rule=rules, reward=st.sampled_from([None, REWARD]), seed=st.integers(0, 99), order=st.randoms()
)
def test_order_of_rows_and_repetition_change_nothing(
    stores: tuple[Store, Store], drawn: Drawn, rule: Rule, reward: str | None, seed: int, order: random.Random
) -> None:
    tag, prompts = named(drawn)
    names = [one.name for several in prompts.values() for one in several]
    order.shuffle(names)
    first = select(stores[0], tag, write(stores[0], tag, prompts), rule, seed, reward)
    backwards = write(stores[1], tag, dict(reversed(prompts.items())), names)
    assert select(stores[1], tag, backwards, rule, seed, reward) == first
    keys = write(stores[0], tag, prompts)  # once more: nothing is new
    assert select(stores[0], tag, keys, rule, seed, reward) == first
    assert select(stores[0], f"{tag} again", (keys[0], keys[1][::-1] * 2), rule, seed, reward) == first


@settings(max_examples=4)
@given(drawn=drawn_prompts, more=drawn_prompts, rule=rules, reward=st.sampled_from([None, REWARD]))
def test_what_is_no_candidate_changes_nothing(
    stores: tuple[Store, Store], drawn: Drawn, more: Drawn, rule: Rule, reward: str | None
) -> None:
    tag, prompts = named(drawn)
    keys = write(stores[0], tag, prompts)
    first = select(stores[0], tag, keys, rule, 0, reward)
    other, others = named(more)
    other_keys = write(stores[0], other, others)
    mute = {
        name: [
            Answer(f"{name} {at}", f"useless {at}", levels, finish, reward=9.0)
            for at, (levels, finish) in enumerate([(None, "stop"), ((1, 1), "length"), ((-1, -1), "length")])
        ]
        for name in prompts
    }
    _, mute_sets = write(stores[0], f"{tag} mute", mute)
    wider = (keys[0], [*keys[1], *other_keys[1], *mute_sets])
    assert select(stores[0], f"{tag} wider", wider, rule, 0, reward) == first


def test_a_pair_set_is_written_once(store: Store) -> None:
    pair = [Answer("draft", "wrong", (0, 0)), Answer("better", "right", parent="draft")]
    keys = write(store, "set", {"p": pair, "q": []})
    first = ({uid("p"): [(uid("better"), uid("draft"))]}, {uid("q"): "nothing_rated"})
    for name in RULES:
        assert select(store, name, keys, Rule(type=name), 0) == first, name
    write(store, "set", {"q": [Answer("q draft", "wrong", (0, 0)), Answer("q better", "right", parent="q draft")]})
    for name in RULES:
        assert select(store, name, keys, Rule(type=name, k=4), 1) == first, name
        assert len(select(store, f"{name} of all", keys, Rule(type=name), 0)[0]) == 2, name


def test_other_seeds_draw_other_responses(store: Store) -> None:
    levels = [(1, 1), *[(0, 1)] * 4]
    prompts = {p: [Answer(f"{p} {at}", f"{at}", levels[at]) for at in range(5)] for p in "abcdefghijkl"}
    keys = write(store, "seeds", prompts)
    for name in ("paper", "best_worst", "nearest", "length_controlled"):
        one, other = (select(store, f"{name} {seed}", keys, Rule(type=name), seed)[0] for seed in (0, 1))
        assert one != other, name
        assert one.keys() == other.keys() == {uid(p) for p in prompts}
        drawn = Counter(min(at for at in range(5) if uid(f"{p} {at}") == one[uid(p)][0][1]) for p in prompts)
        assert len(drawn) >= 3, name


def test_another_judge_has_no_say(store: Store) -> None:
    prompts = {"p": [Answer("good", "good"), Answer("bad", "bad", (0, 0)), Answer("unjudged", "other", None)]}
    keys = write(store, "set", prompts)
    respond(store, "p", [completion("outside")])
    judge(store, judgement("outside", -1, -1))
    judge(store, judgement("good", -1, -1), judgement("bad", 1, 1), judge_key=uid("another judge"))
    judge(store, judgement("unjudged", 1, 1), judge_key=uid("another judge"))
    for name in ("paper", "best_worst", "margin", "dominance"):
        found = select(store, name, keys, Rule(type=name, k=3), 0)
        assert found == ({uid("p"): [(uid("good"), uid("bad"))]}, {}), name


def test_a_text_that_is_both_explored_and_refined_counts_once_as_explored(store: Store) -> None:
    prompts = {
        "p": [
            Answer("draft", "wrong", (0, 0)),
            Answer("explored", "right"),
            *(Answer(f"refined {at}", "right", parent="draft") for at in range(5)),
        ]
    }
    keys = write(store, "set", prompts)
    assert select(store, "pairs", keys, PAPER, 0)[0] == {uid("p"): [(uid("explored"), uid("draft"))]}
    own = select(store, "own", keys, Rule(type="own_parent", k=9), 0)[0][uid("p")]
    assert own == [(min(uid(f"refined {at}") for at in range(5)), uid("draft"))]


def test_a_margin_counts_as_kept_whatever_the_sums_round_to(store: Store) -> None:
    prompts = {"p": [Answer("good", "good", (1, 1, -1)), Answer("bad", "bad", (0, 0, -1))]}
    keys = write(store, "set", prompts)
    difference = prompts["p"][0].score - prompts["p"][1].score
    for at, (margin, paired) in enumerate([(0.8, True), (0.800001, False)]):
        pairs, _ = select(store, f"margin {at}", keys, Rule(type="margin", margin=margin), 0)
        assert bool(pairs) is paired, difference


def test_without_a_reward_nothing_is_best_or_worst(store: Store) -> None:
    prompts = {
        "none": [Answer("n good", "good"), Answer("n bad", "bad", (0, 0))],
        "some": [Answer("s good", "good", reward=-1.0), Answer("s bad", "bad", (0, 0), reward=2.0), Answer("s", "s")],
    }
    pairs, unpaired = select(store, "pairs", write(store, "set", prompts), Rule(type="best_worst"), 0, REWARD)
    assert pairs == {uid("some"): [(uid("s bad"), uid("s good"))]}
    assert unpaired == {uid("none"): "no_reward"}


def test_held_out_responses_enter_no_pair(store: Store) -> None:
    prompts = {"h": [Answer("draft", "wrong", (0, 0)), Answer("better", "right", parent="draft")]}
    held_out = write(store.held_out(), "set", prompts)
    for at, name in enumerate(["draft", "better"]):  # as if the sets of the learning side named them
        assert members(store, "set refined" if at else "set explored", [name]) in held_out[1]
    assert members(store, "set prompts", "h") == held_out[0]
    for name in RULES:
        assert select(store, name, held_out, Rule(type=name), 0) == ({}, {uid("h"): "nothing_rated"})
    with pytest.raises(StoreError, match="evaluation alone"):
        select(store.held_out(), "pairs", held_out, PAPER, 0)
    assert store.value("SELECT count(*) FROM pairs") == 0
