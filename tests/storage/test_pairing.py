"""The pair rule against a plain statement of it."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import count

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from storage import rows
from storage.pairing import select_pairs
from storage.store import Store, open_store
from tests.storage.builders import GEN, JUDGE, RUN, completion, judge, judgement, members, prompt, respond, uid

LEVELS = st.sampled_from([-1, 0, 1])


@dataclass(frozen=True)
class Answer:
    """One response in a test: what it says, how it ended, its ratings (None: unrated), whether it is a refinement."""

    name: str
    text: str
    levels: tuple[int, int] | None = (1, 1)
    finish: str = "stop"
    parent: str | None = None

    @property
    def usable(self) -> bool:
        return self.levels is not None and self.finish == "stop"

    @property
    def positive(self) -> bool:
        return self.levels == (1, 1)


Prompts = dict[str, list[Answer]]
Pairs = dict[str, list[tuple[str, str]]]


def write(store: Store, tag: str, prompts: Prompts, order: Sequence[str] | None = None) -> tuple[str, list[str]]:
    """Store prompts and answers, the answers in this order of names; returns the keys of the sets."""
    rows.add_prompts(store, [prompt(name) for name in prompts])
    answers = {answer.name: (name, answer) for name, several in prompts.items() for answer in several}
    planned = {
        uid(name): {"prompt_id": uid(asked), "parent_id": one.parent and uid(one.parent), "position": 0, "seed": 0}
        for name, (asked, one) in answers.items()
    }
    made = [completion(name, answers[name][1].text, answers[name][1].finish) for name in order or answers]
    common = {"gen_key": GEN, "policy_id": uid("base"), "backend": "test", "run_id": RUN}
    rows.add_results(store, made, planned, common)
    found = [answer for _, answer in answers.values()]
    judge(
        store,
        *(judgement(one.name, *one.levels) if one.levels else judgement(one.name, reason="no reply") for one in found),
    )
    explored = members(store, f"{tag} explored", [one.name for one in found if not one.parent])
    refined = members(store, f"{tag} refined", [one.name for one in found if one.parent])
    return members(store, f"{tag} prompts", prompts), [explored, refined]


def select(store: Store, pair_set: str, keys: tuple[str, list[str]], k: int, seed: int) -> tuple[Pairs, dict[str, str]]:
    """Pairs per prompt, in their order, and the reason for each prompt without one; checked against what is returned."""
    chosen, dropped = select_pairs(
        store, uid(pair_set), prompts=keys[0], responses=keys[1], judge_key=JUDGE, k=k, seed=seed
    )
    pairs: Pairs = {}
    for row in store.query("SELECT * FROM pairs WHERE pair_set = ? ORDER BY prompt_id, position", [uid(pair_set)]):
        pairs.setdefault(row["prompt_id"], []).append((row["chosen_id"], row["rejected_id"]))
    unpaired = store.query("SELECT prompt_id, reason FROM unpaired WHERE pair_set = ?", [uid(pair_set)])
    assert chosen == sum(map(len, pairs.values()))
    assert dropped == Counter(row["reason"] for row in unpaired)
    return pairs, {row["prompt_id"]: row["reason"] for row in unpaired}


def expected(prompts: Prompts, k: int, seed: int) -> tuple[Pairs, dict[str, str]]:
    """The rule in plain words: of equal texts the explored one with the least id; both sides in the order of the draw."""
    pairs: Pairs = {}
    reasons = {}
    for name, answers in prompts.items():
        by_text: dict[str, Answer] = {}
        for one in sorted(
            answers, key=lambda one: (one.parent is not None, one.parent and uid(one.parent), uid(one.name))
        ):
            if one.usable:
                by_text.setdefault(one.text, one)
        drawn = sorted(by_text.values(), key=lambda one: hashlib.md5(f"{seed}:{uid(one.name)}".encode()).hexdigest())
        chosen = [uid(one.name) for one in drawn if one.positive]
        rejected = [uid(one.name) for one in drawn if not one.positive]
        if chosen and rejected:
            pairs[uid(name)] = list(zip(chosen, rejected, strict=False))[:k]
        else:
            reasons[uid(name)] = "no_negative" if chosen else "no_positive" if rejected else "nothing_rated"
    return pairs, reasons


answers = st.builds(
    lambda text, levels, finish, refined: (text, levels, finish, refined),
    st.sampled_from(["a", "b", "c", "d", "A", " a"]),
    st.one_of(st.none(), st.just((1, 1)), st.tuples(LEVELS, LEVELS)),
    st.sampled_from(["stop", "stop", "stop", "length"]),
    st.booleans(),
)
numbers = count()


def named(drawn: list[list[tuple[str, tuple[int, int] | None, str, bool]]]) -> tuple[str, Prompts]:
    """Drawn answers with names that no other example has, so that all examples share one store."""
    tag = f"example {next(numbers)}"
    prompts: Prompts = {}
    for place, several in enumerate(drawn):
        prefix = f"{tag}, prompt {place}"
        prompts[prefix] = [
            Answer(f"{prefix}, {at}", text, levels, finish, f"{prefix}, 0" if refined and at else None)
            for at, (text, levels, finish, refined) in enumerate(several)
        ]
    return tag, prompts


@pytest.fixture(scope="module")
def stores(tmp_path_factory: pytest.TempPathFactory) -> tuple[Store, Store]:
    folder = tmp_path_factory.mktemp("pairing")
    return open_store(folder / "one.duckdb"), open_store(folder / "other.duckdb")


@settings(max_examples=12)
@given(
    drawn=st.lists(st.lists(answers, max_size=6), min_size=1, max_size=8), k=st.integers(1, 3), seed=st.integers(0, 99)
)
def test_pairs_are_those_of_the_rule(
    stores: tuple[Store, Store], drawn: list[list[tuple[str, tuple[int, int] | None, str, bool]]], k: int, seed: int
) -> None:
    tag, prompts = named(drawn)
    keys = write(stores[0], tag, prompts)
    pairs, unpaired = select(stores[0], tag, keys, k, seed)
    assert (pairs, unpaired) == expected(prompts, k, seed)
    assert_lawful(prompts, pairs, unpaired, k)


def assert_lawful(prompts: Prompts, pairs: Pairs, unpaired: dict[str, str], k: int) -> None:
    """What must hold of pairs whatever the order of a draw."""
    assert pairs.keys() | unpaired.keys() == {uid(name) for name in prompts}
    assert not pairs.keys() & unpaired.keys()
    for name, several in prompts.items():
        by_id = {uid(one.name): one for one in several}
        found = [(by_id[chosen], by_id[rejected]) for chosen, rejected in pairs.get(uid(name), [])]
        for chosen, rejected in found:
            assert chosen.usable
            assert rejected.usable
            assert chosen.positive
            assert not rejected.positive
            assert chosen.text != rejected.text
        for side in zip(*found, strict=True):
            assert len({one.text for one in side}) == len(found) <= k


def test_order_of_rows_and_repetition_change_nothing(stores: tuple[Store, Store]) -> None:
    several = [Answer(f"order {at}", f"text {at % 7}", ((1, 1), (1, 0), (-1, 1))[at % 3]) for at in range(12)]
    prompts = {"order": several}
    one = write(stores[0], "order", prompts)
    other = write(stores[1], "order", prompts, order=[answer.name for answer in reversed(several)])
    first = select(stores[0], "order", one, 3, 5)
    assert select(stores[1], "order", other, 3, 5) == first
    assert select(stores[0], "order", one, 3, 5) == first  # the same set again
    assert select(stores[0], "order again", one, 3, 5) == first  # another set with the same seed


def test_other_seeds_draw_other_responses(store: Store) -> None:
    prompts = {"p": [Answer("good", "good"), *(Answer(f"bad {at}", f"bad {at}", (0, 1)) for at in range(4))]}
    keys = write(store, "seeds", prompts)
    drawn = Counter(select(store, f"seed {seed}", keys, 1, seed)[0][uid("p")][0][1] for seed in range(12))
    assert len(drawn) == 4


def test_another_judge_and_other_sets_have_no_say(store: Store) -> None:
    prompts = {"p": [Answer("good", "good"), Answer("bad", "bad", (0, 0)), Answer("unjudged", "other", None)]}
    keys = write(store, "set", prompts)
    rows.add_prompts(store, [prompt("p")])
    respond(store, "p", [completion("outside")])
    judge(store, judgement("outside", -1, -1))
    judge(store, judgement("good", -1, -1), judgement("bad", 1, 1), judge_key=uid("another judge"))
    judge(store, judgement("unjudged", 1, 1), judge_key=uid("another judge"))
    assert select(store, "pairs", keys, 3, 0) == ({uid("p"): [(uid("good"), uid("bad"))]}, {})
    other = {"q": [Answer("right", "right"), Answer("mute", "mute", None)]}
    keys = write(store, "another set", other)
    judge(store, judgement("mute", -1, -1), judge_key=uid("another judge"))
    assert select(store, "more pairs", keys, 3, 0) == ({}, {uid("q"): "no_negative"})


def test_a_text_that_is_both_explored_and_refined_counts_once_as_explored(store: Store) -> None:
    prompts = {
        "p": [
            Answer("draft", "wrong", (0, 0)),
            Answer("explored", "right"),
            *(Answer(f"refined {at}", "right", parent="draft") for at in range(5)),
        ]
    }
    assert select(store, "pairs", write(store, "set", prompts), 5, 0)[0] == {
        uid("p"): [(uid("explored"), uid("draft"))]
    }
