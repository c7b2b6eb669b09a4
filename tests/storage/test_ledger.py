from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from rlrf.errors import StoreError
from rlrf.handles import Corpus, Decision, Handle, Outcome, Policy, Trained
from rlrf.ingesting import DroppedPrompt, Material
from storage import corpora, ledger, reading, runs
from storage.ledger import Counts
from storage.store import Store
from tests.builders import write_model
from tests.storage.builders import RUN, evaluation, policy, uid

HANDLE = Handle(stage="explore", key=uid("stage"), rows=12, digest=uid("digest"))


def test_a_receipt_comes_back_as_the_handle_and_is_written_once(store: Store) -> None:
    assert ledger.receipt(store, HANDLE.key) is None
    ledger.write_receipt(store, HANDLE, Counts(kept=2, produced=9, failed=1, tokens=70), 1.5, RUN)
    ledger.write_receipt(store, HANDLE.model_copy(update={"rows": 0}), Counts(), 0.0, uid("another run"))
    assert ledger.receipt(store, HANDLE.key) == HANDLE
    row = store.query("SELECT kept, produced, failed, tokens, seconds, run_id FROM receipts")
    assert row == [{"kept": 2, "produced": 9, "failed": 1, "tokens": 70, "seconds": 1.5, "run_id": RUN}]


def test_runs_tell_how_they_ended_and_which_was_killed(store: Store) -> None:
    assert reading.latest_run(store) is None
    for name in ("first", "second"):
        runs.start_run(store, uid(name), "demo", '{"seed": 1}')
    runs.start_run(store, uid("other"), "other", "{}")
    assert reading.latest_run(store) == uid("other")
    assert reading.latest_run(store, "demo") == uid("second")
    runs.end_run(store, uid("second"), "stopped", "nothing to learn from")
    assert runs.mark_killed(store, "demo") == [], "its process is this one, which lives"
    gone = subprocess.Popen(["true"])
    gone.wait()
    with store.connect() as connection:
        connection.execute("UPDATE runs SET pid = ? WHERE name = 'demo'", [gone.pid])
    assert runs.mark_killed(store, "demo") == [uid("first")], "the other one ended by itself"
    assert runs.mark_killed(store, "demo") == []
    assert reading.runs(store)[2]["status"] == "killed"
    newest = reading.runs(store)[1]
    assert (newest["status"], newest["reason"]) == ("stopped", "nothing to learn from")
    assert newest["ended_at"] >= newest["started_at"]
    assert [row["run_id"] for row in reading.runs(store, limit=1)] == [uid("other")]


def test_a_policy_keeps_its_origin_and_takes_its_new_folder(store: Store, tmp_path: Path) -> None:
    made = policy("made")
    ledger.add_policy(store, made, "trained", uid("base"), uid("stage"))
    moved = made.model_copy(update={"folder": str(write_model(tmp_path / "elsewhere"))})
    ledger.add_policy(store, moved, "model")
    assert ledger.policy(store, made.policy_id) == ledger.made_policy(store, uid("stage")) == moved
    assert store.query("SELECT kind, parent_id FROM policies") == [{"kind": "trained", "parent_id": uid("base")}]
    assert ledger.made_policy(store, uid("no stage")) is None


def test_a_policy_whose_folder_is_gone_or_cut_off_was_not_made(store: Store, tmp_path: Path) -> None:
    base = policy("base")
    made = policy("made").model_copy(update={"folder": str(write_model(tmp_path / "made"))})
    ledger.add_policy(store, base, "model")
    ledger.add_policy(store, made, "trained", base.policy_id, uid("stage"))
    trained = Trained(policy=made, base=base, key=uid("stage"), steps=2)
    record = {"pair_set": uid("pairs"), "spec": {}, "rows": 4, "excluded": {}}
    ledger.add_training(store, trained, record, [], 1.0)
    assert ledger.made_policy(store, uid("stage")) == made
    assert ledger.training(store, uid("stage")) == trained
    weights = tmp_path / "made" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1])
    assert ledger.made_policy(store, uid("stage")) is ledger.training(store, uid("stage")) is None
    ledger.forget_stage(store, uid("stage"))
    assert (
        store.query("SELECT stage_key FROM policies WHERE stage_key IS NOT NULL") == store.query("FROM trainings") == []
    )
    ledger.add_policy(store, made, "trained", base.policy_id, uid("stage"))
    assert store.value("SELECT stage_key FROM policies WHERE policy_id = ?", [made.policy_id]) == uid("stage")


