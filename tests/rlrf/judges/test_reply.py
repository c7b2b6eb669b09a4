from __future__ import annotations

import json
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlrf.judges.reply import parse
from rlrf.rubric import Rubric, load_rubric

GENERAL = load_rubric("general")
NAMES = [aspect.name for aspect in GENERAL.aspects]
MATH = load_rubric("math")

COMMENTS = st.text(max_size=60)
REPLIES = st.fixed_dictionaries(
    {
        name: st.fixed_dictionaries({"comment": COMMENTS, "rating": st.sampled_from([-1, 0, 1, "-1", "0", "1", "+1"])})
        for name in NAMES
    }
)
DRESSINGS = st.sampled_from(
    [
        "{}",
        "```json\n{}\n```",
        "Let me think about {{1, 2}} and \\boxed{{3}} first.\n\n{}",
        "{}\n\nThat is my judgement.",
        "<think>short</think>\n```\n{}\n```\nDone.",
    ]
)


def levels(text: str, rubric: Rubric = GENERAL) -> list[int | None]:
    return [rating.rating for rating in parse(text, rubric)[0]]


@given(REPLIES, DRESSINGS, st.booleans(), st.sampled_from([None, 2]))
def test_parse_after_render(reply: dict[str, dict[str, str]], dressing: str, titled: bool, indent: int | None) -> None:
    rendered = {name.replace("_", " ").title() if titled else name: entry for name, entry in reply.items()}
    ratings, reason = parse(dressing.format(json.dumps(rendered, indent=indent)), GENERAL)
    assert reason is None
    assert [rating.aspect for rating in ratings] == NAMES
    assert [rating.rating for rating in ratings] == [int(reply[name]["rating"]) for name in NAMES]
    assert [rating.critique for rating in ratings] == [reply[name]["comment"].strip() for name in NAMES]


@given(REPLIES, st.data())
def test_a_cut_reply_never_gives_a_rating_of_its_own(reply: dict[str, dict[str, str]], data: st.DataObject) -> None:
    text = json.dumps(reply)
    start = data.draw(st.integers(0, len(text)))
    end = data.draw(st.integers(start, len(text)))
    ratings, reason = parse(text[start:end], GENERAL)
    if (start, end) != (0, len(text)):
        assert (ratings, reason) == ((), "no_json")


@given(REPLIES, st.integers(0, 400), st.text(alphabet='{}[]":, \n', min_size=1, max_size=6))
def test_junk_in_a_reply_never_changes_a_rating(reply: dict[str, dict[str, str]], at: int, junk: str) -> None:
    text = json.dumps(reply)
    read = levels(text[:at] + junk + text[at:])
    truth = [int(reply[name]["rating"]) for name in NAMES]
    assert all(mine in (None, true) for mine, true in zip(read, truth, strict=False))


@pytest.mark.parametrize(
    "raw", ["N/A", "n/a", 2, -2, 0.5, True, None, [], "one", "1/1", "9" * 10_000, float("nan"), 1e300]
)
def test_a_rating_off_the_scale_leaves_that_aspect_unrated(raw: object) -> None:
    reply = {name: {"comment": "Fine.", "rating": 1} for name in NAMES}
    reply["factuality"] = {"comment": "Fine.", "rating": raw}
    ratings, reason = parse(json.dumps(reply), GENERAL)
    assert reason is not None
    assert reason.startswith("unrated_aspects: factuality (")
    assert [rating.aspect for rating in ratings if rating.rating is None] == ["factuality"]


def test_a_missing_aspect_is_named() -> None:
    _, reason = parse('{"readability": {"comment": "Clear.", "rating": 1}}', GENERAL)
    assert reason is not None
    assert "factuality (missing)" in reason
    assert "readability" not in reason


def test_bare_numbers_and_stray_backslashes_are_read() -> None:
    assert levels('{"logical_correctness": 0}', MATH) == [0]
    assert levels(r'{"logical_correctness": {"comment": "\(x\) is \"2\".", "rating": 1}}', MATH) == [1]


