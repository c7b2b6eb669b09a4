from __future__ import annotations

import pytest
from pydantic import ValidationError

from rlrf.config import Budget
from rlrf.exploring import plan_refinements, plan_responses
from rlrf.records import Prompt, Rating
from rlrf.reflection import hide_answers, refine_messages, render_feedback

ASKED = ({"role": "user", "content": "What is 6 * 7?"},)
KEY, PARENT = "11111111-0000-0000-0000-000000000000", "22222222-0000-0000-0000-000000000000"
PROMPT = Prompt("00000000-0000-0000-0000-000000000001", "s", ASKED)
FIRST, SECOND = (Rating("answer", -1, "Not 41."),), (Rating("answer", -1, "It is 42."), Rating("steps", 1, "Fine."))


def test_feedback_has_a_line_per_rated_aspect_with_its_level_in_words() -> None:
    ratings = (*SECOND, Rating("tone", None, "none"), Rating("depth", 3, "Some.", scale=(1, 5)))
    assert render_feedback(ratings) == "answer: failure. It is 42.\nsteps: success. Fine.\ndepth: moderate. Some."


def test_the_reviser_gets_chat_draft_and_feedback() -> None:
    chat = refine_messages(ASKED, "41", FIRST)
    assert chat[:2] == (*ASKED, {"role": "assistant", "content": "41"})
    assert "answer: failure. Not 41." in chat[2]["content"]


def test_hidden_answers_leave_ratings_and_the_other_words() -> None:
    assert hide_answers(SECOND, "6 * 7 = 42\n#### 42") == (Rating("answer", -1, "It is [...]."), SECOND[1])
    assert hide_answers(SECOND, None) == SECOND


def test_refinements_are_shared_out_over_the_feedbacks_in_turn() -> None:
    plan = plan_refinements(KEY, PROMPT.prompt_id, PARENT, ASKED, "41", [FIRST, SECOND], 5)
    assert [one.position for one in plan] == [0, 1, 2, 3, 4]
    assert ["It is 42" in one.messages[-1]["content"] for one in plan] == [False, True, False, True, False]
    alone = plan_refinements(KEY, PROMPT.prompt_id, PARENT, ASKED, "41", [FIRST], 5)
    assert [mine == theirs for mine, theirs in zip(plan, alone, strict=True)] == [True, False, True, False, True]
    assert len({one.response_id for one in plan}) == 5


def test_a_refinement_needs_feedback() -> None:
    with pytest.raises(ValueError, match=PARENT):
        plan_refinements(KEY, PROMPT.prompt_id, PARENT, ASKED, "41", [], 1)


def test_further_responses_go_on_where_the_explored_ones_end() -> None:
    assert plan_responses(KEY, [PROMPT], 3, first=2) == plan_responses(KEY, [PROMPT], 5)[2:]


def test_a_budget_rule_can_be_switched_off() -> None:
    assert Budget() == Budget(solved=1.0, hopeless=-1.0)
    off = Budget.model_validate({"solved": "off", "hopeless": "off"})
    assert (off.solved, off.hopeless) == (None, None)
    with pytest.raises(ValidationError):
        Budget.model_validate({"solved": 1.5})
    with pytest.raises(ValidationError):
        Budget.model_validate({"hopeless": "never"})
