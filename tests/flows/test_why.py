"""What `rlrf plan` and `rlrf why` say of changed configurations: the state of each stage, and the ingredient at the root."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from flows.plan import Planner, planner
from flows.savings import savings, total
from flows.steps import FINISHED, FRESH, OPEN, PARTLY, STALE, Step
from flows.why import Why, why
from rlrf import stages
from rlrf.config import load_config
from rlrf.explaining import Change, roots, text_difference
from rlrf.handles import Handle
from storage import ledger, sets
from storage.store import Store
from tests import builders
from tests.builders import NEVER, Ran, rlrf
from tests.rlrf.backends.tiny_model import build_tiny_model


@dataclass(frozen=True)
class Asked:
    """A configuration over a copy of a run's home."""

    path: Path

    @property
    def planner(self) -> Planner:
        return planner(load_config(self.path))

    @property
    def store(self) -> Store:
        return self.planner.store

    def why(self, stage: str, iteration: int | None = None) -> list[Why]:
        return why(self.planner, stage, iteration)

    def step(self, title: str, iteration: int = 1) -> Step:
        return next(one for one in self.planner.steps() if (one.title, one.iteration) == (title, iteration))


def over(ran: Ran, folder: Path, model: Path | None = None, reply: str = "mixed", **changes: Any) -> Asked:
    """Another configuration over a copy of a run's home."""
    if not (folder / "home").exists():
        shutil.copytree(ran.config.home, folder / "home")
    changes.setdefault("pairs__min_pairs", NEVER)
    return Asked(builders.write_config(folder, model or Path(str(ran.config.policy.model)), reply, **changes))


def finish(asked: Asked, title: str, members: list[str], iteration: int = 1) -> Step:
    """Finish a stage as its task would, with these members."""
    step, store = asked.step(title, iteration), asked.store
    assert step.key is not None
    ledger.record_start(store, step.stage, step.key, ledger_run(store))
    sets.add_members(store, step.key.key, members)
    kind = "prompts" if step.stage == "sample_prompts" else "responses"
    digest = sets.digest(store, kind, step.key.key)
    handle = Handle(stage=step.stage, key=step.key.key, rows=len(members), digest=digest)
    ledger.write_receipt(store, handle, ledger.Counts(), 0.5, ledger_run(store))
    return step


def ledger_run(store: Store) -> str:
    return str(store.value("SELECT run_id FROM runs ORDER BY started_at LIMIT 1"))


def told(changes: tuple[Change, ...]) -> list[tuple[str, str, Any, Any]]:
    """The roots of changes: of, ingredient, was, now."""
    return [(one.of, one.name, one.was, one.now) for one in roots(changes)]


def contents(store: Store) -> dict[str, list[dict[str, Any]]]:
    """Every row of every table."""
    tables = store.query("SELECT schema_name, table_name FROM duckdb_tables() ORDER BY ALL")
    names = [f"{row['schema_name']}.{row['table_name']}" for row in tables]
    return {name: store.query(f"FROM {name}") for name in names}


def test_the_same_configuration_finds_its_stages_finished(paired: Ran, tmp_path: Path) -> None:
    asked = over(paired, tmp_path)
    (explored,) = asked.why("explore")
    receipt = paired.store.query("SELECT stage_key, run_id FROM receipts WHERE stage = 'explore'")[0]
    assert explored.step.state == FINISHED
    assert explored.step.key is not None
    assert explored.step.key.key == receipt["stage_key"]
    assert explored.when is not None
    assert (explored.when.what, explored.when.run_id, explored.when.run) == ("finished", receipt["run_id"], "wheel")
    made = paired.store.query(
        "SELECT count(*) AS n, sum(completion_tokens) AS t FROM responses WHERE parent_id IS NULL"
    )
    assert (explored.saving.rows, explored.saving.tokens) == (made[0]["n"], int(made[0]["t"]))
    assert explored.saving.seconds is not None
    assert explored.old is None, "nothing was explored before it"
    assert explored.unchanged == explored.step.key.ingredients
    (pairs,) = asked.why("select_pairs")
    assert (pairs.step.state, pairs.step.why) == (PARTLY, "started, not finished")
    assert pairs.when is not None
    assert (pairs.when.what, pairs.when.run_id) == ("started", receipt["run_id"])
    assert asked.step("train_policy").state == FRESH


