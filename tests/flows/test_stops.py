"""Runs that end on purpose: exit code 3, the reason in the store, and nothing trained."""

from __future__ import annotations

from pathlib import Path

import pytest

from storage import audits, ledger, reading
from tests import builders
from tests.builders import NEVER, Ran
from tests.flows import replies

HOSTILE_START = r"[bold]x[/] nul \x00 \x1b[31mred\x1b[0m"


def stopped(ran: Ran, *words: str) -> None:
    """The run stopped for a reason with these words, told and stored, before any training."""
    assert ran.said.code == 3, (ran.said.out, ran.said.err)
    assert "Traceback" not in ran.said.err
    reason = ran.said.err.split("stopped: ", 1)[1].strip()
    for word in words:
        assert word in reason
    assert ran.run["status"] == "stopped"
    assert ran.run["reason"] == reason
    assert ran.run["ended_at"] is not None
    assert ran.produced["trainings"] == 0
    assert ran.store.value("SELECT count(*) FROM trainings") == 0


@pytest.mark.usefixtures("prefect_server")
class TestStops:
    """Each of these is a whole run up to its stop."""

    def test_no_positive_response(self, model: Path, tmp_path: Path) -> None:
        ran = builders.run(builders.write_config(tmp_path, model, "wrong"))
        stopped(ran, "no prompt has a positive response", "none of 10 prompts", "abler policy", "external responses")
        assert ran.made("responses") == 50
        assert ran.made("judgements") == 50
        assert ran.store.value("SELECT count(*) FROM unpaired WHERE reason = 'no_positive'") == 10

    def test_no_negative_response(self, model: Path, tmp_path: Path) -> None:
        ran = builders.run(builders.write_config(tmp_path, model, "right"))
        stopped(ran, "0 pairs from 10 prompts", "10 without a negative response")

    def test_no_two_scores(self, model: Path, tmp_path: Path) -> None:
        ran = builders.run(builders.write_config(tmp_path, model, "right", pairs__type="best_worst", refine__m=0))
        stopped(ran, "0 pairs from 10 prompts", "10 without responses of different scores")

    def test_too_few_pairs(self, paired: Ran) -> None:
        stopped(paired, "pairs.min_pairs is 10,000", "Nothing was trained")
        assert paired.store.value("SELECT count(*) FROM pairs") > 0

    def test_pairs_that_dont_keep_a_limit_of_the_audit(self, model: Path, tmp_path: Path) -> None:
        limits = {"audit__length_ratio": 1.1, "audit__label_noise": 0.2, "prompts__per_iteration": 20}
        ran = builders.run(builders.write_config(tmp_path, model, "steering", **limits))
        stopped(
            ran,
            "audit.length_ratio is 1/1.1 to 1.1, found 0.",
            "pairs.type = 'length_controlled'",
            "nothing was trained",
        )
        stopped(ran, "audit.label_noise is at most 20.0%, found -: not measured", "rlrf judge check")
        rows = [line for line in ran.said.err.splitlines() if ' | chosen "' in line]
        assert [line.split(".")[0].strip() for line in rows] == [str(at) for at in range(1, 11)]
        assert all(f'rejected "{HOSTILE_START}' in line and "tokens, rejected" in line for line in rows)
        assert "\x1b" not in ran.said.err
        pairs = ran.store.value("SELECT stage_key FROM receipts WHERE stage = 'select_pairs'")
        kept = {one.name: one for one in audits.audit_of(ran.store, pairs)}
        assert {name for name, one in kept.items() if not one.passed} == {"length_ratio", "label_noise"}
        assert len(kept["length_ratio"].offences) == 10
        assert not ran.store.value("SELECT count(*) FROM receipts WHERE stage = 'audit_pairs'")
        plan = builders.rlrf("plan", ran.path).out
        assert "started, not finished" in next(line for line in plan.splitlines() if "audit_pairs" in line)
        passing = builders.run(builders.write_config(tmp_path, model, "steering", prompts__per_iteration=20))
        assert passing.said.code == 0, passing.said.err
        assert passing.made("responses") == 0, "what the stopped run made is taken up"

    def test_too_many_failures(self, model: Path, tmp_path: Path) -> None:
        ran = builders.run(builders.write_config(tmp_path, model, "failing"))
        stopped(ran, "requests failed", "limits.failed is 5%", "server_error", "500 internal error", "run again")

    def test_failures_within_the_limit_are_counted(self, model: Path, tmp_path: Path) -> None:
        path = builders.write_config(tmp_path, model, "failing", limits__failed=0.6, pairs__min_pairs=NEVER)
        ran = builders.run(path)
        stopped(ran, "pairs.min_pairs")
        failed = ran.store.value("SELECT count(*) FROM failures WHERE parent_id IS NULL")
        assert failed > 0
        assert ran.store.value("SELECT count(*) FROM responses WHERE parent_id IS NULL") + failed == 30
        assert f"{failed} failed" in ran.said.err
        assert ran.store.value("SELECT failed FROM receipts WHERE stage = 'explore'") == failed

    def test_too_many_unrated(self, model: Path, tmp_path: Path) -> None:
        rows = [row | {"answer": ""} for row in builders.prompt_rows("prompts")]
        path = builders.write_config(tmp_path, model)
        builders.write_lines(tmp_path / "prompts.jsonl", rows)
        stopped(
            builders.run(path),
            "judge:",
            "30 of 30 responses could not be rated",
            "limits.unrated is 50%",
            "no_reference",
        )

    def test_cut_off_responses_are_no_reason_to_stop_but_enter_no_pair(self, model: Path, tmp_path: Path) -> None:
        ran = builders.run(builders.write_config(tmp_path, model, "right", explore__max_tokens=3, refine__m=0))
        stopped(ran, "without a rated, complete response")
        assert ran.store.value("SELECT count(*) FROM judgements WHERE reason = 'truncated'") == 30

    def test_prompts_used_up(self, model: Path, tmp_path: Path) -> None:
        changes = {"prompts__per_iteration": builders.PROMPTS, "gate__patience": 2, "iterations": 2}
        replies.times_asked.clear()
        ran = builders.run(builders.write_config(tmp_path, model, "improving", **changes))
        assert ran.said.code == 1, ran.said.err
        assert "2 iterations of fresh prompts leave none for the last" in ran.said.err
        assert "prompts.reuse" in ran.said.err
        assert ran.run["status"] == "failed"
        assert not reading.results(ran.store, ran.run_id), "it is said before any model is loaded"
        assert ledger.champion(ran.store) is None

    def test_an_answer_that_failed_once_does_not_wreck_the_gate(self, model: Path, tmp_path: Path) -> None:
        replies.times_asked.clear()
        path = builders.write_config(tmp_path, model, "failing_once", limits__failed=0.2)
        ran = builders.run(path)
        assert ran.said.code == 0, ran.said.err
        assert [row["verdict"] for row in reading.results(ran.store, ran.run_id)] == [None, "promote"]
