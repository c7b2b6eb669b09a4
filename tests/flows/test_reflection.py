"""Reflection in a whole run: a teacher, a budget, hidden answers, plain responses to compare with, a panel's judges."""

from __future__ import annotations

from pathlib import Path

import pytest

from rlrf import stages
from rlrf.handles import Policy
from rlrf.judges.answers import plain_number
from rlrf.redaction import answer_of, numbers_of_size
from storage.reflecting import reflection
from tasks.refine import refinement_key
from tests import builders
from tests.builders import NEVER, Ran
from tests.flows import replies

SECRET = "The working that only judges may see."
TEACHER = {"engine": {"type": "scripted", "reply": "tests.flows.replies:teaching"}}


@pytest.fixture(scope="module")
def taught(prefect_server: str, model: Path, tmp_path_factory: pytest.TempPathFactory) -> Ran:
    """One iteration with a teacher whose feedback has no answers, of which some prompts are compared."""
    replies.revisions.clear()
    folder = tmp_path_factory.mktemp("taught")
    prompts = [row | {"answer": f"{SECRET}\n#### {row['answer']}"} for row in builders.prompt_rows("prompts")]
    source = builders.source(builders.write_lines(folder / "secret.jsonl", prompts))
    refine = {
        "m": 2,
        "max_tokens": 64,
        "teacher": TEACHER,
        "hide_answers": True,
        "compare": 3,
        "budget": {"solved": 0.6},
    }
    return builders.run(builders.write_config(folder, model, prompts__sources=[source], refine=refine))


def base_policy(ran: Ran) -> str:
    return str(ran.store.value("SELECT base_id FROM iterations WHERE arm = 'policy'"))


def test_a_teachers_refinements_are_its_own(taught: Ran) -> None:
    assert taught.said.code == 0, taught.said.err
    rows = taught.store.query("""SELECT DISTINCT r.policy_id, p.kind, p.name, r.parent_id IS NOT NULL AS refinement
        FROM responses r JOIN policies p USING (policy_id) ORDER BY refinement""")
    assert [row["refinement"] for row in rows] == [False, True]
    assert rows[0]["policy_id"] == base_policy(taught)
    assert rows[1]["policy_id"] != base_policy(taught)
    assert (rows[1]["kind"], rows[1]["name"]) == ("external", "tests.flows.replies:teaching")
    assert (
        len(replies.revisions) == taught.store.value("SELECT count(*) FROM responses WHERE parent_id IS NOT NULL") > 0
    )


def test_the_reviser_never_sees_a_reference_nor_its_answer(taught: Ran) -> None:
    references = taught.store.query("SELECT messages->0->>'content' AS question, reference FROM prompts")
    known = {row["question"]: row["reference"] for row in references}
    assert all(SECRET in reference for reference in known.values())
    hidden = 0
    for request in replies.revisions:
        feedback = request.messages[-1]["content"]
        size = plain_number(answer_of(known[request.messages[0]["content"]]))
        assert size is not None
        assert numbers_of_size(feedback, size) == []
        assert all(SECRET not in message["content"] for message in request.messages)
        hidden += "[...]" in feedback
    assert hidden > 0


def test_the_budget_leaves_out_what_is_solved_and_says_so(taught: Ran) -> None:
    solved = taught.store.value("""SELECT count(*) FROM (SELECT r.prompt_id FROM iterations i
        JOIN members m ON m.set_key = i.responses_key JOIN responses r ON r.response_id = m.member_id
        JOIN judgements j ON j.response_id = r.response_id AND j.judge_key = i.judge_key
        WHERE i.arm = 'policy' GROUP BY r.prompt_id HAVING avg(j.positive::INTEGER) >= 0.6)""")
    refined = taught.store.value("SELECT count(DISTINCT prompt_id) FROM responses WHERE parent_id IS NOT NULL")
    assert 0 < solved == 10 - refined
    assert f"prompts without refinements: {solved} solved (budget.solved)" in taught.said.err