def test_another_policy_in_the_same_folder_takes_the_place_of_the_one_before(store: Store) -> None:
    first, second = policy("first"), policy("second").model_copy(update={"folder": policy("first").folder})
    for one in (first, second, second):
        ledger.add_policy(store, one, "trained")
    assert ledger.policy(store, second.policy_id) == second
    assert ledger.policy(store, first.policy_id).folder == f"{first.folder}.replaced"
    for name in ("ours", "theirs"):
        ledger.add_policy(store, policy(name).model_copy(update={"folder": ""}), "external")
    assert ledger.policy(store, uid("ours")).folder == "", "those that are served elsewhere have no folder"


def test_an_unknown_policy_is_an_error_that_says_where_to_look(store: Store) -> None:
    with pytest.raises(StoreError, match=f"{uid('nobody')}.*SELECT \\* FROM policies"):
        ledger.policy(store, uid("nobody"))


def test_policies_are_found_by_the_start_of_their_id_external_ones_aside(store: Store) -> None:
    ledger.add_policy(store, policy("ours"), "model")
    ledger.add_policy(store, policy("theirs"), "external")
    assert ledger.policies_like(store, uid("ours")[:6]) == [uid("ours")]
    assert ledger.policies_like(store, uid("theirs")[:6]) == []
    assert ledger.policies_like(store, "%") == []


def test_a_training_comes_back_with_both_policies_and_its_curve(store: Store, tmp_path: Path) -> None:
    base, made = policy("base"), policy("made").model_copy(update={"folder": str(write_model(tmp_path / "made"))})
    trained = Trained(policy=made, base=base, key=uid("training"), steps=2)
    assert ledger.training(store, trained.key) is None
    for one in (base, made):
        ledger.add_policy(store, one, "model")
    record = {"pair_set": uid("pairs"), "spec": {"method": "dpo"}, "rows": 40, "excluded": {"too long": 2}}
    metrics = [{"step": 1, "loss": 0.69, "margin": 0}, {"step": 2, "loss": 0.5}]
    for _ in range(2):
        ledger.add_training(store, trained, record, metrics, 3.5)
    assert ledger.training(store, trained.key) == trained
    curve = store.query("SELECT step, name, value FROM training_metrics ORDER BY step, name")
    assert [tuple(row.values()) for row in curve] == [(1, "loss", 0.69), (1, "margin", 0.0), (2, "loss", 0.5)]
    row = store.query("SELECT spec, excluded, rows FROM trainings")[0]
    assert (json.loads(row["spec"]), json.loads(row["excluded"]), row["rows"]) == (
        {"method": "dpo"},
        {"too long": 2},
        40,
    )


def test_an_evaluation_comes_back(store: Store) -> None:
    given = evaluation("evaluation", policy("base"))
    assert ledger.evaluation(store, given.key) is None
    ledger.add_policy(store, given.policy, "model")
    means = [{"aspect": "answer", "place": 0, "mean": 0.5, "low": 0.0, "high": 1.0, "rated": 3}]
    for _ in range(2):
        ledger.add_evaluation(store, given, 1, means)
    assert ledger.evaluation(store, given.key) == given
    assert store.query("SELECT unrated FROM evaluations") == [{"unrated": 1}]
    assert store.query("SELECT aspect, mean, rated FROM evaluation_aspects") == [
        {"aspect": "answer", "mean": 0.5, "rated": 3}
    ]


A, B, C = policy("A"), policy("B"), policy("C")


def decide_all(store: Store, *steps: tuple[str, Policy, Policy]) -> None:
    for one in (A, B, C):
        ledger.add_policy(store, one, "model")
    for verdict, about, champion in steps:
        ledger.decide(store, verdict, about, champion, f"{verdict} {about.name}", "a test")


def roll_back(store: Store) -> None:
    now, before = ledger.champion(store), ledger.champion_before(store)
    assert now is not None
    assert before is not None
    ledger.decide(store, "rollback", now, before, "it got worse", "a test")


def test_a_store_that_decided_nothing_has_no_champion(store: Store) -> None:
    assert ledger.champion(store) is None
    assert ledger.champion_before(store) is None


