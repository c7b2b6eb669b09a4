"""Repeated prompts are found, exactly those, and every one of them is accounted for."""

from __future__ import annotations

from itertools import combinations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rlrf.deduplication import deduplicate, near_duplicates
from rlrf.prompts import parse_messages, prompt_id_of, with_system
from rlrf.records import Prompt

LONG = (
    "Natalia sold clips to 48 of her friends in April, and then she sold half as many clips in May. "
    "How many clips did Natalia sell altogether in April and May, if every friend took one clip and kept it?"
)
WORDS = st.sampled_from(["the", "cat", "sat", "on", "a", "mat", "today"])
WORD_LISTS = st.lists(st.lists(WORDS, min_size=1, max_size=9), max_size=12)


def make_prompt(text: str, reference: str | None = None, system: str | None = None, source: str = "mine") -> Prompt:
    bare = parse_messages(text, "here")
    messages = bare if system is None else with_system(bare, system)
    return Prompt(prompt_id_of(messages), source, messages, reference)


def kinds(*texts: str, threshold: float = 0.9) -> list[str]:
    """How each text after the first was judged: its kind of duplicate, or "kept"."""
    result = deduplicate([make_prompt(text) for text in texts], threshold=threshold)
    dropped = {drop.row: drop.kind for drop in result.dropped}
    return [dropped.get(row, "kept") for row in range(1, len(texts))]


def jaccard(one: list[str], other: list[str]) -> float:
    """Of the sets of three-word runs, written as slowly and plainly as can be."""

    def runs(words: list[str]) -> set[tuple[str, ...]]:
        padded = words + [""] * (3 - len(words))
        return {tuple(padded[i : i + 3]) for i in range(len(padded) - 2)}

    return len(runs(one) & runs(other)) / len(runs(one) | runs(other))


def test_form_case_and_whitespace_make_exact_duplicates() -> None:
    assert kinds("Is ﬁve  a prime?", "is five a\nPRIME?", " Is five a prime? ") == ["exact", "exact"]


def test_punctuation_alone_makes_near_duplicates() -> None:
    assert kinds(LONG, LONG.replace(",", "").replace("?", "!")) == ["near"]


def test_one_word_of_a_long_prompt_makes_a_near_duplicate_at_a_lower_threshold() -> None:
    other = LONG.replace("April and May", "April and June")
    assert kinds(LONG, other, threshold=0.8) == ["near"]
    assert kinds(LONG, other, threshold=0.95) == ["kept"]


@pytest.mark.parametrize(
    ("old", "new"), [("48", "84"), ("48", "48.5"), ("half", "twice"), ("one", "two"), ("48", "-48"), ("May,", "May + ")]
)
def test_a_problem_with_other_numbers_is_another_problem(old: str, new: str) -> None:
    assert kinds(LONG * 5, LONG.replace(old, new) + LONG * 4) == ["kept"]


def test_operators_count_as_numbers_do() -> None:
    assert kinds("What is 3 + 4?", "What is 3 - 4?", "What is 3 * 4?", "What is 34?", threshold=0.3) == ["kept"] * 3


def test_ideographs_are_compared_one_by_one() -> None:
    text = "请写一首关于春天的雨的短诗并解释每一行的意思以及诗人的心情"
    assert kinds(text, text + "吧") == ["near"]
    assert kinds(text, "请介绍一下长城的历史") == ["kept"]


def test_text_without_words_has_only_exact_duplicates() -> None:
    assert kinds("?!", "!?", "?!") == ["kept", "exact"]


def test_another_system_turn_makes_another_prompt() -> None:
    prompts = [make_prompt(LONG, system="Be brief."), make_prompt(LONG, system="Be kind."), make_prompt(LONG)]
    assert deduplicate(prompts).dropped == ()


def test_a_dropped_prompt_names_the_one_that_stays() -> None:
    kept, same, near = make_prompt("Hi", "1"), make_prompt("hi", "2", source="other"), make_prompt("Hi!", "1")
    first, second = deduplicate([kept, same, near]).dropped
    assert (first.row, first.prompt_id, first.source) == (1, same.prompt_id, "other")
    assert (first.duplicate_of, first.similarity, first.kind, first.against) == (
        kept.prompt_id,
        1.0,
        "exact",
        "prompts",
    )
    assert (first.reference_differs, second.reference_differs) == (True, False)
    assert (second.row, second.duplicate_of, second.similarity, second.kind) == (2, kept.prompt_id, 1.0, "near")


