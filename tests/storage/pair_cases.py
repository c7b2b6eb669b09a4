"""Prompts with answers for tests of pairs: written to a store, drawn by hypothesis, and their pairs read back."""

from __future__ import annotations

import hashlib
import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import count
from typing import Any

from hypothesis import strategies as st

from rlrf.pair_config import Pairs as Rule
from rlrf.records import Completion, Judgement, Rating
from rlrf.scoring import is_positive, score
from storage import judgements, rows
from storage.pairing import select_pairs
from storage.store import Store, fetch, insert
from tests.storage.builders import GEN, JUDGE, RUN, prompt, uid

REWARD = uid("reward")
WEIGHTS = {"answer": 1.0, "steps": 1.0, "style": 0.5}


@dataclass(frozen=True)
class Answer:
    """One response in a test. `levels` are those of answer, steps and style, None for an aspect that wasn't asked about;
    without levels it is unrated."""

    name: str
    text: str
    levels: tuple[int | None, ...] | None = (1, 1)
    finish: str = "stop"
    parent: str | None = None
    reward: float | None = None
    tokens: int | None = 7

    @property
    def usable(self) -> bool:
        return self.levels is not None and self.finish == "stop"

    @property
    def ratings(self) -> tuple[Rating, ...]:
        named = zip(WEIGHTS, self.levels or (), strict=False)
        return tuple(Rating(aspect, level, "fine") for aspect, level in named if level is not None)

    @property
    def positive(self) -> bool:
        return is_positive(self.ratings)

    @property
    def score(self) -> float:
        found = score(self.ratings, WEIGHTS)
        assert found is not None
        return round(found, 9)

    def draw(self, seed: int) -> str:
        return hashlib.md5(f"{seed}:{uid(self.name)}".encode()).hexdigest()


Drawn = list[list[dict[str, Any]]]
"""Per prompt the fields of its answers, `parent` as the place of another answer."""
Prompts = dict[str, list[Answer]]
Pairs = dict[str, list[tuple[str, str]]]
Sets = tuple[str, list[str]]
"""The keys of a set of prompts and of sets of responses."""


def write(store: Store, tag: str, prompts: Prompts, order: Sequence[str] | None = None) -> Sets:
    """Store prompts and answers, the answers in this order of names; returns the keys of the sets."""
    answers = {answer.name: (name, answer) for name, several in prompts.items() for answer in several}
    found = [answers[name][1] for name in order or answers]
    rows.add_prompts(store, [prompt(name) for name in prompts])
    planned = {
        uid(name): {"prompt_id": uid(asked), "parent_id": one.parent and uid(one.parent), "position": 0, "seed": 0}
        for name, (asked, one) in answers.items()
    }
    made = [Completion(uid(one.name), one.text, one.finish, 5, one.tokens) for one in found]  # type: ignore[arg-type]
    common = {"gen_key": GEN, "policy_id": uid("base"), "backend": "test", "run_id": RUN}
    rows.add_results(store, made, planned, common)
    rated = [Judgement(uid(one.name), one.ratings, None if one.levels else "no reply") for one in found]
    judgements.add_judgements(store, JUDGE, rated, WEIGHTS, RUN)
    judgements.add_judgements(store, REWARD, [rewarded(one) for one in found], {"reward": 1.0}, RUN)
    sets = {
        "explored": [one.name for one in found if not one.parent],
        "refined": [one.name for one in found if one.parent],
        "prompts": list(prompts),
    }
    keys = {name: uid(f"{tag} {name}") for name in sets}
    with store.connect() as connection:
        belong = [{"set_key": keys[name], "member_id": uid(one)} for name, several in sets.items() for one in several]
        insert(connection, "members", belong)
    return keys["prompts"], [keys["explored"], keys["refined"]]


def rewarded(one: Answer) -> Judgement:
    """What the reward model said of it."""
    if one.reward is None:
        return Judgement(uid(one.name), reason="no reply")
    return Judgement(uid(one.name), (Rating("reward", one.reward, scale=(-100, 100)),))


