"""Stages that are done again on purpose: what goes, what stays, and how far a run goes."""

from __future__ import annotations

import random
import shutil
import socket
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flows.places import PARTS, STAGES, Place, places
from flows.rerunning import Again, chosen, iterations_named, stage_named, up_to
from rlrf.config import RunConfig, load_config
from rlrf.errors import StoreError
from storage import invalidating, ledger, reading
from storage.store import Store, open_store
from tests import builders
from tests.builders import NEVER, Ran, rlrf

SCOPES = ("main", "held_out")
ORPHANS = {
    "{0}.members of no row": "SELECT 1 FROM {0}.members WHERE member_id NOT IN (SELECT prompt_id FROM {0}.prompts) AND member_id NOT IN (SELECT response_id FROM {0}.responses)",
    "{0}.responses of no prompt": "SELECT 1 FROM {0}.responses WHERE prompt_id NOT IN (SELECT prompt_id FROM {0}.prompts)",
    "{0}.responses of no parent": "SELECT 1 FROM {0}.responses WHERE parent_id IS NOT NULL AND parent_id NOT IN (SELECT response_id FROM {0}.responses)",
    "{0}.responses of no policy": "SELECT 1 FROM {0}.responses WHERE policy_id NOT IN (SELECT policy_id FROM policies)",
    "{0}.failures of no parent": "SELECT 1 FROM {0}.failures WHERE parent_id IS NOT NULL AND parent_id NOT IN (SELECT response_id FROM {0}.responses)",
    "{0}.judgements of no response": "SELECT 1 FROM {0}.judgements WHERE response_id NOT IN (SELECT response_id FROM {0}.responses)",
    "{0}.ratings of no judgement": "SELECT 1 FROM {0}.ratings ANTI JOIN {0}.judgements USING (response_id, judge_key)",
    "pairs of no response": "SELECT 1 FROM pairs WHERE chosen_id NOT IN (SELECT response_id FROM responses) OR rejected_id NOT IN (SELECT response_id FROM responses)",
    "offences of no audit": "SELECT 1 FROM audit_offences ANTI JOIN pair_audits USING (stage_key, measure)",
    "offences of no response": "SELECT 1 FROM audit_offences WHERE chosen_id NOT IN (SELECT response_id FROM responses) OR rejected_id NOT IN (SELECT response_id FROM responses)",
    "aspects of no evaluation": "SELECT 1 FROM evaluation_aspects ANTI JOIN evaluations USING (stage_key)",
    "metrics of no training": "SELECT 1 FROM training_metrics ANTI JOIN trainings USING (stage_key)",
    "trainings of no policy": "SELECT 1 FROM trainings WHERE policy_id NOT IN (SELECT policy_id FROM policies) OR base_id NOT IN (SELECT policy_id FROM policies)",
    "policies of a stage without training": "SELECT 1 FROM policies WHERE stage_key IS NOT NULL AND stage_key NOT IN (SELECT stage_key FROM trainings)",
    "receipts of sets that lack rows": "SELECT 1 FROM receipts r WHERE stage IN ('sample_prompts', 'explore', 'judge', 'refine', 'compare') AND rows <> (SELECT count(*) FROM members m WHERE m.set_key = r.stage_key)",
    "receipts of judgings that lack verdicts": "SELECT 1 FROM receipts r JOIN members m ON m.set_key = r.stage_key WHERE r.stage = 'judge' AND m.member_id NOT IN (SELECT response_id FROM judgements)",
    "receipts of pair sets that lack pairs": "SELECT 1 FROM receipts r WHERE stage = 'select_pairs' AND rows <> (SELECT count(*) FROM pairs p WHERE p.pair_set = r.stage_key)",
    "receipts of no audit": "SELECT 1 FROM receipts WHERE stage = 'audit_pairs' AND stage_key NOT IN (SELECT stage_key FROM pair_audits)",
    "receipts of no evaluation": "SELECT 1 FROM receipts r WHERE stage = 'evaluate' AND (stage_key NOT IN (SELECT stage_key FROM evaluations) OR rows <> (SELECT count(*) FROM held_out.members m WHERE m.set_key = r.stage_key))",
    "receipts of no training": "SELECT 1 FROM receipts WHERE stage = 'train_policy' AND stage_key NOT IN (SELECT stage_key FROM trainings)",
    "receipts of no decision": "SELECT 1 FROM receipts WHERE stage = 'decide' AND stage_key NOT IN (SELECT stage_key FROM decisions WHERE stage_key IS NOT NULL)",
    "receipts of no corpus": "SELECT 1 FROM receipts WHERE stage = 'ingest' AND stage_key NOT IN (SELECT stage_key FROM corpora)",
}
FACTS = ("runs", "iterations", "policies", "decisions", "prompts", "held_out.prompts", "keys")


