"""The whole wheel: what it leaves behind, and that a second run has nothing to do."""

from __future__ import annotations

import json
import re
from collections import Counter
from pathlib import Path

import pytest
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterId
from prefect.client.schemas.objects import State
from prefect.flow_engine import run_flow
from prefect.states import Scheduled
from transformers import AutoModelForCausalLM, AutoTokenizer

from flows.flywheel import flywheel
from rlrf.backends.weights import weights_digest
from storage import audits, ledger, reading
from storage.store import Store
from tests import builders
from tests.builders import Ran

STAGES = [
    *("sample_prompts", "explore", "judge", "refine", "judge"),
    *("select_pairs", "audit_pairs", "train_policy", "evaluate", "decide"),
]
ONCE = ["compare", "judge"]
"""Nothing is compared here: the same empty set in every iteration."""
UNCACHED = {"load_policy"}


def task_states(ran: Ran) -> dict[str, list[State]]:
    """From the name of a task to the states in which its runs within this run ended."""
    with get_client(sync_client=True) as client:
        flow_runs = {one.id: one for one in client.read_flow_runs(limit=200)}
        top = [one.id for one in flow_runs.values() if one.parameters.get("run_id") == ran.run_id]
        tasks = {one.id: one.flow_run_id for one in client.read_task_runs(limit=200)}
        inner = [one.id for one in flow_runs.values() if tasks.get(one.parent_task_run_id) in top]
        wanted = FlowRunFilter(id=FlowRunFilterId(any_=[*top, *inner]))
        found: dict[str, list[State]] = {}
        for one in client.read_task_runs(flow_run_filter=wanted, limit=200):
            if one.state is not None and not one.task_key.startswith("iteration"):
                found.setdefault(re.split("[ ,-]", one.name)[0], []).append(one.state)
        return found


@pytest.fixture(scope="module")
def second(wheel: Ran) -> Ran:
    """The same configuration again."""
    return builders.run(wheel.path)


def test_the_run_is_completed_and_says_where_its_results_are(wheel: Ran) -> None:
    assert wheel.said.code == 0, wheel.said.err
    assert wheel.run["status"] == "completed"
    assert wheel.run["reason"] is None
    assert wheel.run["ended_at"] is not None
    assert json.loads(wheel.run["config"])["explore"]["n"] == 3
    for path in (wheel.config.store_path, wheel.config.home / "report.md"):
        assert str(path) in wheel.said.out


def test_every_table_has_the_rows_that_were_asked_for(wheel: Ran) -> None:
    counts, store = reading.counts(wheel.store), wheel.store
    iterations, prompts, n, m = 2, 10, 3, 2
    assert counts["prompts"] == builders.PROMPTS
    assert counts["held_out.prompts"] == builders.HELD_OUT
    assert counts["held_out.responses"] == builders.HELD_OUT * (iterations + 1)
    explored = iterations * prompts * n
    refined = iterations * prompts * m
    assert counts["responses"] == counts["judgements"] == explored + refined
    assert store.value("SELECT count(*) FROM responses WHERE parent_id IS NOT NULL") == refined
    assert counts["ratings"] == 4 * counts["judgements"]
    assert counts["failures"] == 0
    assert counts["policies"] == 1 + iterations
    assert counts["receipts"] == 2 + iterations * len(STAGES) + len(ONCE)
    assert store.value("SELECT count(*) FROM trainings") == iterations
    assert store.value("SELECT count(*) FROM training_metrics") > 0
    assert store.value("SELECT count(DISTINCT number) FROM decisions") == iterations + 1


def test_pairs_are_right_against_wrong_on_one_prompt(wheel: Ran) -> None:
    rows = wheel.store.query("""SELECT c.prompt_id = r.prompt_id AS same, j.score AS chosen, k.score AS rejected
        FROM pairs p JOIN responses c ON c.response_id = p.chosen_id JOIN responses r ON r.response_id = p.rejected_id
        JOIN judgements j ON j.response_id = c.response_id JOIN judgements k ON k.response_id = r.response_id""")
    assert rows
    assert all(row["same"] and row["chosen"] == 1 > row["rejected"] for row in rows)