TOP = '{"logical_correctness": {"comment": "ok", "rating": 1}}'
LOW = '{"logical_correctness": {"comment": "no", "rating": -1}}'


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "no_json"),
        ("I rate it 1.", "no_json"),
        ("logical_correctness: 1", "no_json"),
        ('{"score": 1}', "no_json"),
        ("[1]", "no_json"),
        (f"Draft: {TOP}\nFinal: {LOW[:-12]}", "no_json"),
        (f'{{"logical_correctness": {{"comment": "It says "{TOP}" here", "rating": -1}}}}', "no_json"),
        (f"It says {{ {TOP} ", "no_json"),
        ('{"logical_correctness": {"rating": 1, "rating": -1}}', "no_json"),
        ('{"logical_correctness": 1, "Logical Correctness": -1}', "no_json"),
        (f"{TOP} but no: {LOW}", "contradiction"),
        (f"{TOP}{' ' * 100_000}", "no_json"),
    ],
)
def test_what_is_not_certain_is_unrated(text: str, reason: str) -> None:
    assert parse(text, MATH) == ((), reason)


def test_an_object_said_twice_alike_counts() -> None:
    assert levels(f"{TOP}\nSo:\n{TOP}", MATH) == [1]


@pytest.mark.parametrize(
    "unit",
    [
        "{",
        '{"a":',
        "[",
        '{"',
        "}",
        "\\",
        "{1}",
        "{'",
        "{'}",
        "{'a':[",
        "{\"'",
        "'a' ",
        '{"logical_correctness":{"rating":1,"a":',
    ],
)
def test_hostile_replies_cost_little(unit: str) -> None:
    start = time.perf_counter()
    assert parse((unit * 100_000)[:100_000], MATH) == ((), "no_json")
    assert time.perf_counter() - start < 5


JUST_EVAL = load_rubric("just_eval")


@pytest.mark.parametrize("raw", [4, 4.0, "4", " 4 ", "+4", "4.0", "4/5", "4 / 5", "4 out of 5"])
def test_a_level_of_another_scale_is_read(raw: object) -> None:
    ratings, reason = parse(json.dumps({"depth": {"explanation": "Deep.", "Score": raw}}), JUST_EVAL, ["depth"])
    assert reason is None
    assert [(one.aspect, one.rating, one.critique, one.scale) for one in ratings] == [("depth", 4, "Deep.", (1, 5))]


@pytest.mark.parametrize(
    "raw", [0, 6, "0", "4/10", "4/6", "8/10", "4-5", "4.5", "4/5/5", "/5", "", "four", [4], {"a": 4}, True]
)
def test_what_is_no_level_of_another_scale_is_unrated(raw: object) -> None:
    ratings, reason = parse(json.dumps({"depth": {"score": raw}}), JUST_EVAL, ["depth"])
    assert [one.rating for one in ratings] == [None]
    assert reason is not None
    assert reason.startswith("unrated_aspects: depth (")


@pytest.mark.parametrize(
    ("text", "rating"),
    [
        ("{'logical_correctness': {'comment': 'It isn\\'t so.', 'rating': -1,},}", -1),
        ("{'logical_correctness': {'comment': \"It isn't so.\", 'rating': +1}}", 1),
        ('{"logical_correctness": {"comment": "a", "rating": N/A}}', None),
        ('{"logical_correctness": {"comment": "a", "rating": -1},}', -1),
    ],
)
def test_what_is_nearly_json_is_read_where_it_has_one_meaning(text: str, rating: int | None) -> None:
    assert levels(text, MATH) == [rating]


@pytest.mark.parametrize(
    "text",
    [
        "{'logical_correctness': {'comment': 'It isn't so', 'rating': 1}}",
        "{'logical_correctness': {'comment': 'a', 'rating': 1 'rating': -1}}",
        "{'logical_correctness': {'rating': 1, 'rating': -1}}",
        "{logical_correctness: {rating: 1}}",
        '{"logical_correctness": {"comment": "a", "rating": 1 or 0}}',
        '{\\"logical_correctness\\": {\\"rating\\": 1}} no: {"logical_correctness": {"rating": -1}}',
    ],
)
def test_what_could_mean_two_things_is_not_read(text: str) -> None:
    assert parse(text, MATH) == ((), "no_json")


def test_two_ratings_of_one_aspect_are_none() -> None:
    ratings, reason = parse('{"logical_correctness": {"rating": 1, "score": 0}}', MATH)
    assert [one.rating for one in ratings] == [None]
    assert reason == "unrated_aspects: logical_correctness ([1, 0])"


def test_comments_can_be_stored_whatever_json_spells() -> None:
    ratings, _ = parse(r'{"logical_correctness": {"comment": "\ud83d \ud83d\ude00", "rating": 1}}', MATH)
    assert ratings[0].critique == "\ufffd \U0001f600"
