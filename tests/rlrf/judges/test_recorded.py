from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pytest

from rlrf.errors import ConfigError, DataError
from rlrf.fingerprints import content_id
from rlrf.judges.protocol import Judge
from rlrf.judges.recorded import RecordedJudge
from rlrf.records import Case, Judgement
from rlrf.rubric import Rubric, load_rubric, shipped_rubrics
from tests.builders import write_lines

ROOT = Path(__file__).parents[3]
REPLIES = ROOT.parent / "shared/data/just_eval/judge_replies.jsonl"
RUBRIC = load_rubric("math")
[ASPECT] = [aspect.name for aspect in RUBRIC.aspects]


def reply(level: int, comment: str = "Because.") -> str:
    return json.dumps({ASPECT: {"comment": comment, "rating": level}})


def row(prompt: str, response: str, judge_reply: Any) -> dict[str, Any]:
    return {"prompt": prompt, "response": response, "judge_reply": judge_reply}


def case(prompt: str, response: str, **changes: Any) -> Case:
    return Case("r1", ({"role": "system", "content": "Be nice."}, {"role": "user", "content": prompt}), None, response, **changes)  # fmt: skip


def judged(path: Path, one: Case, rubric: Rubric = RUBRIC) -> Judgement:
    judge: Judge = RecordedJudge(path, rubric)
    [[judgement]] = judge.judge([one])
    judge.close()
    return judgement


def test_a_recorded_reply_is_read_by_the_rubric(tmp_path: Path) -> None:
    path = write_lines(tmp_path / "replies.jsonl", [row("What?", "This.", reply(1)), row("Why?", "This.", reply(-1))])
    for prompt, level in (("What?", 1), ("Why?", -1)):
        judgement = judged(path, case(prompt, " This.\n"))
        assert [(r.aspect, r.rating, r.critique) for r in judgement.ratings] == [(ASPECT, level, "Because.")]
        assert judgement.rated and judgement.raw_reply == reply(level)


def test_the_last_user_message_is_the_prompt(tmp_path: Path) -> None:
    path = write_lines(tmp_path / "replies.jsonl", [row("And now?", "Yes.", reply(0))])
    chat = [("user", "Hello"), ("assistant", "Hi"), ("user", "And now?")]
    messages = tuple({"role": role, "content": text} for role, text in chat)
    assert judged(path, Case("r1", messages, None, "Yes.")).ratings[0].rating == 0
    assert judged(path, Case("r1", messages[:2], None, "Yes.")).reason == "not_recorded"
    assert judged(path, Case("r1", (), None, "Yes.")).reason == "not_recorded"


@pytest.mark.parametrize(
    ("rows", "reason"),
    [
        ([row("Other", "This.", reply(1))], "not_recorded"),
        ([row("What?", "That.", reply(1))], "not_recorded"),
        ([row("What?", "This.", None)], "not_recorded"),
        ([row("What?", "This.", reply(1)), row("What?", "This. ", reply(0))], "contradiction"),
        ([row("What?", "This.", "I'd say good.")], "no_json"),
        ([row("What?", "This.", reply(7))], f"unrated_aspects: {ASPECT} (7)"),
    ],
)
def test_what_is_not_certain_is_unrated(tmp_path: Path, rows: list[dict[str, Any]], reason: str) -> None:
    judgement = judged(write_lines(tmp_path / "replies.jsonl", rows), case("What?", "This."))
    assert judgement.reason == reason
    assert (judgement.raw_reply is None) == (reason == "not_recorded")


def test_the_same_reply_twice_is_one(tmp_path: Path) -> None:
    path = write_lines(tmp_path / "replies.jsonl", [row("What?", "This.", reply(1))] * 2)
    assert judged(path, case("What?", "This.")).rated
    assert judged(path, case("What?", "This.", finish_reason="length")).reason == "truncated"


def test_columns_and_formats(tmp_path: Path) -> None:
    path = tmp_path / "replies.csv"
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([["q", "a", "said"], ["What?", "This.", reply(1)]])
    judge = RecordedJudge(path, RUBRIC, "q", "a", "said")
    [[judgement]] = judge.judge([case("What?", "This.")])
    assert judgement.rated
    with pytest.raises(DataError, match="judge_reply"):
        list(RecordedJudge(path, RUBRIC, "q", "a").judge([case("What?", "This.")]))


@pytest.mark.parametrize("bad", [row("What?", "This.", {"a": 1}), row("What?", 3, reply(1))])  # type: ignore[arg-type]
def test_a_bad_row_is_refused_with_its_place(tmp_path: Path, bad: dict[str, Any]) -> None:
    with pytest.raises(DataError, match="line 1"):
        judged(write_lines(tmp_path / "replies.jsonl", [bad]), case("What?", "This."))


def test_identity_is_the_file_the_rubric_and_the_columns(tmp_path: Path) -> None:
    rows = [row("What?", "This.", reply(1))]
    first, copy = (write_lines(tmp_path / name, rows) for name in ("a.jsonl", "b.jsonl"))
    other = write_lines(tmp_path / "c.jsonl", rows * 2)
    ids = [content_id("judge", RecordedJudge(path, RUBRIC).ingredients()) for path in (first, copy, other)]
    assert ids[0] == ids[1] != ids[2]
    assert content_id("judge", RecordedJudge(first, load_rubric("general")).ingredients()) != ids[0]
    assert content_id("judge", RecordedJudge(first, RUBRIC, prompt="q").ingredients()) != ids[0]


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"judge\.path = .*No such file"):
        RecordedJudge(tmp_path / "none.jsonl", RUBRIC)


def test_the_replies_of_just_eval() -> None:
    """500 raw replies of a hosted judge; what its authors could read, this reads to the same ratings."""
    if not REPLIES.exists() or "just_eval" not in shipped_rubrics():
        pytest.skip("needs shared/data/just_eval and the rubric just_eval")
    judge = RecordedJudge(REPLIES, load_rubric("just_eval"), prompt="instruction")
    rows = [json.loads(line) for line in REPLIES.read_text(encoding="utf-8").splitlines()]
    cases = [
        Case(str(n), ({"role": "user", "content": one["instruction"]},), None, one["response"])
        for n, one in enumerate(rows)
    ]
    [judgements] = judge.judge(cases)
    wrong = [
        (judgement.response_id, rating.aspect, rating.rating, parsed)
        for judgement, one in zip(judgements, rows, strict=True)
        for rating in judgement.ratings
        if rating.rating is not None and (parsed := one["parsed"][rating.aspect]["score"]) != f"{rating.rating:g}"
    ]
    rated = sum(judgement.rated for judgement in judgements)
    print(f"just_eval: {rated} of {len(rows)} replies rated on every aspect")
    assert wrong == [] and rated >= 0.8 * len(rows)
    assert all(judgement.raw_reply for judgement in judgements)