def test_more_responses_are_partly_there_and_so_are_their_judgements(paired: Ran, tmp_path: Path) -> None:
    asked = over(paired, tmp_path, explore__n=5)
    step, judged = asked.step("explore"), asked.step("judge of explore")
    assert (step.state, step.rows, step.kept) == (PARTLY, 50, 30)
    assert told(step.changes) == [("explore", "n", 3, 5)]
    assert (judged.state, judged.rows, judged.kept) == (PARTLY, 50, 30)
    assert asked.step("refine").state == OPEN
    steps = list(asked.planner.steps())
    saved = total(savings(asked.planner, steps))
    assert saved.rows == sum(one.kept for one in steps)
    assert saved.left is not None
    assert saved.left > 0


@pytest.mark.parametrize(
    ("stage", "change", "root"),
    [
        ("explore", {"explore__temperature": 0.5}, ("response", "sampling.temperature", 1.0, 0.5)),
        ("sample_prompts", {"seed": 7}, ("sample_prompts", "seed", 0, 7)),
        ("ingest", {"prompts__system": "Be brief."}, ("ingest", "system", None, "Be brief.")),
        ("sample_prompts", {"prompts__per_iteration": 20}, ("sample_prompts", "per_iteration", 10, 20)),
        (
            "evaluate",
            {"judge": {"type": "math", "reveal_values": False}},
            ("judge", "reveal_values", True, False),
        ),
        ("refine", {"refine__m": 3}, ("refine", "m", 2, 3)),
    ],
)
def test_a_changed_value_is_named_from_what_to_what(
    paired: Ran, tmp_path: Path, stage: str, change: dict[str, Any], root: tuple[str, str, Any, Any]
) -> None:
    asked = over(paired, tmp_path, **change)
    found = asked.why(stage)[0]
    assert found.step.state == (PARTLY if found.step.kept else STALE)
    assert told(found.changes) == [root]
    said = rlrf("why", stage, asked.path)
    assert said.code == 0, said.err
    assert f"{root[0]}: {root[1]}: " in said.out


