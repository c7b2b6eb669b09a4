"""What a run leaves in Prefect's UI, on a real server: names, artifacts, progress."""

from __future__ import annotations

import base64
import re
from typing import Any
from xml.etree import ElementTree

import pytest
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import (
    ArtifactFilter,
    ArtifactFilterFlowRunId,
    FlowRunFilter,
    FlowRunFilterId,
    FlowRunFilterParentFlowRunId,
)

from rlrf import judging
from rlrf.handles import Run
from storage import stage_reports
from tests.builders import Ran
from tests.flows.replies import HOSTILE


class Seen:
    """The flow run of a wheel with its iterations, as Prefect's API tells of them."""

    def __init__(self, ran: Ran) -> None:
        with get_client(sync_client=True) as client:
            wheels = [one for one in client.read_flow_runs() if one.parameters.get("run_id") == ran.run_id]
            parent = FlowRunFilterParentFlowRunId(any_=[wheels[0].id])
            self.flows = [wheels[0], *client.read_flow_runs(flow_run_filter=FlowRunFilter(parent_flow_run_id=parent))]
            ids = [one.id for one in self.flows]
            family = FlowRunFilter(id=FlowRunFilterId(any_=ids))
            self.tasks = [one.name for one in client.read_task_runs(flow_run_filter=family, limit=200)]
            of_these = ArtifactFilter(flow_run_id=ArtifactFilterFlowRunId(any_=ids))
            self.artifacts: list[Any] = client.read_artifacts(artifact_filter=of_these, limit=200)

    def markdown(self, key: str) -> list[str]:
        return [one.data for one in self.artifacts if one.key == key]


@pytest.fixture(scope="module")
def seen(wheel: Ran) -> Seen:
    return Seen(wheel)


def test_runs_say_configuration_and_iteration(seen: Seen) -> None:
    assert sorted(one.name for one in seen.flows) == ["wheel", "wheel, iteration 1", "wheel, iteration 2"]


def test_task_runs_say_what_they_are_about_and_how_much_of_it(seen: Seen) -> None:
    expected = {
        "ingest",
        "load_policy",
        "sample_prompts, 10 of 24",
        "explore, 10 prompts x 3",
        "judge of explore, 30 responses",
    }
    expected |= {"refine after 30 judgements, 2 each", "evaluate of wheel-1, 10 questions", "compare, not asked for"}
    assert expected <= set(seen.tasks)
    assert "decide on wheel-1 against tiny" in seen.tasks
    assert any(re.fullmatch(r"train_policy on \d+ pairs", name) for name in seen.tasks)


def test_every_kind_of_stage_has_a_history_of_its_own(seen: Seen) -> None:
    twice = {
        "sample-prompts",
        "explore",
        "judge-of-explore",
        "refine",
        "judge-of-refine",
        "select-pairs",
        "audit-pairs",
    }
    twice |= {"train-policy", "evaluate", "decide"}
    assert {key: len(seen.markdown(key)) for key in twice} == dict.fromkeys(twice, 2)
    assert [len(seen.markdown(key)) for key in ("ingest", "evaluate-of-base", "iteration-summary")] == [1, 1, 3]
    assert not seen.markdown("compare"), "nothing was asked for"


def test_an_artifact_has_the_stores_numbers(wheel: Ran, seen: Seen) -> None:
    stored = wheel.store.query("SELECT rows, tokens FROM receipts WHERE stage = 'explore' ORDER BY rowid")
    for row, text in zip(stored, sorted(seen.markdown("explore")), strict=True):
        assert f"| came out | {row['rows']:,} rows |" in text
    assert any(f"{stored[0]['tokens']:,}, " in text for text in seen.markdown("explore"))
    head = {text.splitlines()[0] for text in seen.markdown("judge-of-refine")}
    assert head == {f"### judge of refine\\: wheel\\, iteration {number}" for number in (1, 2)}


def test_scores_and_lifts_add_up_to_the_rated(wheel: Ran) -> None:
    judge = judging.key_of(wheel.config.judge).key
    sets = wheel.store.query("SELECT stage_key, rows FROM receipts WHERE stage = 'judge' AND rows > 0 ORDER BY rowid")
    for row in sets:
        unrated = sum(one["n"] for one in stage_reports.unrated(wheel.store, row["stage_key"], judge))
        assert sum(stage_reports.scores(wheel.store, row["stage_key"], judge).values()) == row["rows"] - unrated
    lifts = stage_reports.lifts(wheel.store, sets[1]["stage_key"], judge)
    assert sum(one["n"] for one in lifts) == sets[1]["rows"]
    steps = stage_reports.lift_steps(wheel.store, sets[1]["stage_key"], judge)
    assert sum(steps.values()) == sum(one["n"] for one in lifts if one["outcome"] != "unrated")


def test_plots_are_whole_pictures(seen: Seen) -> None:
    for key, pictures in (("judge-of-refine", 2), ("select-pairs", 1), ("train-policy", 1), ("evaluate", 1)):
        for text in seen.markdown(key):
            found = re.findall(r"\(data:image/svg\+xml;base64,([A-Za-z0-9+/=]+)\)", text)
            assert len(found) == pictures, key
            assert all(ElementTree.fromstring(base64.b64decode(one)).tag.endswith("svg") for one in found)


def test_a_summary_has_results_audit_examples_and_places(wheel: Ran, seen: Seen) -> None:
    last = max(seen.markdown("iteration-summary"), key=len)
    for part in (
        "Held\\-out accuracy",
        "Aspect means",
        "### Pair audit",
        "#### Example 3",
        "Promising response",
        "### Where it is",
    ):
        assert part.replace("\\", "") in last.replace("\\", "")
    assert f"file://{wheel.config.store_path}" in last


def test_progress_says_rows_and_ends_full(seen: Seen) -> None:
    progress = [one for one in seen.artifacts if one.type == "progress"]
    assert any(re.fullmatch(r"explore: 30 of 30 responses.*", one.description or "") for one in progress)
    assert {float(one.data) for one in progress} == {100.0}


def test_examples_of_hostile_text_stay_in_their_fences(wheel: Ran) -> None:
    from flows.summary import example_parts

    pairs = str(wheel.store.value("SELECT pair_set FROM pairs LIMIT 1"))
    rows = stage_reports.examples(wheel.store, pairs, judging.key_of(wheel.config.judge).key)
    assert 1 <= len(rows) <= 3
    assert len({row["prompt_id"] for row in rows}) == len(rows)
    assert any(row["parent"] is not None and row["critiques"] for row in rows)
    text = "\n\n".join(example_parts(wheel.store, pairs, judging.key_of(wheel.config.judge).key))
    outside = re.sub(r"(?ms)^(`{3,})text\n.*?^\1$", "", text)
    assert rows[0]["chosen"] not in outside
    assert HOSTILE not in outside


def test_a_cached_stage_gets_no_artifact(seen: Seen, wheel: Ran) -> None:
    from tasks.artifacts import publish_stage

    run = Run(run_id=wheel.run_id, store_id=wheel.store.store_id, config=wheel.config)
    publish_stage("ingest", None, {"run": run})  # type: ignore[arg-type]
    assert len(seen.markdown("ingest")) == 1, "outside of a task run nothing is published either"