def test_iterations_take_fresh_prompts(wheel: Ran) -> None:
    sets = wheel.store.query("SELECT prompts_key FROM iterations WHERE arm = 'policy' ORDER BY iteration")
    first, other = (
        wheel.store.query("SELECT member_id FROM members WHERE set_key = ?", [row["prompts_key"]]) for row in sets
    )
    taken = [row["member_id"] for row in (*first, *other)]
    assert len(taken) == len(set(taken)) == 20


def test_a_promoted_policy_starts_the_next_iteration_and_a_kept_one_ends_the_wheel(wheel: Ran) -> None:
    decisions = wheel.store.query("SELECT verdict, policy_id, champion_id, iteration FROM decisions ORDER BY number")
    assert [(row["verdict"], row["iteration"]) for row in decisions] == [("start", None), ("promote", 1), ("keep", 2)]
    promoted = decisions[1]["policy_id"]
    rows = wheel.store.query(
        "SELECT iteration, base_id, policy_id FROM iterations WHERE arm = 'policy' ORDER BY iteration"
    )
    assert [row["iteration"] for row in rows] == [1, 2], "patience 1 ends the wheel before iteration 3"
    assert rows[0]["policy_id"] == promoted == rows[1]["base_id"] == decisions[2]["champion_id"]
    explored = wheel.store.query("SELECT DISTINCT policy_id FROM responses")
    assert {row["policy_id"] for row in explored} == {rows[0]["base_id"], promoted}


def test_the_summary_has_a_row_per_arm_and_iteration(wheel: Ran) -> None:
    rows = reading.results(wheel.store, wheel.run_id)
    assert [(row["arm"], row["iteration"]) for row in rows] == [("base", 0), ("policy", 1), ("policy", 2)]
    assert [row["accuracy"] for row in rows] == [0.0, 1.0, 1.0]
    assert [row["verdict"] for row in rows] == [None, "promote", "keep"]
    assert rows[1]["explored"] == 30
    assert rows[1]["refined"] == 20
    assert rows[1]["pairs"] + rows[1]["prompts_dropped"] == 10
    assert all(
        [one["aspect"] for one in row["aspects"]] == ["answer", "arithmetic", "completeness", "conciseness"]
        for row in rows
    )


def test_the_model_folder_is_complete(wheel: Ran) -> None:
    champion = ledger.champion(wheel.store)
    assert champion is not None
    folder = Path(champion.folder)
    assert folder.parent == wheel.config.home / "models"
    assert weights_digest(folder) == champion.policy_id
    lineage = json.loads((folder / "lineage.json").read_text())
    row = wheel.store.query("SELECT * FROM iterations WHERE policy_id = ? AND iteration = 1", [champion.policy_id])[0]
    assert lineage["pair_set"] == row["pair_set"]
    assert lineage["base"]["policy_id"] == row["base_id"]
    assert lineage["run"] == wheel.run_id
    card = (folder / "README.md").read_text()
    assert "library_name: transformers" in card
    assert champion.policy_id in card
    model = AutoModelForCausalLM.from_pretrained(folder)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    assert model.config.vocab_size == len(tokenizer)
    assert tokenizer.chat_template


def test_the_report_and_its_picture_are_written(wheel: Ran) -> None:
    report = (wheel.config.home / "report.md").read_text()
    assert "| accuracy | 0.0% | 100.0% | 100.0% |" in report
    assert "accuracy.svg" in report
    assert wheel.run_id in report
    assert "<svg" in (wheel.config.home / "accuracy.svg").read_text()


def test_the_audit_of_every_iteration_is_kept_and_shown(wheel: Ran) -> None:
    found = audits.audits_of(wheel.store, wheel.run_id)
    assert list(found) == ["iteration 1", "iteration 2"]
    report = (wheel.config.home / "report.md").read_text()
    keys = wheel.store.query("SELECT pair_set FROM iterations WHERE arm = 'policy' ORDER BY iteration")
    for measures, row in zip(found.values(), keys, strict=True):
        assert measures == audits.audit_of(wheel.store, row["pair_set"])
        assert all(one.passed for one in measures)
        by_name = {one.name: one for one in measures}
        assert len(by_name) == 11
        pairs = wheel.store.value("SELECT count(*) FROM pairs WHERE pair_set = ?", [row["pair_set"]])
        assert by_name["equal_texts"].n == by_name["ties"].n == pairs
        assert by_name["unrated"].n == 50
        assert by_name["largest_source"].value == 1
    first, second = (next(one for one in measures if one.name == "top_yield") for measures in found.values())
    cells = [f"{one.value:.1%} ({100 * one.low:.1f} to {100 * one.high:.1f})" for one in (first, second)]
    assert f"| top_yield | {cells[0]} | {cells[1]} |  | {second.said} |" in report
    assert "Audit of the pairs" in wheel.said.out
    assert " ".join(["top_yield", *cells]) in [" ".join(line.split()) for line in wheel.said.out.splitlines()]
    assert any(line.split()[:3] == ["audit_pairs", "equal_texts", "0.0%"] for line in wheel.said.err.splitlines())


