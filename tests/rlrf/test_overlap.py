"""Words in a row that prompts share with held-out ones."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from rlrf.overlap import overlaps
from rlrf.records import Prompt

words = st.lists(st.sampled_from("abc"), max_size=12)


def prompt(name: str, text: str, system: str | None = None) -> Prompt:
    above = ({"role": "system", "content": system},) if system else ()
    return Prompt(name, "source", (*above, {"role": "user", "content": text}))


@given(st.lists(words, max_size=5), st.lists(words, max_size=5), st.integers(3, 5))
def test_overlaps_are_those_that_a_plain_search_finds(ours: list[list[str]], theirs: list[list[str]], n: int) -> None:
    found = overlaps(
        [prompt(f"p{at}", " ".join(one)) for at, one in enumerate(ours)],
        [prompt(f"h{at}", " ".join(one)) for at, one in enumerate(theirs)],
        n,
    )

    def runs(several: list[str]) -> set[str]:
        return {" ".join(several[at : at + n]) for at in range(len(several) - n + 1)}

    wanted = {f"p{at}" for at, one in enumerate(ours) if any(runs(one) & runs(other) for other in theirs)}
    assert {one.prompt_id for one in found} == wanted
    assert [one.share for one in found] == sorted((one.share for one in found), reverse=True)
    for one in found:
        assert one.words in runs(theirs[int(one.held_out_id[1:])]) & runs(ours[int(one.prompt_id[1:])])


def test_case_punctuation_and_form_make_no_difference_and_system_turns_dont_count() -> None:
    held_out = [prompt("h", "How many CATS, then? Say it.", "Think about it step by step.")]
    assert overlaps([prompt("p", "how many ｃａｔｓ then -- say")], held_out, 5)[0].share == 1.0
    assert overlaps([prompt("p", "Other words.", "Think about it step by step.")], held_out, 5) == []


def test_words_of_two_turns_are_not_in_a_row() -> None:
    turns = ({"role": "user", "content": "one two"}, {"role": "assistant", "content": "three four"})
    assert overlaps([Prompt("p", "s", turns)], [prompt("h", "one two three four")], 3) == []
