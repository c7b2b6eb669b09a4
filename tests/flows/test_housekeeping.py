"""What `rlrf gc` removes, and what it never touches."""

from __future__ import annotations

import fcntl
import os
import shutil
import socket
import subprocess
import time
from pathlib import Path

import pytest

from flows.housekeeping import DAY, look, remove
from flows.places import places
from rlrf.config import load_config
from rlrf.fingerprints import content_id
from rlrf.handles import Handle, Policy
from rlrf.retention import Retention
from rlrf.stages import Key
from storage import ledger, runs
from storage.ledger import Counts
from storage.store import Store, open_store
from tests import builders
from tests.builders import Ran, rlrf, write_model

RUN = content_id("test", "run")


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A home with a store, and every folder that a run makes."""
    for name in ("models", "training", "engines", "backups", "bootstrap"):
        (tmp_path / "home" / name).mkdir(parents=True)
    open_store(tmp_path / "home" / "store.duckdb")
    return tmp_path / "home"


def store_of(home: Path) -> Store:
    return open_store(home / "store.duckdb")


def old(path: Path, days: float = 31.0) -> Path:
    """Make a file or folder look as if it had been written so long ago."""
    at = time.time() - days * DAY
    for one in (*path.rglob("*"), path):
        os.utime(one, (at, at))
    return path


def file(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("something", encoding="utf-8")
    return path


def policy(home: Path, name: str, kind: str = "trained") -> Policy:
    """A policy in a folder of its own, as a stage leaves it."""
    key = content_id("test", name)
    folder = write_model(home / "models" / f"{name}-{key[:8]}")
    made = Policy(policy_id=content_id("policy", name), name=name, folder=str(folder))
    ledger.add_policy(store_of(home), made, kind, stage_key=key)
    return made


def known(home: Path, name: str, *, finished: bool) -> str:
    """The key of a training that this store knows."""
    key = content_id("test", name)
    ledger.record_keys(store_of(home), Key("train_policy", key, {"name": name}))
    if finished:
        handle = Handle(stage="train_policy", key=key, rows=1, digest=key)
        ledger.write_receipt(store_of(home), handle, Counts(), 1.0, RUN)
    return key


def gone(home: Path, **retention: float | None) -> set[str]:
    """Look, see that looking changed nothing, remove, see that exactly that is gone and that nothing is left to do."""
    settings, before = Retention(**retention), set(home.rglob("*"))  # type: ignore[arg-type]
    found = look(store_of(home), settings)
    assert set(home.rglob("*")) == before
    removed = {one.path for one in remove(found).litter}
    assert {one for one in before if one.exists()} == {
        one for one in before if not any(one == root or root in one.parents for root in removed)
    }
    assert look(store_of(home), settings).litter == []
    return {str(one.relative_to(home)) for one in removed}


def test_nothing_goes_from_an_empty_home(home: Path) -> None:
    assert gone(home) == set()


def test_what_a_killed_process_left_half_written_goes_after_an_hour(home: Path) -> None:
    for name in (
        "models/.tiny-1234.abc/config.json",
        "store.v4.backup.duckdb.partial",
        "bootstrap/prompts.jsonl.partial",
    ):
        file(home / name)
    assert gone(home) == set(), "it may be being written"
    old(home / "models", 0.1)
    old(home / "bootstrap", 0.1)
    old(home / "store.v4.backup.duckdb.partial", 0.1)
    for name in ("store.duckdb.wal", "prompts.jsonl", ".hidden/file"):
        old(file(home / name))
    (home / "store.duckdb.wal").unlink()
    assert gone(home) == {"models/.tiny-1234.abc", "store.v4.backup.duckdb.partial", "bootstrap/prompts.jsonl.partial"}


def test_trainings_keep_their_checkpoints_until_they_are_finished(home: Path) -> None:
    finished, unfinished, stale = (known(home, name, finished=name == "f") for name in "fus")
    unknown = content_id("test", "unknown")
    for key in (finished, unfinished, stale, unknown):
        file(home / "training" / key / "train.log")
        file(home / "training" / key / "identity" / "checkpoint-50" / "model.safetensors")
        file(home / "training" / key / "tensorboard" / "events")
    old(home / "training" / stale)
    assert gone(home) == {f"training/{finished}/identity", f"training/{stale}"}
    old(home / "training" / unknown, 0.1)
    old(home / "training" / finished)
    assert gone(home) == {f"training/{unknown}", f"training/{finished}"}
    assert gone(home, checkpoints_days=0) == {f"training/{unfinished}"}


def test_checkpoints_beside_the_model_go_the_same_way(home: Path) -> None:
    finished, unfinished = (known(home, name, finished=name == "f") for name in "fu")
    for key in (finished, unfinished):
        file(home / "models" / f"run-{key[:8]}.work" / "identity" / "checkpoint-50" / "model.safetensors")
    file(home / "models" / f"run-{finished[:8]}.work" / "train.log")
    old(file(home / "models" / "reference" / "a.parquet"))
    file(home / "models" / "reference" / "b.parquet")
    assert gone(home) == {f"models/run-{finished[:8]}.work/identity", "models/reference/a.parquet"}
    old(home / "models")
    kept = gone(home)
    assert kept == {f"models/run-{one[:8]}.work" for one in (finished, unfinished)} | {"models/reference/b.parquet"}


def test_a_training_that_is_locked_is_under_way(home: Path) -> None:
    folder = home / "training" / content_id("test", "unknown")
    lock = file(folder / "identity.lock")
    old(folder)
    with lock.open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        old(folder)
        assert gone(home) == set()
    assert gone(home) == {f"training/{folder.name}"}


def test_logs_and_copies_go_by_age(home: Path) -> None:
    old(file(home / "engines" / "engine-1.log"), 8)
    file(home / "engines" / "engine-2.log")
    old(file(home / "backups" / "before-invalidate-1.duckdb"), 8)
    old(file(home / "store.v3.backup.duckdb"), 8)
    assert gone(home) == set()
    assert gone(home, logs_days=7) == {"engines/engine-1.log"}
    assert gone(home, copies_days=7) == {"backups/before-invalidate-1.duckdb", "store.v3.backup.duckdb"}


def test_models_of_no_policy_go_and_what_a_stage_did_not_make_stays(home: Path) -> None:
    waiting = known(home, "waiting", finished=False)
    named = policy(home, "named")
    for name in ("lost-12345678", f"run-{waiting[:8]}", "my-own-model", "judge-0a0a0a0a"):
        old(write_model(home / "models" / name), 0.1)
    write_model(home / "models" / "new-12345678")
    half = write_model(home / "models" / "half-87654321") / "model.safetensors"
    half.write_bytes(half.read_bytes()[:-3])
    old(half.parent, 0.1)
    runs.start_run(store_of(home), RUN, "run", f'{{"judge": {{"model": "{home}/models/judge-0a0a0a0a"}}}}')
    runs.end_run(store_of(home), RUN, "completed")
    old(Path(named.folder))
    assert gone(home) == {"models/lost-12345678", "models/half-87654321"}


def test_a_home_that_was_moved_keeps_its_models(home: Path) -> None:
    old(Path(policy(home, "named").folder))
    moved = home.rename(home.with_name("moved"))
    assert gone(moved, policies=0) == set()


def test_models_that_were_set_aside_go_when_they_are_made_again_and_old(home: Path) -> None:
    old(write_model(home / "models" / "run-12345678.invalidated-1"))
    fresh = write_model(home / "models" / "run-12345678.invalidated-2")
    only = policy(home, "kept")
    aside = Path(only.folder).rename(f"{only.folder}.invalidated-1")
    ledger.add_policy(store_of(home), only.model_copy(update={"folder": str(aside)}), "trained")
    old(aside)
    half = old(write_model(home / "models" / "run-12345678.damaged-1"))
    assert gone(home) == {"models/run-12345678.invalidated-1", f"models/{half.name}"}
    assert fresh.is_dir()


def test_policies_go_beyond_as_many_as_are_kept_and_never_one_that_was_in_office(home: Path) -> None:
    base, first, second, third, fourth = (
        policy(home, name, "model" if name == "base" else "trained") for name in ("base", "a", "b", "c", "d")
    )
    store = store_of(home)
    for verdict, one in (("start", base), ("promote", first), ("promote", second)):
        ledger.decide(store, verdict, one, one, "a reason", "a test")
    assert gone(home) == set(), "all are kept unless the configuration says how many"
    identity = store.store_id
    assert gone(home, policies=1) == {f"models/{Path(third.folder).name}"}
    assert store.store_id != identity, "so that Prefect's cache hands out no policy without a folder"
    assert ledger.policy(store, third.policy_id).folder == f"{third.folder}.removed"
    assert ledger.made_policy(store, content_id("test", "c")) is None, "its training is to be done again"
    assert gone(home, policies=0) == {f"models/{Path(fourth.folder).name}"}
    assert ledger.champion_before(store) == first
    said = rlrf("promote", home, third.policy_id[:8], "--reason", "why not")
    assert (said.code, "its training is done again" in said.err) == (1, True)


@pytest.mark.parametrize("host", ["here", "elsewhere"])
def test_while_a_run_is_under_way_only_copies_go(home: Path, host: str) -> None:
    old(write_model(home / "models" / "lost-12345678"))
    old(file(home / "engines" / "engine-1.log"))
    old(file(home / "backups" / "before-invalidate-1.duckdb"))
    runs.start_run(store_of(home), RUN, "busy", "{}")
    with subprocess.Popen(["sleep", "60"]) as other:
        with store_of(home).connect() as connection:
            where = socket.gethostname() if host == "here" else "another-host"
            connection.execute("UPDATE runs SET pid = ?, host = ?", [other.pid, where])
            connection.execute("DELETE FROM run_processes")
        assert gone(home, policies=0) == {"backups/before-invalidate-1.duckdb"}
        [note] = look(store_of(home), Retention()).notes
        assert f"'busy' (PID {other.pid} on {where}) is under way" in note
        other.kill()
    runs.end_run(store_of(home), RUN, "killed")
    assert gone(home) == {"models/lost-12345678", "engines/engine-1.log"}


def test_a_link_is_never_followed(home: Path, tmp_path: Path) -> None:
    outside = write_model(tmp_path / "outside" / "lost-12345678")
    (home / "models" / "link-12345678").symlink_to(outside)
    (home / "training" / content_id("test", "unknown")).symlink_to(outside)
    (home / "models" / ".half").symlink_to(outside)
    old(outside)
    os.utime(home / "models" / ".half", (0, 0), follow_symlinks=False)
    assert gone(home) == {"models/.half"}, "the link itself"
    assert (outside / "model.safetensors").is_file()


def test_the_command_says_what_would_go_and_then_what_went(home: Path) -> None:
    path = old(file(home / "backups" / "before-invalidate-1.duckdb"))
    dry = rlrf("gc", home, "--dry-run")
    assert dry.code == 0, dry.err
    assert f"would go: {path.resolve()} (9 B): copy of the store, older than is kept" in dry.out
    assert path.exists()
    done = rlrf("gc", home)
    assert "1 removed, 9 B" in done.out
    assert not path.exists()
    assert rlrf("gc", home).out.strip() == "nothing to remove"


def test_a_home_follows_the_retention_of_its_latest_run(wheel: Ran, tmp_path: Path) -> None:
    shutil.copytree(wheel.config.home, tmp_path / "home")
    model = Path(str(wheel.config.policy.model))
    path = builders.write_config(tmp_path, model, "improving", iterations=3, retention__policies=0)
    store = open_store(tmp_path / "home" / "store.duckdb")
    with store.connect() as connection:
        moved = "UPDATE policies SET folder = replace(folder, ?, ?)"
        connection.execute(moved, [str(wheel.config.home), str(tmp_path / "home")])
    before = ledger.champion(store)
    assert rlrf("gc", tmp_path / "home").out.strip() == "nothing to remove", "that run kept all"
    said = rlrf("gc", path)
    assert said.code == 0, said.err
    assert "policy 'wheel-2', never champion, beyond retention.policies" in said.out
    assert before is not None
    assert (Path(before.folder) / "model.safetensors").is_file()
    assert rlrf("gc", path).out.strip() == "nothing to remove"
    trainings = [one for one in places(load_config(path), store) if one.stage == "train_policy"]
    assert [one.finished for one in trainings][:2] == [True, False], "what lost its folder is to be made again"