@dataclass(frozen=True)
class Copy:
    """A copy of a run's home with a configuration of its own."""

    path: Path
    config: RunConfig
    store: Store

    def run(self, *options: str) -> Ran:
        return builders.run(self.path, *options)


def copied(ran: Ran, folder: Path, reply: str = "mixed", **changes: Any) -> Copy:
    """The home of a finished run as if it had been made in `folder`."""
    shutil.copytree(ran.config.home, folder / "home")
    path = builders.write_config(folder, Path(str(ran.config.policy.model)), reply, **changes)
    config = load_config(path)
    store = open_store(config.store_path)
    with store.connect() as connection:
        moved = "UPDATE policies SET folder = replace(folder, ?, ?)"
        connection.execute(moved, [str(ran.config.home), str(config.home)])
    return Copy(path, config, store)


@pytest.fixture
def turned(wheel: Ran, tmp_path: Path) -> Copy:
    """Two whole iterations."""
    return copied(wheel, tmp_path, "improving", iterations=3)


@pytest.fixture
def up_to_pairs(paired: Ran, tmp_path: Path) -> Copy:
    """A run that ended at its pairs, with a configuration under which they are enough."""
    return copied(paired, tmp_path)


def contents(store: Store) -> dict[str, list[Any]]:
    """Every row of every table as text, sorted; the store's id and who is at work aside."""
    sql = """SELECT schema_name || '.' || table_name AS name FROM duckdb_tables()
             WHERE table_name NOT IN ('meta', 'claims', 'claimants') ORDER BY name"""
    with store.connect() as connection:
        names = [row[0] for row in connection.execute(sql).fetchall()]
        return {one: sorted(map(str, connection.execute(f"FROM {one}").fetchall())) for one in names}


def lengths(store: Store) -> dict[str, int]:
    return {name.removeprefix("main."): len(found) for name, found in contents(store).items()}


def orphans(store: Store) -> list[str]:
    checks = {name.format(scope): sql.format(scope) for name, sql in ORPHANS.items() for scope in SCOPES}
    with store.connect() as connection:
        return [name for name, sql in checks.items() if connection.execute(sql).fetchone()]


def started(found: list[Place]) -> list[Place]:
    return [one for one in found if one.target]


# names


@pytest.mark.parametrize(
    ("said", "meant"),
    [
        ("select", "select_pairs"),
        ("train", "train_policy"),
        ("audit", "audit_pairs"),
        ("sample", "sample_prompts"),
        ("control", "train_control"),
        ("judge", "judge"),
        ("judge:r", "judge:refine"),
    ],
)
def test_a_stage_is_named_by_its_start(said: str, meant: str) -> None:
    assert stage_named(said) == meant


@given(st.text(max_size=12))
def test_a_stage_is_named_exactly_or_by_a_start_that_means_one(text: str) -> None:
    names = [*STAGES, *PARTS]
    try:
        assert stage_named(text) in names
    except ValueError as error:
        assert text not in names
        assert "give one of ingest, bootstrap, sample_prompts" in str(error)


@given(st.integers(0, 999), st.integers(0, 999))
def test_iterations_are_a_number_or_a_range(first: int, last: int) -> None:
    assert iterations_named(str(first)) == range(first, first + 1)
    if first <= last:
        assert iterations_named(f"{first}-{last}") == range(first, last + 1)
    else:
        with pytest.raises(ValueError, match="write 2, or 1-2"):
            iterations_named(f"{first}-{last}")


@pytest.mark.parametrize("text", ["", "-", "x", "1-", "-1", "1-2-3", "1.5", "²"])
def test_anything_else_is_no_iteration(text: str) -> None:
    with pytest.raises(ValueError, match="is no iteration"):
        iterations_named(text)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--from", "judgement"], "is no stage"),
        (["--only", "e"], "is no stage"),
        (["--from", "judge", "--only", "judge"], "not both"),
        (["--from", "judge", "--iterations", "two"], "is no iteration"),
        (["--iterations", "1-2"], "alone is a number"),
        (["--iterations", "0"], "alone is a number"),
    ],
)
def test_wrong_usage_is_told_apart(options: list[str], said: str, model: Path, tmp_path: Path) -> None:
    done = rlrf("run", builders.write_config(tmp_path, model), *options)
    assert done.code == 2
    assert said in " ".join(done.err.replace("│", " ").split())
    assert not (tmp_path / "home").exists(), "nothing was started"


# what is meant


