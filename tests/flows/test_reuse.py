"""What a changed configuration does again, and what it keeps."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from storage.store import Store
from tests import builders
from tests.builders import NEVER, Ran
from tests.flows import replies


def again(ran: Ran, tmp_path: Path, reply: str = "mixed", **changes: Any) -> Ran:
    """Another configuration over a copy of a run's home: the same store id, so that Prefect's hits stay valid too."""
    shutil.copytree(ran.config.home, tmp_path / "home")
    assert ran.config.policy.model is not None
    return builders.run(builders.write_config(tmp_path, Path(ran.config.policy.model), reply, **changes))


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


def test_fewer_responses_generate_nothing(paired: Ran, tmp_path: Path) -> None:
    fewer = again(paired, tmp_path, explore__n=2, refine__m=0, pairs__min_pairs=NEVER)
    assert fewer.produced == {"responses": 0, "tokens": 0, "judgements": 0, "trainings": 0}


def test_another_number_of_pairs_generates_and_judges_nothing(paired: Ran, tmp_path: Path) -> None:
    other = again(paired, tmp_path, pairs__k=1, pairs__min_pairs=NEVER)
    assert other.said.code == 3
    assert set(other.produced.values()) == {0}
    assert other.store.value("SELECT count(DISTINCT pair_set) FROM pairs") == 2


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


@pytest.mark.parametrize("change", [{"engine__batch_size": 3}, {"train__save_every": 7}, {"gate__patience": 2}])
def test_what_bears_on_no_result_changes_no_key(paired: Ran, tmp_path: Path, change: dict[str, Any]) -> None:
    other = again(paired, tmp_path, pairs__min_pairs=NEVER, **change)
    assert set(other.produced.values()) == {0}