def select(
    store: Store, pair_set: str, keys: Sets, rule: Rule, seed: int, reward: str | None = None
) -> tuple[Pairs, dict[str, str]]:
    """Pairs per prompt, in their order, and the reason for each prompt without one; checked against what is returned."""
    chosen, dropped = select_pairs(
        store,
        uid(pair_set),
        prompts=keys[0],
        responses=keys[1],
        judge_key=JUDGE,
        rule=rule,
        seed=seed,
        reward_key=reward,
    )
    pairs: Pairs = {}
    with store.connect() as connection:
        sql = "SELECT * FROM pairs WHERE pair_set = ? ORDER BY prompt_id, position"
        rows_found = fetch(connection, sql, [uid(pair_set)])
        unpaired = fetch(connection, "SELECT prompt_id, reason FROM unpaired WHERE pair_set = ?", [uid(pair_set)])
    for row in rows_found:
        assert row["position"] == len(pairs.setdefault(row["prompt_id"], []))
        pairs[row["prompt_id"]].append((row["chosen_id"], row["rejected_id"]))
    assert chosen == sum(map(len, pairs.values()))
    assert dropped == Counter(row["reason"] for row in unpaired)
    return pairs, {row["prompt_id"]: row["reason"] for row in unpaired}


level = st.sampled_from([-1, 0, 1])
drawn_answer = st.fixed_dictionaries(
    {
        "text": st.sampled_from(["a", "b", "c", "d", "ef", "A", " a", "a long one", "another long one"]),
        "levels": st.one_of(st.none(), st.just((1, 1)), st.tuples(level, level, st.one_of(st.none(), level))),
        "finish": st.sampled_from(["stop", "stop", "stop", "length"]),
        "reward": st.one_of(st.none(), st.sampled_from([-2.5, 0.0, 0.125, 3.0])),
        "tokens": st.one_of(st.integers(1, 5), st.integers(1, 5), st.integers(1, 5), st.none()),
        "parent": st.one_of(st.none(), st.integers(0, 2)),
    }
)
drawn_prompts = st.lists(st.lists(drawn_answer, max_size=8), min_size=10, max_size=15)
numbers = count()


def many(seed: int, prompts: int) -> Drawn:
    """Prompts in numbers, for rules that differ in rare cases only."""
    rng = random.Random(seed)
    texts = ["a", "b", "c", "d", "ef", "A", " a", "a long one", "another long one", "x" * 9, "y" * 7]

    def one() -> dict[str, Any]:
        drawn = rng.choice([-1, 0, 1]), rng.choice([-1, 0, 1]), rng.choice([None, -1, 0, 1])
        return {
            "text": rng.choice(texts),
            "levels": rng.choice([None, (1, 1), (1, 1, 1), *[drawn] * 5]),
            "finish": rng.choice(["stop"] * 6 + ["length"]),
            "reward": rng.choice([None, -2.5, 0.0, 0.125, 1.0, 2.0, 3.0]),
            "tokens": rng.choice([1, 2, 3, 4, 5, 9, 12] * 3 + [None]),
            "parent": rng.choice([None, None, 0, 1, 2]),
        }

    return [[one() for _ in range(rng.randint(0, 12))] for _ in range(prompts)]


def named(drawn: Drawn) -> tuple[str, Prompts]:
    """Drawn answers with names that no other example has, so that all examples share one store."""
    tag = f"example {next(numbers)}"
    prompts: Prompts = {}
    for place, several in enumerate(drawn):
        prefix = f"{tag}, prompt {place}"
        prompts[prefix] = []
        for at, fields in enumerate(several):
            parent = fields["parent"]
            of = f"{prefix}, {parent}" if isinstance(parent, int) and parent < at else None
            prompts[prefix].append(Answer(**{**fields, "name": f"{prefix}, {at}", "parent": of}))  # type: ignore[arg-type]
    return tag, prompts