def test_the_places_of_a_run_are_all_of_its_stages(wheel: Ran) -> None:
    found = places(wheel.config, wheel.store)
    names = [(one.iteration, one.name) for one in found if one.finished]
    each = ["sample_prompts", "explore", "judge:explore", "refine", "compare", "judge:refine", "judge:compare"]
    each += ["select_pairs", "audit_pairs", "train_policy", "evaluate", "decide"]
    assert names == [(0, "ingest"), (0, "evaluate:base"), *((n, one) for n in (1, 2) for one in each)]


@pytest.mark.parametrize(
    ("again", "first", "number"),
    [
        (Again("judge"), "judge:explore", 6),
        (Again("judge:refine", range(2, 3)), "judge:refine", 1),
        (Again("judge", onward=True), "judge:explore", 20),
        (Again("ingest", onward=True), "ingest", 26),
        (Again("train_policy", range(2, 3), onward=True), "train_policy", 3),
        (Again("evaluate", range(0, 1)), "evaluate:base", 1),
        (Again("decide", range(1, 2)), "decide", 2),
    ],
)
def test_a_name_means_a_stage_in_some_iterations_or_all_from_there(
    wheel: Ran, again: Again, first: str, number: int
) -> None:
    meant = chosen(places(wheel.config, wheel.store), again)
    assert (meant[0].name, len(meant)) == (first, number)


def test_a_stage_that_is_not_in_these_iterations_is_an_error(wheel: Ran) -> None:
    with pytest.raises(StoreError, match=r"ingest isn't in the iterations that were named: it occurs in iteration 0"):
        chosen(places(wheel.config, wheel.store), Again("ingest", range(1, 2)))


# invalidate


def test_a_dry_run_counts_what_the_real_one_removes(turned: Copy) -> None:
    before = contents(turned.store)
    dry = rlrf("invalidate", turned.path, "judge", "--from", "--dry-run")
    assert dry.code == 0, dry.err
    assert contents(turned.store) == before
    models = sorted((turned.config.home / "models").iterdir())
    found = chosen(places(turned.config, turned.store), Again("judge", onward=True))
    counted = invalidating.count(turned.store, [one.target for one in found if one.target])
    done = rlrf("invalidate", turned.path, "judge", "--from", "--yes")
    assert done.code == 0, done.err
    expected = {name: len(rows) for name, rows in before.items()}
    for gone in counted:
        for table, number in gone.rows.items():
            expected[table if "." in table else f"main.{table}"] -= 0 if table in FACTS else number
    after = contents(turned.store)
    assert {name: len(rows) for name, rows in after.items()} == expected
    said = f"{sum(sum(gone.rows.values()) for gone in counted):,} rows; to make them again took"
    assert said in dry.out
    assert said in done.out
    [backup] = (turned.config.home / "backups").iterdir()
    assert contents(Store(backup)) == before
    aside = sorted((turned.config.home / "models").iterdir())
    reference = turned.config.home / "models" / "reference"
    assert aside == sorted(
        [one.with_name(f"{one.name}.invalidated-1") for one in models if one != reference] + [reference]
    )
    assert all(
        row["folder"] in map(str, aside)
        for row in turned.store.query("SELECT folder FROM policies WHERE kind = 'trained'")
    )
    again = rlrf("invalidate", turned.path, "judge", "--from", "--yes")
    assert (again.code, contents(turned.store)) == (0, after)
    assert "Nothing to invalidate" in again.out
    assert len(list((turned.config.home / "backups").iterdir())) == 1


def test_explored_responses_are_not_what_comes_after_a_judge(turned: Copy) -> None:
    found = chosen(places(turned.config, turned.store), Again("judge", onward=True))
    before = turned.store.query("SELECT * FROM responses WHERE parent_id IS NULL ORDER BY ALL")
    invalidating.invalidate(turned.store, [one.target for one in found if one.target])
    assert turned.store.query("SELECT * FROM responses WHERE parent_id IS NULL ORDER BY ALL") == before
    assert lengths(turned.store)["responses"] == len(before) == 60


def test_no_invalidation_leaves_orphans(wheel: Ran, tmp_path: Path) -> None:
    targets = [one.target for one in places(wheel.config, wheel.store) if one.target]
    assert orphans(wheel.store) == []
    for seed in range(6):
        draw = random.Random(seed)
        path = tmp_path / str(seed) / "store.duckdb"
        path.parent.mkdir()
        shutil.copy(wheel.store.path, path)
        store, facts = Store(path), {name: lengths(wheel.store)[name] for name in FACTS}
        for target in draw.sample(targets, 4):
            invalidating.invalidate(store, [target])
            assert orphans(store) == [], f"seed {seed}, after {target.stage}"
        assert {name: lengths(store)[name] for name in FACTS} == facts


def test_without_a_terminal_it_wants_a_yes(up_to_pairs: Copy) -> None:
    before = contents(up_to_pairs.store)
    said = rlrf("invalidate", up_to_pairs.path, "explore")
    assert said.code == 2
    assert "--dry-run" in said.err
    assert contents(up_to_pairs.store) == before