def test_plain_responses_go_on_after_the_explored_ones_and_enter_no_pair(taught: Ran) -> None:
    store, config = taught.store, taught.config
    policy = Policy(policy_id=base_policy(taught), name="", folder="")
    rows = store.query("""SELECT r.prompt_id, r.gen_key, r.position, r.policy_id, r.parent_id, j.reason, r.response_id
        FROM iterations i JOIN members m ON m.set_key = TRY_CAST(i.stage_keys ->> 'compare' AS UUID)
        JOIN responses r ON r.response_id = m.member_id JOIN judgements j USING (response_id) WHERE i.arm = 'policy'""")
    assert len(rows) == 3 * config.refine.m
    assert {row["position"] for row in rows} == {3, 4}
    assert {row["gen_key"] for row in rows} == {stages.response_key(config, policy, config.refine).key}
    assert {(row["policy_id"], row["parent_id"]) for row in rows} == {(policy.policy_id, None)}
    refined = {row["prompt_id"] for row in store.query("SELECT prompt_id FROM responses WHERE parent_id IS NOT NULL")}
    assert len({row["prompt_id"] for row in rows}) == 3
    assert {row["prompt_id"] for row in rows} <= refined
    paired = store.query("SELECT chosen_id AS id FROM pairs UNION SELECT rejected_id FROM pairs")
    assert not {row["id"] for row in paired} & {row["response_id"] for row in rows}


def test_what_reflection_was_worth_is_shown_and_reported(taught: Ran) -> None:
    (row,) = reflection(taught.store, taught.run_id)
    assert row["refinements"] == len(replies.revisions)
    assert row["plain"]["prompts"] == 3
    assert [lift["aspect"] for lift in row["lifts"]] == ["score", "answer", "arithmetic", "completeness", "conciseness"]
    assert "What reflection was worth" in taught.said.out
    report, overall = (taught.config.home / "report.md").read_text(), row["lifts"][0]
    assert f"| score: win / tie / loss | {overall['win']} / {overall['tie']} / {overall['loss']} |" in report
    assert f"| score lift | {overall['mean']:+.2f} ±" in report
    assert "(lifts.svg)" in report
    assert "<svg" in (taught.config.home / "lifts.svg").read_text()


def test_raising_n_takes_the_plain_responses_over(taught: Ran) -> None:
    more = builders.rlrf("plan", taught.path, "--set", "explore.n=5")
    assert more.code == 0, more.err
    line = next(line for line in more.out.splitlines() if " explore " in line)
    assert line.split()[2:6] == ["partly", "reusable", "50", "36"], "30 explored ones and 6 plain ones are there"


def test_another_teacher_and_hidden_answers_are_other_refinements(taught: Ran) -> None:
    def key(**changes: object) -> str:
        refine = taught.config.refine.model_copy(update=changes)
        config = taught.config.model_copy(update={"refine": refine})
        return refinement_key(config, Policy(policy_id=base_policy(taught), name="", folder="")).key

    assert len({key(), key(teacher=None), key(hide_answers=False), key(teacher=None, hide_answers=False)}) == 4
    assert key() == key(compare=7)


def test_each_judge_of_a_panel_speaks_for_itself(prefect_server: str, model: Path, tmp_path: Path) -> None:
    replies.revisions.clear()
    panel = {"type": "panel", "judges": [{"type": "math"}, {"type": "math", "reveal_values": False}]}
    refine = {"m": 2, "max_tokens": 64, "teacher": TEACHER, "feedback": "each", "promising": "best_imperfect"}
    path = builders.write_config(tmp_path, model, "wrong", judge=panel, refine=refine, pairs__min_pairs=NEVER)
    ran = builders.run(path)
    said = {}
    for request in replies.revisions:
        said.setdefault(request.messages[0]["content"], set()).add(request.messages[-1]["content"])
    assert said, ran.said.err
    assert all(len(feedbacks) == 2 for feedbacks in said.values()), "one with the right value, one without"
    positions = ran.store.query(
        "SELECT list(position ORDER BY position) AS at FROM responses WHERE parent_id IS NOT NULL GROUP BY parent_id"
    )
    assert {tuple(row["at"]) for row in positions} == {(0, 1)}
