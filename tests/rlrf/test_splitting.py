"""The held-out split and the choice of prompts: stable, disjoint, and the same on each machine."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlrf.errors import DataError
from rlrf.prompts import parse_messages, prompt_id_of
from rlrf.records import Prompt
from rlrf.splitting import choose_prompts, keep_disjoint, split_of

IDS = st.sets(st.uuids().map(str), max_size=30)
LONG = (
    "A train leaves the old station at noon and drives through seven green valleys until it reaches the wide blue sea"
)


def make_prompt(text: str, source: str = "mine") -> Prompt:
    messages = parse_messages(text, "here")
    return Prompt(prompt_id_of(messages), source, messages)


def test_the_split_never_changes() -> None:
    sides = [split_of(f"prompt-{number}", 0.5) for number in range(8)]
    assert "".join(side[0] for side in sides) == "hhtthhth"


@given(st.uuids().map(str), st.floats(0, 1), st.floats(0, 1), st.text(max_size=3))
def test_a_larger_fraction_only_adds_to_the_held_out_side(prompt_id: str, one: float, other: float, salt: str) -> None:
    small, large = sorted([one, other])
    if split_of(prompt_id, small, salt) == "held_out":
        assert split_of(prompt_id, large, salt) == "held_out"
    assert (split_of(prompt_id, 0, salt), split_of(prompt_id, 1, salt)) == ("train", "held_out")


def test_the_share_of_the_held_out_side_is_the_fraction() -> None:
    held_out = sum(split_of(f"prompt-{number}", 0.2) == "held_out" for number in range(5000))
    assert 900 < held_out < 1100  # 1000 expected, standard deviation 28


def test_another_salt_splits_otherwise() -> None:
    ids = [f"prompt-{number}" for number in range(100)]
    assert [split_of(i, 0.5, "a") for i in ids] != [split_of(i, 0.5, "b") for i in ids]


def test_near_duplicates_of_held_out_prompts_leave_train_with_a_record() -> None:
    train = [make_prompt("Something else"), make_prompt(LONG + "!"), make_prompt("something ELSE")]
    result = keep_disjoint(train, [make_prompt(LONG)])
    assert result.kept == (train[0],)
    assert [(drop.row, drop.kind, drop.against) for drop in result.dropped] == [
        (1, "near", "held_out"),
        (2, "exact", "prompts"),
    ]


def test_exact_overlap_of_two_sets_stops_with_examples_and_a_remedy() -> None:
    train = [make_prompt(f"Shared question {number}", "train.jsonl") for number in range(5)]
    held_out = [make_prompt(prompt.messages[0]["content"].upper(), "test.jsonl") for prompt in train[1:]]
    message = (
        "4 of 5 training prompts of ['train.jsonl'] are in the held-out set ['test.jsonl'], such as 'Shared question 1',"
        " 'Shared question 2', 'Shared question 3'; evaluation would ask what was learned: remove them from one side"
    )
    with pytest.raises(DataError, match=re.escape(message)):
        keep_disjoint(train, held_out)


def test_a_long_example_is_cut() -> None:
    with pytest.raises(DataError, match=re.escape(repr(LONG[:80] + "..."))):
        keep_disjoint([make_prompt(LONG)], [make_prompt(LONG)])


@given(IDS, st.integers(1, 8), st.integers(0, 5))
def test_fresh_iterations_use_every_prompt_once(ids: set[str], count: int, seed: int) -> None:
    slices = [choose_prompts(ids, count, seed, iteration, reuse=False) for iteration in range(1, 32)]
    chosen = [prompt_id for part in slices for prompt_id in part]
    assert len(chosen) == len(set(chosen)) and set(chosen) == ids
    assert [len(part) for part in slices] == [max(0, min(count, len(ids) - count * i)) for i in range(31)]


@given(IDS, st.integers(1, 8), st.integers(1, 9))
def test_reuse_takes_the_first_slice_every_time(ids: set[str], count: int, iteration: int) -> None:
    first = choose_prompts(ids, count, 0, 1, reuse=False)
    assert choose_prompts(ids, count, 0, iteration, reuse=True) == first


@given(IDS, st.uuids().map(str), st.integers(1, 8))
def test_the_order_of_the_others_survives_an_added_prompt(ids: set[str], added: str, count: int) -> None:
    before = choose_prompts(ids - {added}, None, 0, 1, reuse=False)
    after = choose_prompts([*ids, added], None, 0, 1, reuse=False)
    assert [prompt_id for prompt_id in after if prompt_id != added] == before


def test_without_a_count_the_first_iteration_takes_all() -> None:
    ids = [f"prompt-{number}" for number in range(9)]
    assert sorted(choose_prompts(ids, None, 0, 1, reuse=False)) == ids
    assert choose_prompts(ids, None, 0, 2, reuse=False) == []
    assert choose_prompts(ids, None, 0, 1, False) != choose_prompts(ids, None, 1, 1, False)


@pytest.mark.parametrize(("count", "iteration"), [(0, 1), (-1, 1), (1, 0)])
def test_counts_and_iterations_start_at_one(count: int, iteration: int) -> None:
    with pytest.raises(ValueError, match=f"iteration {iteration} and count {count} must be 1 or more"):
        choose_prompts(["a"], count, 0, iteration, reuse=False)