def test_a_raised_code_version_is_named(paired: Ran, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = over(paired, tmp_path)
    monkeypatch.setitem(stages.CODE, "judge", 2)
    exam, later = asked.why("evaluate", 0)[0], asked.why("judge of explore")[0]
    assert told(exam.changes) == [("judge", "code", 1, 2)]
    assert later.step.state == OPEN
    assert later.waits_for == exam.step, "the exam has the same judge and comes first"


def test_other_weights_are_named_by_their_policies(paired: Ran, tmp_path: Path) -> None:
    other = build_tiny_model(tmp_path / "other", seed=1)
    asked = over(paired, tmp_path, model=other)
    exam = next(one for one in asked.why("evaluate") if one.step.iteration == 0)
    (root,) = roots(exam.changes)
    assert (exam.step.state, root.name, root.note) == (STALE, "weights", "other weights: tiny -> other")
    (explored,) = asked.why("explore")
    assert explored.step.state == OPEN
    assert explored.waits_for is not None
    assert explored.waits_for.stage == "evaluate"


def test_more_prompts_are_the_root_of_what_comes_after_them(paired: Ran, tmp_path: Path) -> None:
    asked = over(paired, tmp_path, prompts__per_iteration=20)
    ids = [row["prompt_id"] for row in paired.store.query("SELECT prompt_id FROM prompts ORDER BY prompt_id")]
    finish(asked, "sample_prompts", ids[:20])
    (found,) = asked.why("explore")
    assert told(found.changes) == [("sample_prompts", "per_iteration", 10, 20)]
    (change,) = found.changes
    both = len(set(ids[:20]) & set(sampled(paired)))
    assert change.note == f"other rows of sample_prompts: 10 -> 20 rows, {both} of them in both"
    assert (found.step.rows, found.step.kept) == (60, 3 * both)
    said = rlrf("why", "explore", asked.path).out
    assert "because, in sample_prompts:" in said
    assert "per_iteration: 10 -> 20" in said


def sampled(ran: Ran) -> list[str]:
    key = ran.store.value("SELECT stage_key FROM receipts WHERE stage = 'sample_prompts'")
    return sets.members(ran.store, key)


def test_a_held_out_file_is_named(paired: Ran, tmp_path: Path) -> None:
    asked = over(paired, tmp_path)
    rows = builders.prompt_rows("held_out")
    builders.write_lines(tmp_path / "held_out.jsonl", rows[:-1])
    (found,) = asked.why("ingest")
    (root,) = roots(found.changes)
    assert (root.of, root.name) == ("ingest", "contents.1.0")
    assert root.note.count("held_out.jsonl") == 2


def rubric(folder: Path, success: str) -> dict[str, Any]:
    """A rubric judge whose only aspect is met by this."""
    text = f"""name = "mine"
[[aspects]]
name = "depth"
definition = "How deep it goes"
success = {json.dumps(success)}
moderate = "Some way"
failure = "Not at all"
"""
    (folder / "rubric.toml").write_text(text, encoding="utf-8")
    engine = {"type": "scripted", "reply": "tests.flows.replies:mixed"}
    return {"type": "rubric", "rubric": str(folder / "rubric.toml"), "engine": engine}


def test_changed_words_of_an_aspect_are_shown_line_by_line(paired: Ran, tmp_path: Path) -> None:
    long = "It goes to the bottom of the matter,\nand shows what it found there.\n\x1b[31m"
    changes: dict[str, Any] = {"evaluate__aspect": "depth"}
    asked = over(paired, tmp_path, judge=rubric(tmp_path, long + "At length."), **changes)
    finish_exam(asked, paired)
    finish(asked, "judge of explore", explored(paired))
    asked = over(paired, tmp_path, judge=rubric(tmp_path, long + "In short."), **changes)
    finish_exam(asked, paired)
    found = asked.why("judge of explore")[0]
    (root,) = roots(found.changes)
    assert (found.step.state, root.of, root.name) == (STALE, "judge", "rubric.aspects.depth.success")
    assert {"-\\x1b[31mAt length.", "+\\x1b[31mIn short."} <= set(text_difference(root.was, root.now))
    said = rlrf("why", "judge of explore", asked.path).out
    assert "-\\x1b[31mAt length." in said
    assert "+\\x1b[31mIn short." in said
    assert "\x1b" not in said


def explored(ran: Ran) -> list[str]:
    key = ran.store.value("SELECT stage_key FROM receipts WHERE stage = 'explore'")
    return sets.members(ran.store, key)


def finish_exam(asked: Asked, ran: Ran) -> None:
    """Let the exam be done with this judge, so that the iteration's keys are known."""
    step = next(one for one in asked.planner.steps() if one.stage == "evaluate")
    assert step.key is not None
    before = ledger.evaluation(ran.store, ran.store.value("SELECT stage_key FROM evaluations LIMIT 1"))
    assert before is not None
    ledger.record_start(asked.store, "evaluate", step.key, ledger_run(asked.store))
    ledger.add_evaluation(asked.store, before.model_copy(update={"key": step.key.key}), 0, [])
    handle = Handle(stage="evaluate", key=step.key.key, rows=before.questions, digest=before.digest)
    ledger.write_receipt(asked.store, handle, ledger.Counts(), 0.5, ledger_run(asked.store))


def test_a_template_is_shown_as_text(paired: Ran, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rlrf.stage_keys.REFINE_TEMPLATE", "Once more:\n{feedback}\n")
    (found,) = over(paired, tmp_path).why("refine")
    (root,) = roots(found.changes)
    assert (root.of, root.name, root.now) == ("refinement", "template", "Once more:\n{feedback}\n")
    assert "{feedback}" in root.was


def test_stages_that_come_twice_are_told_apart(wheel: Ran, tmp_path: Path) -> None:
    asked = over(wheel, tmp_path, reply="improving", iterations=2, pairs__min_pairs=4)
    titles = [(one.step.iteration, one.step.title) for one in asked.why("judge")]
    of = ["judge of explore", "judge of refine", "judge of compare"]
    assert titles == [(number, title) for number in (1, 2) for title in of]
    assert [one.step.iteration for one in asked.why("judge of refine")] == [1, 2]
    assert [one.step.iteration for one in asked.why("judge of refine", 2)] == [2]
    later = asked.why("explore", 2)[0]
    assert later.step.state == FINISHED
    assert {one.of for one in roots(later.changes)} >= {"sample_prompts"}, "told from the iteration before"


def test_another_learning_rate_is_stale_training_and_nothing_before_it(wheel: Ran, tmp_path: Path) -> None:
    asked = over(wheel, tmp_path, reply="improving", iterations=2, pairs__min_pairs=4, train__learning_rate=5e-5)
    steps = [one for one in asked.planner.steps() if one.iteration == 1]
    states = {one.title: one.state for one in steps}
    assert [title for title, state in states.items() if state != FINISHED] == ["train_policy", "evaluate", "decide"]
    trained = asked.why("train_policy", 1)[0]
    assert (trained.step.state, told(trained.changes)) == (STALE, [("train_policy", "learning_rate", 1e-4, 5e-5)])


def test_plans_and_reasons_change_nothing(paired: Ran, tmp_path: Path) -> None:
    asked = over(paired, tmp_path, explore__n=5)
    before, files = contents(asked.store), sorted(tmp_path.rglob("*"))
    for command in (["plan"], ["why", "explore"], ["plan", "--json"], ["why", "judge", "--json"]):
        said = rlrf(command[0], *command[1:], asked.path)
        assert said.code == 0, said.err
    assert contents(asked.store) == before
    assert sorted(tmp_path.rglob("*")) == files


def test_both_say_it_as_json(paired: Ran, tmp_path: Path) -> None:
    asked = over(paired, tmp_path, explore__n=5)
    plan = json.loads(rlrf("plan", asked.path, "--json").out)
    explore = next(one for one in plan["steps"] if one["stage"] == "explore")
    assert (explore["state"], explore["kept"], explore["to_do"]) == (PARTLY, 30, 20)
    assert explore["roots"] == [{"of": "explore", "ingredient": "n", "was": 3, "now": 5}]
    assert plan["saves"]["rows"] == sum(one["kept"] for one in plan["steps"])
    (reason,) = json.loads(rlrf("why", "explore", asked.path, "--json").out)
    assert reason["key"] == explore["key"]
    assert reason["changes"] == reason["roots"] == explore["roots"]
    assert reason["unchanged"]["code"] == 1


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (
            ["why", "explores"],
            "no stage 'explores' in this run; there are ingest, evaluate, sample_prompts, explore, judge",
        ),
        (["why", "explore", "--iteration", "7"], "--iteration 7: explore is planned for 1"),
    ],
)
def test_what_is_not_planned_is_an_error_that_says_what_is(
    paired: Ran, tmp_path: Path, arguments: list[str], words: str
) -> None:
    asked = over(paired, tmp_path)
    said = rlrf(*arguments[:2], asked.path, *arguments[2:])
    assert said.code == 1
    assert words in said.err
