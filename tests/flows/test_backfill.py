"""The past anew, on a copy of a wheel that turned; each backfill twice: the second time does nothing."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from flows import backfill_dates
from flows.backfill_work import Dates
from rlrf.config import load_config
from storage import backfilling, intervals, reading
from storage.store import Store, open_store
from tests import builders
from tests.builders import Ran, Said, rlrf
from tests.flows.test_dates import nightly
from tests.flows.test_rerunning import copied

DAY = timedelta(days=1)


def by_length(
    messages: Sequence[dict[str, str]], response: str, reference: str | None, metadata: dict[str, Any]
) -> Any:
    """Another judge of the same aspect: responses of an even length are right, and it says so in a hostile way."""
    return {"answer": (1 if len(response) % 2 == 0 else -1, "<script>alert(1)</script> \x1b[31m")}


JUDGE = {"type": "python", "function": "tests.flows.test_backfill:by_length", "aspects": ["answer"]}


def with_judge(path: Path, folder: Path) -> Path:
    """The configuration with the other judge, over the same home."""
    changed = path.read_text().splitlines()
    kept = [line for line in changed if not line.startswith(("judge =", "evaluate ="))]
    other = folder / "other.toml"
    other.write_text(
        "\n".join([*kept, f"judge = {builders.toml(JUDGE)}", 'evaluate = {aspect = "answer", max_tokens = 64}\n'])
    )
    return other


def made(store: Store) -> dict[str, int]:
    run = reading.latest_run(store)
    assert run is not None
    return {name: count for name, count in reading.produced(store, run).items() if count}


def well(said: Said) -> str:
    assert said.code == 0, said.err
    return said.out


def test_another_judge_over_two_iterations_makes_no_response(wheel: Ran, tmp_path: Path) -> None:
    turned = copied(wheel, tmp_path, "improving", iterations=3)
    store, other = turned.store, with_judge(turned.path, tmp_path)
    sets = [handle for one in backfilling.iterations(store, range(1, 3)) for handle in one.responses]
    responses, ratings = (store.value(f"SELECT count(*) FROM {table}") for table in ("responses", "judgements"))
    unique = store.value(
        "SELECT count(DISTINCT member_id) FROM members WHERE set_key IN (SELECT unnest(?::UUID[]))",
        [[s.key for s in sets]],
    )
    counted = well(rlrf("backfill", "judge", other, "--iterations", "1-2", "--dry-run"))
    assert "judge explore of iteration 1" in counted
    assert store.value("SELECT count(*) FROM judgements") == ratings, "a dry run starts nothing"

    said = well(rlrf("backfill", "judge", other, "--iterations", "1-2"))
    assert store.value("SELECT count(*) FROM responses") == responses
    assert store.value("SELECT count(*) FROM judgements") == ratings + unique
    assert made(store) == {"judgements": unique}
    assert "Agreement by aspect" in said
    assert "the other way round" in said
    assert "\x1b" not in said
    status = reading.runs(store)[0]
    assert (status["status"], status["reason"]) == ("completed", f"backfill judge: {unique:,} judgements")

    again = well(rlrf("backfill", "judge", other, "--iterations", "1-2"))
    assert "made: nothing" in again
    assert made(store) == {}

    first, second = backfilling.latest_judges(store)[:2]
    differ = store.value("SELECT count(*) FROM judge_disagreements WHERE judge = ? AND other = ?", [first, second])
    by_hand = store.value(
        """SELECT count(*) FROM ratings a JOIN ratings b USING (response_id, aspect)
           WHERE a.judge_key = ? AND b.judge_key = ? AND a.level <> b.level""",
        [first, second],
    )
    assert differ == by_hand > 0
    pairs = backfilling.pairs_under(store, first)
    assert sum(sum(row[name] for name in ("agrees", "flips", "ties", "unrated")) for row in pairs) == store.value(
        "SELECT count(*) FROM pairs"
    )
    largest = backfilling.disagreements(store, first, second, 3)
    assert [row["difference"] for row in largest] == [2.0] * 3
    assert well(rlrf("backfill", "disagreements", store.path.parent, "--limit", "3")).count("other: ") == 3


def test_an_older_policy_explores_and_refines_the_prompts_of_later_iterations(wheel: Ran, tmp_path: Path) -> None:
    turned = copied(wheel, tmp_path, "improving", iterations=3)
    store = turned.store
    last = backfilling.iterations(store, range(2, 3))[0]
    base = store.value("SELECT policy_id FROM policies WHERE kind = 'model'")
    n = turned.config.explore.n
    dry = well(rlrf("backfill", "explore", turned.path, "--policy", base, "--iterations", "2", "--dry-run"))
    assert f"{n * last.prompts.rows:,}" in dry
    well(rlrf("backfill", "explore", turned.path, "--policy", base, "--iterations", "2"))
    assert made(store)["responses"] == made(store)["judgements"] == n * last.prompts.rows
    of = store.value("SELECT DISTINCT policy_id FROM responses WHERE run_id = ?", [reading.latest_run(store)])
    assert of == base
    assert "made: nothing" in well(rlrf("backfill", "explore", turned.path, "--policy", base, "--iterations", "2"))

    well(rlrf("backfill", "refine", turned.path, "--policy", base, "--iterations", "2"))
    refined = made(store)["responses"]
    assert refined > 0
    parents = store.query(
        "SELECT DISTINCT parent_id IS NOT NULL AS child FROM responses WHERE run_id = ?", [reading.latest_run(store)]
    )
    assert parents == [{"child": True}]
    assert "made: nothing" in well(rlrf("backfill", "refine", turned.path, "--policy", base, "--iterations", "2"))


def test_every_policy_takes_a_new_exam_and_one_that_is_gone_is_said(wheel: Ran, tmp_path: Path) -> None:
    turned = copied(wheel, tmp_path, "improving", iterations=3)
    store = turned.store
    there = backfilling.policies(store)
    gone = next(policy for policy, _ in reversed(there))
    Path(gone.folder).rename(tmp_path / "moved")
    new = builders.prompt_rows("prompts")[-4:]
    source = builders.source(
        builders.write_lines(tmp_path / "exam.jsonl", [row | {"question": row["question"] + " "} for row in new])
    )
    lines = turned.path.read_text().replace("held_out.jsonl", "exam.jsonl")
    path = tmp_path / "exam.toml"
    path.write_text(lines)
    builders.write_lines(tmp_path / "exam.jsonl", builders.prompt_rows("held_out")[:5])
    assert source["path"].endswith("exam.jsonl")
    dry = well(rlrf("backfill", "evaluate", path, "--dry-run"))
    assert "isn't read yet" in dry
    said = well(rlrf("backfill", "evaluate", path))
    assert f"left out: {gone.name}" in said
    taken = store.query("SELECT policy_id FROM evaluations WHERE questions = 5")
    assert {row["policy_id"] for row in taken} == {policy.policy_id for policy, _ in there} - {gone.policy_id}
    count = store.value("SELECT count(*) FROM held_out.responses")
    well(rlrf("backfill", "evaluate", path))
    assert store.value("SELECT count(*) FROM held_out.responses") == count


def test_there_is_no_past_in_a_new_home(prefect_server: str, model: Path, tmp_path: Path) -> None:
    path = builders.write_config(tmp_path, model)
    said = rlrf("backfill", "judge", path, "--dry-run")
    assert said.code == 1
    assert "has no finished iteration to go over" in said.err.replace("\n", " ")


# Dates


def store_of(tmp_path: Path, model: Path) -> tuple[Any, Store]:
    config = load_config(nightly(tmp_path, model, range(0)))
    return config, open_store(config.store_path)


def test_the_missed_dates_are_those_without_a_finished_run(model: Path, tmp_path: Path) -> None:
    config, store = store_of(tmp_path, model)
    first = datetime(2026, 11, 1, 2, tzinfo=UTC)
    for number in (1, 3):
        intervals.settle(store, config.name, first + number * DAY, None)
    intervals.finish(store, config.name, first + DAY)
    work = Dates(first=first, last=first + 4 * DAY, cron="0 2 * * *")
    assert backfill_dates.missed(config, store, work) == [first + number * DAY for number in (0, 2, 3, 4)]
    later = Dates(first=first.replace(tzinfo=None, hour=3), last=datetime(2200, 1, 1), cron="0 2 * * *")
    found = backfill_dates.missed(config, store, later)
    assert found[0] == first + 2 * DAY
    assert found[-1] <= datetime.now(UTC)


def test_three_missed_dates_are_made_up_for_once(prefect_server: str, model: Path, tmp_path: Path) -> None:
    config, store = store_of(tmp_path, model)
    options = ("--from", "2026-11-10", "--to", "2026-11-12T12:00", "--cron", "0 2 * * *")
    path = tmp_path / "run.toml"
    assert well(rlrf("backfill", "dates", path, *options, "--dry-run")).count("run of 2026-11-1") == 3
    well(rlrf("backfill", "dates", path, *options, "--at-most", "2"))
    assert len(intervals.finished(store, config.name)) == 2
    assert "completed" in well(rlrf("backfill", "dates", path, *options))
    assert len(intervals.finished(store, config.name)) == 3
    runs = len(reading.runs(store))
    assert "made: nothing" in well(rlrf("backfill", "dates", path, *options))
    assert len(reading.runs(store)) == runs == 3


def test_a_schedule_that_is_none_is_refused() -> None:
    with pytest.raises(ValidationError, match="is no schedule"):
        Dates(first=datetime(2026, 11, 1), cron="every night")


def test_the_form_offers_every_kind_of_work() -> None:
    from flows.backfill import backfill

    schema = json.dumps(backfill.parameters.model_dump())
    for kind in ("judge", "explore", "refine", "evaluate", "dates"):
        assert f'"const": "{kind}"' in schema
