"""Responses of other policies go the same way as our own, and never past the held-out split."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests import builders
from tests.builders import NEVER, Ran


def external(path: Path) -> dict[str, Any]:
    """An [[external]] entry."""
    columns = {"prompt": "question", "response": "text", "reference": "answer", "policy": "by"}
    return {"name": "others", "path": str(path), "columns": columns}


def rows() -> list[dict[str, str]]:
    """A right and a wrong solution to eight prompts and to two held-out ones, and an empty one."""
    asked = [*builders.problems("prompts")[:8], *builders.problems("held_out")[:2]]
    about = [{"question": one.question, "answer": one.answer} for one in asked]
    right = [row | {"text": one.solution, "by": "able"} for row, one in zip(about, asked, strict=True)]
    wrong = [
        row | {"text": f"{one.solution[:-1]}. #### 7777", "by": "weak"} for row, one in zip(about, asked, strict=True)
    ]
    return [*right, *wrong, about[0] | {"text": "", "by": "mute"}]


@pytest.fixture(scope="module")
def borrowed(prefect_server: str, model: Path, tmp_path_factory: pytest.TempPathFactory) -> Ran:
    """explore.n = 0: external responses alone, judged, paired and trained on."""
    folder = tmp_path_factory.mktemp("external")
    source = external(builders.write_lines(folder / "others.jsonl", rows()))
    path = builders.write_config(
        folder, model, "right", external=[source], explore__n=0, refine__m=0, prompts__per_iteration=None
    )
    return builders.run(path)


def test_external_responses_alone_turn_the_wheel(borrowed: Ran) -> None:
    assert borrowed.said.code == 0, borrowed.said.err
    assert borrowed.produced["responses"] == builders.HELD_OUT * 2, "only held-out answers are generated"
    assert borrowed.made("judgements") == 16
    assert borrowed.produced["trainings"] == 1


def test_they_are_paired_as_right_against_wrong(borrowed: Ran) -> None:
    pairs = borrowed.store.query("""SELECT p.name AS chosen, q.name AS rejected FROM pairs a
        JOIN responses c ON c.response_id = a.chosen_id JOIN policies p ON p.policy_id = c.policy_id
        JOIN responses r ON r.response_id = a.rejected_id JOIN policies q ON q.policy_id = r.policy_id""")
    assert pairs == [{"chosen": "able", "rejected": "weak"}] * 8


def test_held_out_prompts_never_enter(borrowed: Ran) -> None:
    assert borrowed.store.value("SELECT count(*) FROM responses WHERE backend = 'external'") == 16
    assert borrowed.store.value("SELECT count(*) FROM held_out.responses WHERE backend = 'external'") == 0
    dropped = borrowed.store.query("SELECT DISTINCT prompt_id, reason FROM dropped_prompts WHERE source = 'others'")
    held_out = {row["prompt_id"] for row in borrowed.store.query("SELECT prompt_id FROM held_out.prompts")}
    assert len(dropped) == 2
    assert {row["prompt_id"] for row in dropped} <= held_out
    assert all("held out" in row["reason"] for row in dropped)
    assert "external prompt is held out" in borrowed.said.err


def test_responses_without_text_are_recorded_as_dropped(borrowed: Ran) -> None:
    found = borrowed.store.query("SELECT source, place, reason FROM dropped_responses")
    assert [(row["source"], row["reason"]) for row in found] == [("others", "empty")]
    assert found[0]["place"].endswith("others.jsonl, line 21")


def test_external_responses_join_our_own(prefect_server: str, model: Path, tmp_path: Path) -> None:
    source = external(builders.write_lines(tmp_path / "others.jsonl", rows()))
    changes: dict[str, Any] = {
        "prompts__per_iteration": None,
        "explore__n": 1,
        "refine__m": 0,
        "pairs__min_pairs": NEVER,
    }
    ran = builders.run(builders.write_config(tmp_path, model, "mixed", external=[source], **changes))
    assert ran.said.code == 3, ran.said.err
    assert ran.store.value("SELECT count(*) FROM responses WHERE backend = 'scripted'") == builders.PROMPTS
    assert ran.made("judgements") == builders.PROMPTS + 16


def test_the_verdicts_on_real_solutions_are_the_authors(prefect_server: str, model: Path, tmp_path: Path) -> None:
    solutions = Path(__file__).parents[1] / "data" / "gsm8k_solutions.jsonl"
    columns = {"prompt": "question", "response": "solution", "reference": "ground_truth", "policy": "model"}
    source = {"name": "gsm8k", "path": str(solutions), "columns": columns | {"metadata": ["is_correct"]}}
    ran = builders.run(
        builders.write_config(
            tmp_path,
            model,
            "right",
            external=[source],
            explore__n=0,
            refine__m=0,
            pairs__min_pairs=NEVER,
            prompts__per_iteration=None,
        )
    )
    assert ran.said.code == 3, ran.said.err
    verdicts = ran.store.query("""SELECT (r.metadata ->> 'is_correct')::BOOLEAN AS correct, t.rating
        FROM responses r JOIN ratings t USING (response_id) WHERE r.backend = 'external' AND t.aspect = 'answer'""")
    assert len(verdicts) == len(solutions.read_text(encoding="utf-8").splitlines())
    assert [row for row in verdicts if row["correct"] != (row["rating"] == 1)] == []
    assert {row["correct"] for row in verdicts} == {True, False}
