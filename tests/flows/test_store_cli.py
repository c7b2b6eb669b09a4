"""`rlrf snapshot`, `rlrf restore` and the sizes that `rlrf status` shows."""

from __future__ import annotations

import shutil
from pathlib import Path

from storage.store import Store, open_store, snapshot_path
from tests.builders import Ran
from tests.flows.test_cli import rlrf


def test_a_run_leaves_a_snapshot_of_its_end(wheel: Ran) -> None:
    snapshot = open_store(shutil.copy(snapshot_path(wheel.store.path), wheel.config.home / "copy.duckdb"))
    assert snapshot.query("SELECT run_id, status FROM runs") == wheel.store.query("SELECT run_id, status FROM runs")
    assert snapshot.value("SELECT count(*) FROM receipts") == wheel.store.value("SELECT count(*) FROM receipts")
    snapshot.path.unlink()


def test_status_says_how_large_everything_is_and_what_the_audit_found(wheel: Ran) -> None:
    said = rlrf("status", wheel.config.home)
    assert said.code == 0, said.err
    for words in ("MB", "snapshot ", "models ", "training ", "Audit of the pairs"):
        assert words in said.out


def test_a_damaged_store_is_told_with_its_way_back(tmp_path: Path) -> None:
    store = open_store(tmp_path / "store.duckdb")
    first = rlrf("snapshot", tmp_path)
    assert first.code == 0, first.err
    assert "snapshot.duckdb: 2 rows" in first.out
    assert "the first one" in first.out
    assert "the one before was" in rlrf("snapshot", tmp_path).out
    assert rlrf("restore", tmp_path).code == 1
    store.path.write_bytes(b"damaged" * 1000)
    broken = rlrf("status", tmp_path)
    assert broken.code == 1
    assert f"`rlrf restore {tmp_path}` puts it in the store's place" in broken.err
    mended = rlrf("restore", tmp_path)
    assert mended.code == 0, mended.err
    assert "store.damaged-1.duckdb" in mended.out
    assert "the next run makes them again" in mended.out
    assert Store(store.path).value("SELECT count(*) FROM runs") == 0
