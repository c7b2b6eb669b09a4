from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from rlrf.exploring import plan_refinements, plan_responses
from rlrf.records import Prompt, Rating

ASKED = ({"role": "user", "content": "What is 6 * 7?"},)
PROMPTS = [Prompt(f"00000000-0000-0000-0000-00000000000{i}", "s", ASKED) for i in range(3)]
KEY, PARENT = "11111111-0000-0000-0000-000000000000", "22222222-0000-0000-0000-000000000000"


@given(st.integers(0, 20), st.integers(0, 20))
def test_raising_n_keeps_the_first_n_with_their_seeds(fewer: int, more: int) -> None:
    fewer, more = sorted((fewer, more))
    few, many = plan_responses(KEY, PROMPTS, fewer), plan_responses(KEY, PROMPTS, more)
    assert len({one.response_id for one in many}) == len(PROMPTS) * more
    assert few == [one for one in many if one.position < fewer]


def test_other_feedback_makes_other_refinements_with_the_same_seeds() -> None:
    ratings = [(Rating("answer", -1, "Wrong."),), (Rating("answer", -1, "The 41 is wrong."),)]
    plans = [plan_refinements(KEY, PROMPTS[0].prompt_id, PARENT, ASKED, "41", [one], 4) for one in ratings]
    ids = [{one.response_id for one in plan} for plan in plans]
    assert len(ids[0] | ids[1]) == 8
    assert [one.seed for one in plans[0]] == [one.seed for one in plans[1]]
    assert all(one.parent_id == PARENT and one.messages[1]["content"] == "41" for plan in plans for one in plan)
    assert plans[0] == plan_refinements(KEY, PROMPTS[0].prompt_id, PARENT, ASKED, "41", [ratings[0]], 6)[:4]
