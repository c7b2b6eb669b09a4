from __future__ import annotations

import json
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rlrf.errors import ConfigError
from rlrf.fingerprints import content_id
from rlrf.judges.function import FunctionJudge
from rlrf.judges.protocol import Judge
from rlrf.records import Case, Judgement

ROOT = Path(__file__).parents[3]
VALUES: dict[str, Any] = {
    "nan": float("nan"),
    "inf": float("inf"),
    "huge": 10**400,
    "true": True,
    "numpy_true": np.bool_(True),
    "text": "1",
    "none": None,
    "list": [],
    "above": 1.5,
    "critique": (1, 7),
    "surrogate": (1, "\ud800"),
}


def write(folder: Path, body: str, name: str = "mine.py") -> Path:
    path = folder / name
    path.write_text(body, encoding="utf-8")
    return path


def judge_of(folder: Path, expression: str, aspects: tuple[str, ...] = ("good",), **scale: float) -> FunctionJudge:
    body = f"def rate(messages, response, reference, metadata):\n    return {expression}\n"
    return FunctionJudge(f"{write(folder, body)}:rate", aspects, **scale)


def one(judge: Judge, case: Case | None = None) -> Judgement:
    [[judgement]] = judge.judge([case or Case("r1", ({"role": "user", "content": "Hi"},), "ref", "Hello.")])
    return judgement


def test_ratings_and_critiques_come_through_on_the_scale(tmp_path: Path) -> None:
    judge = judge_of(tmp_path, "{'b': 5, 'a': (2.5, 'Fair.')}", ("a", "b"), low=1, high=5)
    judgement = one(judge)
    assert [(r.aspect, r.rating, r.critique, r.scale) for r in judgement.ratings] == [
        ("a", 2.5, "Fair.", (1, 5)),
        ("b", 5, "", (1, 5)),
    ]
    assert judgement.rated and judgement.ratings[1].top and judge.scales == {"a": (1, 5), "b": (1, 5)}


@pytest.mark.parametrize("value", [1, 1.0, np.float32(1), np.int64(1), Fraction(1)], ids=repr)
def test_numbers_of_every_kind_are_ratings(tmp_path: Path, value: Any) -> None:
    judgement = one(judge_of(tmp_path, "{'good': metadata['it']}"), Case("r", (), None, "", metadata={"it": value}))
    assert [r.rating for r in judgement.ratings] == [1.0] and judgement.rated


@pytest.mark.parametrize("value", list(VALUES))
def test_what_is_no_rating_is_unrated(tmp_path: Path, value: str) -> None:
    judge = judge_of(tmp_path, "{'good': metadata['it'], 'fine': 1}", ("good", "fine"))
    judgement = one(judge, Case("r1", (), None, "", metadata={"it": VALUES[value]}))
    assert (judgement.reason or "").startswith("unrated_aspects: good (")
    assert [(r.aspect, r.rating) for r in judgement.ratings] == [("good", None), ("fine", 1)]
    assert judgement.raw_reply and judgement.raw_reply.encode("utf-8")


@pytest.mark.parametrize(
    ("expression", "reason"),
    [
        ("{}", "unrated_aspects: good (missing)"),
        ("{'good': 1, 'bad': 1}", "bad_result: aspects that aren't declared: ['bad']"),
        ("[1]", "bad_result: list, not a dict of ratings"),
        ("int('x')", "function_failed: ValueError: invalid literal for int() with base 10: 'x'"),
        ("exit('no')", "function_failed: SystemExit: no"),
        ("rate(messages, response, reference, metadata)", "function_failed: RecursionError"),
        ("int('9' * 10_000)", "function_failed: ValueError: Exceeds the limit"),
    ],
)
def test_failures_are_unrated_with_their_reason(tmp_path: Path, expression: str, reason: str) -> None:
    judgement = one(judge_of(tmp_path, expression))
    assert (judgement.reason or "").startswith(reason) and judgement.raw_reply
    assert len(judgement.reason or "") < 250 and len(judgement.raw_reply) <= 2000


def test_a_function_gets_copies(tmp_path: Path) -> None:
    case = Case("r1", ({"role": "user", "content": "Hi"},), None, "x", metadata={"tags": ["a"]})
    judge = judge_of(tmp_path, "{'good': len(metadata['tags'].pop() + messages.pop()['content']) - 3}")
    assert [r.rating for r in one(judge, case).ratings] == [r.rating for r in one(judge, case).ratings] == [0]


def test_a_cut_off_response_is_unrated(tmp_path: Path) -> None:
    assert one(judge_of(tmp_path, "{'good': 1}"), Case("r1", (), None, "", "length")).reason == "truncated"


def test_an_edit_is_another_judge_and_takes_effect(tmp_path: Path) -> None:
    first = judge_of(tmp_path, "{'good': 1}")
    second = judge_of(tmp_path, "{'good': 0}")
    assert first.ingredients() != second.ingredients()
    assert [one(judge).ratings[0].rating for judge in (first, second)] == [1, 0]


def test_a_place_is_no_part_of_the_identity(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    here, there = judge_of(tmp_path, "{'good': 1}"), judge_of(tmp_path / "a", "{'good': 1}")
    assert content_id("judge", here.ingredients()) == content_id("judge", there.ingredients())
    assert content_id("judge", here.ingredients()) != content_id(
        "judge", judge_of(tmp_path, "{'good': 1}", high=2).ingredients()
    )


def test_a_module_by_its_name_can_import_its_neighbours(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "of_a_user"
    package.mkdir()
    write(package, "", "__init__.py")
    write(package, "TOP = 1\n", "levels.py")
    write(package, "from .levels import TOP\ndef rate(*_):\n    return {'good': TOP}\n")
    monkeypatch.syspath_prepend(tmp_path)
    assert one(FunctionJudge("of_a_user.mine:rate", ("good",))).ratings[0].rating == 1


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("nowhere.py:rate", "No such file"),
        ("no_such_module:rate", "No module named 'no_such_module'"),
        ("rate", "no ':'"),
        ("mine.py:", "no ':'"),
        ("mine.py:nothing", "has no attribute 'nothing'"),
        ("mine.py:x", "'x' is int, not a function"),
        ("broken.py:rate", "SyntaxError"),
        ("raises.py:rate", "ZeroDivisionError"),
        ("sys:exit", "no source file"),
    ],
)
def test_what_cannot_be_imported_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, said: str
) -> None:
    monkeypatch.chdir(tmp_path)
    write(tmp_path, "x = 1\n")
    write(tmp_path, "def rate(:\n", "broken.py")
    write(tmp_path, "1 / 0\n", "raises.py")
    with pytest.raises(ConfigError) as caught:
        FunctionJudge(name, ("good",))
    assert f"judge.function = {name!r}" in str(caught.value) and said in str(caught.value)


def test_the_example_for_users() -> None:
    judge = FunctionJudge(f"{ROOT / 'docs/examples/word_limit.py'}:rate", ("short",))
    cases = [Case(str(n), (), None, "word " * n, metadata={"max_words": 4}) for n in (4, 6, 7)]
    [judgements] = judge.judge([*cases, Case("none", (), None, "word")])
    assert [one.ratings[0].rating for one in judgements] == [1, 0, -1, None]
    assert judgements[-1].reason == "unrated_aspects: short (None)"
    assert json.dumps(judge.ingredients())