def test_held_out_prompts_win_and_are_never_dropped() -> None:
    held_out = [make_prompt("Hi"), make_prompt("hi"), make_prompt("Bye")]
    result = deduplicate([make_prompt("HI"), make_prompt("Hi!"), make_prompt("New")], held_out)
    assert [prompt.messages[0]["content"] for prompt in result.kept] == ["New"]
    assert [(d.row, d.kind, d.against) for d in result.dropped] == [(0, "exact", "held_out"), (1, "near", "held_out")]


def test_the_most_similar_prompt_is_named() -> None:
    words = [chr(97 + i) * 4 for i in range(20)]
    texts = [" ".join([*words[:18], "xx"]), " ".join([*words[:19], "yy"]), " ".join(words)]
    prompts = [make_prompt(text) for text in texts]
    (drop,) = [d for d in deduplicate(prompts, threshold=0.88).dropped if d.row == 2]
    assert drop.duplicate_of == prompts[1].prompt_id
    assert drop.similarity == pytest.approx(17 / 19)


@settings(deadline=None)
@given(WORD_LISTS, st.sampled_from([0.3, 0.5, 0.7, 0.9, 1.0]))
def test_no_near_duplicate_is_missed_or_made_up(lists: list[list[str]], threshold: float) -> None:
    """Against a comparison of all pairs."""
    result = deduplicate([make_prompt(" ".join(words)) for words in lists], threshold=threshold)
    rows_dropped = {drop.row for drop in result.dropped}
    kept = [words for row, words in enumerate(lists) if row not in rows_dropped]
    assert all(jaccard(one, other) < threshold for one, other in combinations(kept, 2))
    by_id = {make_prompt(" ".join(words)).prompt_id: words for words in kept}
    for drop in result.dropped:
        assert drop.similarity == jaccard(lists[drop.row], by_id[drop.duplicate_of]) >= threshold


@settings(deadline=None)
@given(WORD_LISTS, WORD_LISTS)
def test_every_prompt_is_kept_or_dropped_exactly_once(lists: list[list[str]], others: list[list[str]]) -> None:
    prompts = [make_prompt(" ".join(words)) for words in lists]
    result = deduplicate(prompts, [make_prompt(" ".join(words)) for words in others])
    rows_dropped = [drop.row for drop in result.dropped]
    assert len(result.kept) + len(result.dropped) == len(prompts) and rows_dropped == sorted(set(rows_dropped))
    assert list(result.kept) == [prompt for row, prompt in enumerate(prompts) if row not in rows_dropped]
    assert deduplicate(result.kept).kept == result.kept


@pytest.mark.parametrize("threshold", [0.0, -1, 1.01, float("nan")])
def test_a_threshold_that_means_nothing_is_refused(threshold: float) -> None:
    with pytest.raises(ValueError, match=r"threshold .* is not above 0 and at most 1; 0.9 suits prompts"):
        deduplicate([], threshold=threshold)


@settings(max_examples=60)
@given(drawn=WORD_LISTS, threshold=st.sampled_from([0.3, 0.5, 0.8, 1.0]))
def test_every_prompt_with_a_near_duplicate_among_the_others_is_found(drawn: list[list[str]], threshold: float) -> None:
    prompts = [make_prompt(" ".join(words)) for words in drawn]
    found = near_duplicates(prompts, threshold)
    similar = {
        at: max((jaccard(words, other) for place, other in enumerate(drawn) if place != at), default=0.0)
        for at, words in enumerate(drawn)
    }
    wanted = sorted((prompts[at].prompt_id, value) for at, value in similar.items() if value >= threshold)
    assert sorted((near.prompt_id, near.similarity) for near in found) == wanted


def test_both_of_two_near_duplicates_are_found_but_not_one_with_other_numbers() -> None:
    texts = [LONG, LONG.upper(), LONG.replace("48", "49"), "Something else."]
    prompts = [make_prompt(text) for text in texts]
    found = {near.prompt_id: near.other_id for near in near_duplicates(prompts)}
    one, other = prompts[0].prompt_id, prompts[1].prompt_id
    assert found == {one: other, other: one}