@pytest.mark.parametrize(
    ("steps", "now", "before"),
    [
        ([("start", A, A)], A, None),
        ([("start", A, A), ("keep", B, A)], A, None),
        ([("start", A, A), ("promote", B, B)], B, A),
        ([("start", A, A), ("promote", B, B), ("keep", C, B)], B, A),
        ([("start", A, A), ("promote", B, B), ("promote", C, C)], C, B),
        ([("start", A, A), ("promote", B, B), ("promote", A, A)], A, B),
        ([("start", A, A), ("promote", B, B), ("promote", B, B)], B, A),
        ([("start", A, A), ("promote", B, B), ("rollback", B, A), ("keep", C, A)], A, None),
        ([("start", A, A), ("promote", B, B), ("rollback", B, A), ("promote", C, C)], C, A),
    ],
    ids=lambda value: (
        " ".join(f"{verdict} {about.name}" for verdict, about, _ in value) if isinstance(value, list) else ""
    ),
)
def test_the_champion_and_the_one_before(
    store: Store, steps: list[tuple[str, Policy, Policy]], now: Policy, before: Policy | None
) -> None:
    decide_all(store, *steps)
    assert (ledger.champion(store), ledger.champion_before(store)) == (now, before)


def test_two_rollbacks_in_a_row_go_two_champions_back(store: Store) -> None:
    decide_all(store, ("start", A, A), ("promote", B, B), ("keep", A, B), ("promote", C, C))
    roll_back(store)
    assert (ledger.champion(store), ledger.champion_before(store)) == (B, A)
    ledger.decide(store, "keep", C, B, "no gain", "gate")
    roll_back(store)
    assert (ledger.champion(store), ledger.champion_before(store)) == (A, None)


def test_a_stage_decides_once_and_people_as_often_as_they_like(store: Store) -> None:
    decide_all(store, ("start", A, A))
    for champion in (B, C):
        evidence: dict[str, float | str] = {
            "stage_key": uid("decide"),
            "gain": 0.1,
            "low": 0.02,
            "high": 0.18,
            "length_ratio": 1.1,
            "iteration": 1,
        }
        ledger.decide(store, "promote", champion, champion, "a gain", "gate", **evidence)
    assert ledger.decision(store, uid("decide")) == Decision(
        key=uid("decide"), verdict="promote", champion=B, reason="a gain"
    )
    assert ledger.champion(store) == B
    assert ledger.decision(store, uid("another stage")) is None
    for _ in range(2):
        ledger.decide(store, "promote", C, C, "by hand", "somebody")
    assert store.value("SELECT count(*) FROM decisions") == 4


def test_an_iteration_adds_up_the_seconds_of_its_stages(store: Store) -> None:
    for seconds, stage in enumerate(("explore", "judge", "elsewhere"), 1):
        ledger.write_receipt(store, HANDLE.model_copy(update={"key": uid(stage)}), Counts(), float(seconds), RUN)
    stages = {"explore": uid("explore"), "judge": uid("judge"), "refine": uid("never ran")}
    outcome = Outcome(iteration=1, base=A, evaluation=evaluation("e", B), steps=3, stages=stages)
    for _ in range(2):
        ledger.add_iteration(store, RUN, "policy", outcome, uid("judge"))
    row = store.query("SELECT seconds, responses_key, pair_set, stage_keys, base_id FROM iterations")
    assert json.loads(row[0].pop("stage_keys")) == stages
    assert row == [{"seconds": 3.0, "responses_key": uid("explore"), "pair_set": None, "base_id": A.policy_id}]


def test_the_first_evaluation_has_no_base_and_no_stages(store: Store) -> None:
    outcome = Outcome(iteration=0, base=None, evaluation=evaluation("e", B), steps=0, stages={})
    ledger.add_iteration(store, RUN, "base", outcome, uid("judge"))
    assert store.query("SELECT seconds, base_id FROM iterations") == [{"seconds": 0.0, "base_id": None}]


def test_a_corpus_comes_back_and_what_was_dropped_is_listed_once(store: Store) -> None:
    parts = {
        name: Handle(stage=name, key=uid(name), rows=3, digest=uid("d")) for name in ("prompts", "held_out", "external")
    }
    given = Corpus(**parts)
    dropped = (
        DroppedPrompt("file", 7, uid("p"), "exact duplicate in train"),
        DroppedPrompt("file", 8, uid("q"), "near duplicate held out", uid("p"), 0.93),
    )
    assert corpora.corpus(store, uid("ingest")) is None
    for _ in range(2):
        corpora.add_dropped(store, Material((), (), (), dropped))
        corpora.add_corpus(store, uid("ingest"), given)
    assert corpora.corpus(store, uid("ingest")) == given
    found = store.query('SELECT "row", reason, duplicate_of, similarity FROM dropped_prompts ORDER BY "row"')
    assert [tuple(one.values()) for one in found] == [
        (7, "exact duplicate in train", None, None),
        (8, "near duplicate held out", uid("p"), 0.93),
    ]