def test_a_second_run_produces_nothing_and_its_tasks_are_cached(wheel: Ran, second: Ran) -> None:
    assert second.said.code == 0, second.said.err
    assert second.run_id != wheel.run_id
    assert set(second.produced.values()) == {0}
    assert "nothing was regenerated" in second.said.out
    states = task_states(second)
    assert states.keys() >= {"ingest", "explore", "judge", "train_policy", "decide"}
    names = {name: {one.name for one in found} for name, found in states.items()}
    assert {name for name, found in names.items() if found != {"Cached"}} == UNCACHED
    first = {name: {one.name for one in found} for name, found in task_states(wheel).items()}
    assert all("Cached" not in found for name, found in first.items() if name not in ONCE)


def test_states_in_prefect_say_what_was_kept_and_under_which_key(wheel: Ran, second: Ran) -> None:
    explored = "SELECT stage_key::VARCHAR AS key, rows FROM receipts WHERE stage = 'explore'"
    rows = {f"rlrf/{wheel.store.store_id}/explore/{one['key']}": one["rows"] for one in wheel.store.query(explored)}
    assert len(rows) == 2
    for ran, said in ((wheel, "{0} rows, 0 kept, {0} new"), (second, "{0} rows kept, nothing to do")):
        states = {one.state_details.cache_key: str(one.message) for one in task_states(ran)["explore"]}
        assert states.keys() == rows.keys()
        assert all(states[key].startswith(said.format(count)) for key, count in rows.items()), states


def test_prefect_keeps_no_results(second: Ran) -> None:
    states = [one for found in task_states(second).values() for one in found]
    assert len(states) > 20
    assert all(one.data is None for one in states)


def test_a_finished_run_that_prefect_runs_again_is_cached_too(wheel: Ran) -> None:
    """With its finished child flows, whose results Prefect doesn't have."""
    with get_client(sync_client=True) as client:
        again = next(one for one in client.read_flow_runs(limit=200) if one.parameters.get("run_id") == wheel.run_id)
        client.set_flow_run_state(again.id, Scheduled(), force=True)  # what `prefect flow-run retry` does
        again = client.read_flow_run(again.id)
        before = sum(len(states) for states in task_states(wheel).values())
        state = run_flow(flywheel, again, {"config": wheel.config, "run_id": wheel.run_id}, return_type="state")
        assert state.is_completed()
        assert client.read_flow_run(again.id).run_count == 2
    states = [state for found in task_states(wheel).values() for state in found]
    states = sorted(states, key=lambda state: state.timestamp)[before:]
    assert len(states) == before
    assert Counter(state.name for state in states) == {"Cached": before - 1, "Completed": 1}, "all but load_policy"
    retried = reading.latest_run(wheel.store)
    assert retried not in {None, wheel.run_id}
    assert set(reading.produced(wheel.store, str(retried)).values()) == {0}


def test_a_second_run_has_the_same_results(wheel: Ran, second: Ran) -> None:
    ours, theirs = (reading.results(one.store, one.run_id) for one in (second, wheel))
    for row in (*ours, *theirs):
        row.pop("run_id")
    assert ours == theirs


def test_no_held_out_row_is_on_the_learning_side(wheel: Ran) -> None:
    store: Store = wheel.store
    assert store.value("SELECT count(*) FROM prompts JOIN held_out.prompts USING (prompt_id)") == 0
    assert store.value("SELECT count(*) FROM responses JOIN held_out.responses USING (response_id)") == 0
