"""What a changed configuration does again, and what it keeps."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from storage.store import Store
from tests import builders
from tests.builders import NEVER, Ran
from tests.flows import replies
from tests.flows.reuse_rows import HEAD, ROWS, Measured, measure
from tests.flows.stagewise import small, turn

DOCS = Path(__file__).parents[2] / "docs" / "resume.md"
START, END = "<!-- reuse table -->", "<!-- /reuse table -->"
RENEW = "RLRF_RENEW_TABLES"


def again(ran: Ran, tmp_path: Path, reply: str = "mixed", **changes: Any) -> Ran:
    """Another configuration over a copy of a run's home: the same store id, so that Prefect's hits stay valid too."""
    shutil.copytree(ran.config.home, tmp_path / "home")
    assert ran.config.policy.model is not None
    return builders.run(builders.write_config(tmp_path, Path(ran.config.policy.model), reply, **changes))


def everything(store: Store) -> set[tuple[Any, ...]]:
    """Texts and ratings of both splits."""
    found: set[tuple[Any, ...]] = set()
    for scope in ("main", "held_out"):
        for table, columns in (
            ("responses", "response_id, text"),
            ("ratings", "response_id, judge_key, aspect, rating"),
        ):
            found |= {tuple(row.values()) for row in store.query(f"SELECT {columns} FROM {scope}.{table}")}
    return found


def explored(store: Store) -> dict[str, tuple[str, str]]:
    """Text and run of every response that is no refinement, by id."""
    rows = store.query("SELECT response_id, text, run_id FROM responses WHERE parent_id IS NULL")
    return {row["response_id"]: (row["text"], row["run_id"]) for row in rows}


def test_more_responses_keep_the_first_ones(paired: Ran, tmp_path: Path) -> None:
    before = explored(paired.store)
    more = again(paired, tmp_path, explore__n=5, refine__m=0, pairs__min_pairs=NEVER)
    after = explored(more.store)
    assert len(before) == 30
    assert len(after) == 50
    assert after.items() >= before.items()
    assert more.made("responses") == more.made("judgements") == 20
    assert "30 of 50 responses kept, 20 to do" in more.said.err
    assert "30 of 50 judgements kept, 20 to do" in more.said.err
    assert more.store.value("SELECT max(position) FROM responses WHERE parent_id IS NULL") == 4


def test_another_learning_rate_only_trains_and_evaluates(wheel: Ran, tmp_path: Path) -> None:
    replies.times_asked.update({one.question: 1 for one in builders.problems("held_out")})
    other = again(wheel, tmp_path, "improving", train__learning_rate=5e-5)
    assert other.said.code == 0, other.said.err
    assert other.made("responses") == other.made("judgements") == 0
    assert other.produced["trainings"] == 1
    assert other.made("held_out.responses") == builders.HELD_OUT
    assert other.store.value("SELECT count(DISTINCT pair_set) FROM pairs") == 2, "those of the two first iterations"


def test_a_new_store_makes_prefects_hits_invalid(paired: Ran, model: Path, tmp_path: Path) -> None:
    fresh = builders.run(builders.write_config(tmp_path, model, pairs__min_pairs=NEVER))
    assert fresh.produced == paired.produced
    assert fresh.produced["responses"] == 60
    assert {key: text for key, (text, _) in explored(fresh.store).items()} == {
        key: text for key, (text, _) in explored(paired.store).items()
    }


def test_what_bears_on_no_result_changes_no_key(paired: Ran, tmp_path: Path) -> None:
    changes = {"engine__batch_size": 3, "train__save_every": 7, "gate__patience": 2}
    other = again(paired, tmp_path, pairs__min_pairs=NEVER, **changes)
    assert set(other.produced.values()) == {0}


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Measured]:
    """A row of the table by its name, measured once, on a copy of the store of one turn."""
    before = turn(small(tmp_path_factory.mktemp("reuse")))
    return cache(lambda name: measure(ROWS[name], before, tmp_path_factory.mktemp(name)))


@pytest.mark.parametrize("name", ROWS)
def test_a_change_asks_for_what_it_bears_on_and_for_nothing_else(
    measured: Callable[[str], Measured], name: str
) -> None:
    found = measured(name)
    assert (found.asked, found.trains) == (found.row.asked, found.row.trains)
    sql = (
        f"SELECT response_id FROM responses WHERE response_id IN (SELECT unnest($ids::UUID[])) AND ({found.row.serves})"
    )
    serving = {row["response_id"] for row in found.before.store.query(sql, {"ids": found.before.rows["explored"]})}
    after = set(found.after.rows["explored"])
    assert serving == after & set(found.before.rows["explored"])
    assert len(after) == len(serving) + found.asked[0], "what serves on and what was asked for are all that there is"
    assert everything(found.after.store) >= everything(found.before.store), "no row was changed"


def test_more_tokens_let_cut_texts_go_on_where_they_were_cut(measured: Callable[[str], Measured]) -> None:
    found = measured("more_tokens")
    sql = """SELECT prompt_id, position, text, seed, finish_reason FROM responses
             WHERE parent_id IS NULL AND response_id IN (SELECT unnest($ids::UUID[]))"""
    before, after = (
        {(row["prompt_id"], row["position"]): row for row in one.store.query(sql, {"ids": one.rows["explored"]})}
        for one in (found.before, found.after)
    )
    cut = {slot: row for slot, row in before.items() if row["finish_reason"] == "length"}
    assert len(cut) == 5
    for slot, row in cut.items():
        assert after[slot]["text"].startswith(row["text"])
        assert (after[slot]["seed"], after[slot]["finish_reason"]) == (row["seed"], "stop")


def test_the_table_in_the_docs_is_what_was_measured(measured: Callable[[str], Measured]) -> None:
    table = "\n".join([HEAD, *(measured(name).line() for name in ROWS)])
    text = DOCS.read_text(encoding="utf-8")
    before, rest = text.split(f"{START}\n")
    now, after = rest.split(f"{END}\n")
    if os.environ.get(RENEW):
        DOCS.write_text(f"{before}{START}\n{table}\n{END}\n{after}", encoding="utf-8")
    else:
        assert now == f"{table}\n", f"docs/resume.md is out of date; renew it: {RENEW}=1 pytest {Path(__file__).name}"
