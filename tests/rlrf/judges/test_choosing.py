"""Which aspects count: those of the prompt's task, those that the judge names once per prompt or in the call."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from typing import Any

import pytest

from rlrf.backends.scripted import ScriptedGenerator
from rlrf.errors import ConfigError
from rlrf.fingerprints import content_id
from rlrf.judge_config import RubricJudge as Settings
from rlrf.judges.protocol import Chooser
from rlrf.judges.questions import choice_schema, reply_schema
from rlrf.judges.reply import parse, parse_choice
from rlrf.judges.rubric import GREEDY, Manner, RubricJudge
from rlrf.judging import build_judge, described
from rlrf.records import Case, Failure, Judgement, Prompt, Request
from rlrf.rubric import load_rubric
from tests.rlrf.judges.unreliable import asked_for, cases

GENERAL = load_rubric("general")
CASE = cases(1)[0]
CALL = Manner(aspects="call", choose=2)


class Listener:
    """Rates all that it is asked for 1, names `named` where it may choose, and notes which aspects it was asked for."""

    def __init__(self, *named: str) -> None:
        self.named, self.seen = named, list[list[str]]()

    def reply(self, request: Request) -> str:
        self.seen.append(asked_for(request))
        return json.dumps({name: {"comment": "Fine.", "rating": 1} for name in self.seen[-1] or self.named})


def judged(listener: Listener, case: Case, manner: Manner) -> Judgement:
    judge = RubricJudge(lambda: ScriptedGenerator(listener.reply), GENERAL, "digest", GREEDY, manner)
    [[judgement]] = judge.judge([case])
    return judgement


@pytest.mark.parametrize("mode", ["all", "task", "prompt", "call"])
@pytest.mark.parametrize("reverse", [False, True])
def test_aspects_that_are_settled_decide_in_every_mode(mode: Any, reverse: bool) -> None:
    listener = Listener()
    case = replace(CASE, aspects=("readability", "factuality"), metadata={"task": "sums"})
    judgement = judged(listener, case, Manner(aspects=mode, tasks={"sums": ("harmlessness",)}, reverse=reverse))
    assert [rating.aspect for rating in judgement.ratings] == ["factuality", "readability"]
    assert listener.seen == [["readability", "factuality"] if reverse else ["factuality", "readability"]]


def test_a_task_has_its_aspects_and_any_other_has_all() -> None:
    manner = Manner(aspects="task", task="kind", tasks={"sums": ("logical_correctness",)})
    listener = Listener()
    assert len(judged(listener, replace(CASE, metadata={"kind": "sums"}), manner).ratings) == 1
    assert len(judged(listener, replace(CASE, metadata={"kind": "verse"}), manner).ratings) == 8
    assert len(judged(listener, CASE, manner).ratings) == 8


def test_without_a_choice_there_is_no_call() -> None:
    listener = Listener()
    assert judged(listener, CASE, Manner(aspects="prompt")).reason == "no_aspects_chosen"
    assert judged(listener, replace(CASE, aspects=("taste",)), Manner()).reason == "unknown_aspects: taste"
    assert listener.seen == []


def test_a_judge_names_aspects_in_the_call() -> None:
    judgement = judged(Listener("readability", "factuality"), CASE, CALL)
    assert judgement.rated
    assert [rating.aspect for rating in judgement.ratings] == ["factuality", "readability"]
    judgement = judged(Listener(*GENERAL.names), CASE, CALL)
    assert judgement.reason == "unrated_aspects: 8 named instead of 2"
    assert judged(Listener("readability"), CASE, CALL).reason == "unrated_aspects: 1 named instead of 2"


PROMPTS = [Prompt(f"p{at}", "s", ({"role": "user", "content": f"Question {at}?"},)) for at in range(20)]


def test_aspects_are_chosen_once_per_prompt() -> None:
    asked: list[str] = []

    def reply(request: Request) -> str | Failure:
        asked.append(request.request_id)
        if request.request_id == "p7":
            return "All of them."
        if asked.count(request.request_id) == 1 and int(request.request_id[1:]) % 3 == 0:
            return Failure("", "timeout", "late")
        return 'I take these.\n{"Readability": "It is long.", "factuality": "It states facts."}'

    judge: Chooser = RubricJudge(lambda: ScriptedGenerator(reply), GENERAL, "digest", GREEDY, Manner(choose=2))
    choices = {choice.prompt_id: choice for batch in judge.choose(PROMPTS) for choice in batch}
    assert sorted(choices) == sorted(prompt.prompt_id for prompt in PROMPTS)
    unread = choices.pop("p7")
    assert (unread.aspects, unread.reason, unread.raw_reply) == ((), "no_json", "All of them.")
    assert {(choice.aspects, choice.reason) for choice in choices.values()} == {(("factuality", "readability"), None)}
    assert len(asked) == 20 + 7 + 2
    assert choices["p1"].prompt_tokens > 50


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("none", "no_json"),
        ('{"factuality": "x"}', "wrong_choice: 1 named instead of 2"),
        ('{"factuality": "x", "readability": "y", "harmlessness": "z"}', "wrong_choice: 3 named instead of 2"),
        ('{"factuality": "x", "taste": "y"}', "wrong_choice: no aspect 'taste'"),
        ('{"factuality": 1, "readability": 2} or {"factuality": 1, "harmlessness": 2}', "contradiction"),
    ],
)
def test_a_choice_that_is_not_certain_is_none(text: str, reason: str) -> None:
    assert parse_choice(text, GENERAL, 2) == ((), reason)


def test_the_question_for_a_choice_shows_no_levels_and_its_form_is_no_choice() -> None:
    seen: list[Request] = []

    def reply(request: Request) -> str:
        seen.append(request)
        return request.messages[-1]["content"].splitlines()[-1]

    judge = RubricJudge(lambda: ScriptedGenerator(reply), GENERAL, "d", GREEDY, Manner(choose=2, retries=0))
    [[choice]] = judge.choose(PROMPTS[:1])
    assert choice.reason == "no_json"
    text = seen[0].messages[0]["content"]
    assert "Question 0?" in text
    assert all(aspect.definition in text and aspect.success not in text for aspect in GENERAL.aspects)
    assert seen[0].json_schema is None


def test_repetitions_share_the_choice_and_have_verdicts_of_their_own() -> None:
    manners = [Manner(aspects="prompt"), Manner(aspects="prompt", repeat=1), Manner(aspects="prompt", reverse=True)]
    judges = [RubricJudge(lambda: ScriptedGenerator(str), GENERAL, "digest", GREEDY, one) for one in manners]  # type: ignore[arg-type]
    assert len({content_id("choice", judge.choice_ingredients()) for judge in judges}) == 1
    assert len({content_id("judge", judge.ingredients()) for judge in judges}) == 3
    other = RubricJudge(lambda: ScriptedGenerator(str), GENERAL, "digest", GREEDY, Manner(aspects="prompt", choose=4))  # type: ignore[arg-type]
    assert other.choice_ingredients() != judges[0].choice_ingredients()
    assert "repeat" not in judges[0].ingredients()
    assert "reverse" not in judges[0].ingredients()


def test_the_same_question_is_asked_with_another_seed_when_it_is_repeated() -> None:
    seeds: list[int] = []

    def reply(request: Request) -> str:
        seeds.append(request.seed)
        return json.dumps(dict.fromkeys(GENERAL.names, 1))

    for repeat in (0, 0, 1, 2):
        judge = RubricJudge(lambda: ScriptedGenerator(reply), GENERAL, "d", GREEDY, Manner(repeat=repeat))
        assert [one.rated for batch in judge.judge([CASE]) for one in batch] == [True]
    assert seeds[0] == seeds[1]
    assert len(set(seeds)) == 3


@pytest.mark.parametrize("choose", [None, 1, 3, 8])
def test_schemas_demand_what_the_parser_reads(choose: int | None) -> None:
    from jsonschema import Draft202012Validator

    valid = Draft202012Validator(json.loads(reply_schema(GENERAL, None, choose, comment_chars=20))).is_valid
    for count in range(9):
        reply = {name: {"comment": "x" * 20, "rating": -1} for name in GENERAL.names[:count]}
        assert valid(reply) == (count == (choose or 8))
        if valid(reply):
            assert parse(json.dumps(reply), GENERAL, choose=choose)[1] is None
            assert not valid({**reply, GENERAL.names[0]: {"comment": "x" * 21, "rating": -1}})
            assert not valid({**reply, GENERAL.names[0]: {"comment": "x", "rating": 2}})
    if choose:
        chosen = dict.fromkeys(GENERAL.names[:choose], "why")
        assert Draft202012Validator(json.loads(choice_schema(GENERAL, choose))).is_valid(chosen)
        assert parse_choice(json.dumps(chosen), GENERAL, choose) == (GENERAL.names[:choose], None)


def test_a_rating_comes_after_its_comment_in_the_schema_and_aspects_in_the_order_asked() -> None:
    schema = json.loads(reply_schema(GENERAL, GENERAL.names[::-1]))
    assert list(schema["properties"]) == list(GENERAL.names[::-1])
    assert all(list(one["properties"]) == ["comment", "rating"] for one in schema["properties"].values())


def settings(**changes: Any) -> Settings:
    engine = {"type": "scripted", "reply": "tests.flows.replies:mixed"}
    return Settings.model_validate({"type": "rubric", "engine": engine, **changes})


def test_settings_reach_the_judge() -> None:
    found = described(settings(rubric="just_eval", aspects="call", choose=2, retries=5, repeat=1, reverse=True))
    assert isinstance(found, RubricJudge)
    assert found.manner == Manner(aspects="call", choose=2, retries=5, repeat=1, reverse=True)
    assert found.rubric.name == "just_eval"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"aspects": "task", "tasks": {"sums": ["logic"]}}, r"judge.tasks.sums.*'logic'.*factuality"),
        ({"aspects": "task", "tasks": {"sums": []}}, r"judge.tasks.sums.*nothing"),
        ({"aspects": "call", "choose": 9}, r"judge.choose = 9.*8 aspects"),
        ({"aspects": "prompt", "choose": 2, "rubric": "math"}, r"judge.choose = 2.*1 aspects"),
    ],
)
def test_aspects_that_the_rubric_has_not_are_refused(changes: dict[str, Any], message: str) -> None:
    def unused(engine: Any, folder: Any) -> Any:
        raise AssertionError("nothing is opened")

    with pytest.raises(ConfigError, match=re.compile(message, re.DOTALL)):
        build_judge(settings(**changes), unused)