def test_nothing_is_taken_from_under_a_run(up_to_pairs: Copy) -> None:
    before = contents(up_to_pairs.store)["main.responses"]
    with subprocess.Popen(["sleep", "60"]) as other:
        run = {"run_id": "0" * 32, "name": "other", "config": "{}", "status": "running", "host": socket.gethostname()}
        with up_to_pairs.store.connect() as connection:
            connection.execute(
                f"INSERT INTO runs ({', '.join(run)}, pid) VALUES (?, ?, ?, ?, ?, ?)", [*run.values(), other.pid]
            )
        said = rlrf("invalidate", up_to_pairs.path, "explore", "--yes")
        other.kill()
    assert said.code == 1
    assert f"'other' (PID {other.pid}" in said.err
    assert contents(up_to_pairs.store)["main.responses"] == before
    assert rlrf("invalidate", up_to_pairs.path, "explore", "--yes").code == 0, "that run is dead"


# rlrf run --only, --from


def test_only_touches_its_stage_and_stops_after_it(up_to_pairs: Copy) -> None:
    ran = up_to_pairs.run("--only", "select")
    assert ran.said.code == 0, ran.said.err
    assert "select_pairs of iteration 1 was done again; the stages after it are left as they were" in ran.said.out
    assert (ran.run["status"], "select_pairs is done" in ran.run["reason"]) == ("completed", True)
    assert set(ran.produced.values()) == {0}
    assert ran.made("receipts") == 1
    before = contents(ran.store)
    again = up_to_pairs.run("--only", "select_pairs", "--iterations", "1")
    assert again.said.code == 0, again.said.err
    after = contents(again.store)
    changed = {name for name in before if before[name] != after[name]}
    assert changed == {"main.receipts", "main.runs", "main.run_processes", "main.iterations", "main.starts"}, (
        "the pairs are the same ones"
    )
    assert again.made("receipts") == 1, "but made again"


def test_only_wants_everything_before_it_finished(up_to_pairs: Copy) -> None:
    said = rlrf("run", up_to_pairs.path, "--only", "train")
    assert said.code == 1
    assert "select_pairs of iteration 1 comes before it and isn't finished" in said.err
    with pytest.raises(StoreError, match="judge:explore of iteration 1, judge:refine of iteration 1"):
        up_to(up_to_pairs.config, up_to_pairs.store, Again("judge"))


def test_from_a_judge_no_explored_response_is_made_again(up_to_pairs: Copy) -> None:
    before = contents(up_to_pairs.store)
    ran = up_to_pairs.run("--from", "judge:explore", "--set", f"pairs.min_pairs={NEVER}")
    assert ran.said.code == 3, ran.said.err
    assert ran.store.value("SELECT count(*) FROM responses WHERE parent_id IS NULL AND run_id = ?", [ran.run_id]) == 0
    assert (ran.made("responses"), ran.made("judgements")) == (20, 50), "refinements, and all verdicts"
    assert set(ran.store.query("SELECT response_id FROM responses")[0]) == {"response_id"}
    ids = "SELECT response_id, text FROM responses ORDER BY ALL"
    [backup] = (up_to_pairs.config.home / "backups").iterdir()
    assert ran.store.query(ids) == Store(backup).query(ids), "the same ids and texts"
    assert len(before["main.pairs"]) == len(contents(ran.store)["main.pairs"])


def test_a_number_of_iterations_alone_changes_the_configuration(up_to_pairs: Copy) -> None:
    ran = up_to_pairs.run("--iterations", "2", "--set", f"pairs.min_pairs={NEVER}")
    assert ran.said.code == 3, ran.said.err
    assert '"iterations":2' in ran.run["config"].replace(" ", "")
    assert set(ran.produced.values()) == {0}


def test_a_training_is_done_again_and_gives_what_it_gave(turned: Copy) -> None:
    made = turned.store.query("SELECT policy_id, folder FROM policies WHERE kind = 'trained' ORDER BY policy_id")
    ran = turned.run("--only", "train_policy", "--iterations", "1")
    assert ran.said.code == 0, ran.said.err
    assert ran.produced["trainings"] == 1
    assert ran.store.query("SELECT policy_id, folder FROM policies WHERE kind = 'trained' ORDER BY policy_id") == made
    [aside] = (turned.config.home / "models").glob("wheel-????????.invalidated-1")
    assert (aside / "model.safetensors").is_file()
    assert [one.finished for one in started(places(turned.config, ran.store))] == [True] * 26, "all later ones hit"
    assert ledger.champion(ran.store) == ledger.champion(Store(next((turned.config.home / "backups").iterdir())))
    assert reading.latest_run(ran.store) == ran.run_id
