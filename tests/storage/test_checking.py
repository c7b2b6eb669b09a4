"""What `rlrf doctor` says of stores: nothing is made or changed."""

from __future__ import annotations

from pathlib import Path

import duckdb
import pytest

from storage.checking import check_store
from storage.schema import VERSION
from storage.store import open_store


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A run's home with a new store."""
    open_store(tmp_path / "demo" / "store.duckdb")
    return tmp_path / "demo"


def set_version(home: Path, version: int) -> None:
    with open_store(home / "store.duckdb").connect() as connection:
        connection.execute("UPDATE meta SET value = ? WHERE name = 'version'", [str(version)])


def test_a_store_by_its_home_and_by_its_own_path(home: Path) -> None:
    for place in (home, home / "store.duckdb"):
        found = check_store(place)
        assert (found.state, found.found) == ("ok", f"{home / 'store.duckdb'} can be written, schema {VERSION}")


def test_an_older_store_is_left_as_it_is(home: Path) -> None:
    set_version(home, VERSION - 1)
    found = check_store(home)
    assert found.state == "ok"
    assert f"schema {VERSION - 1} (brought to {VERSION} by the next run, after a backup)" in found.found
    assert f"schema {VERSION - 1} " in check_store(home).found
    assert [path.name for path in home.iterdir()] == ["store.duckdb"]


def test_a_newer_store_is_broken(home: Path) -> None:
    set_version(home, VERSION + 1)
    found = check_store(home)
    assert found.broken
    assert f"has schema {VERSION + 1}, this rlrf knows up to {VERSION}" in found.found
    assert "upgrade rlrf" in found.remedy


def test_what_is_no_store(home: Path, tmp_path: Path) -> None:
    (home / "store.duckdb").write_text("not a database at all" * 1000)
    found = check_store(home)
    assert found.broken
    assert "no DuckDB file" in found.remedy
    duckdb.connect(str(tmp_path / "other.duckdb")).close()
    found = check_store(tmp_path / "other.duckdb")
    assert found.broken
    assert "is no rlrf store" in found.found


def test_several_homes_in_a_folder(home: Path, tmp_path: Path) -> None:
    assert check_store(tmp_path).found.startswith(str(home / "store.duckdb"))
    open_store(tmp_path / "other" / "store.duckdb")
    assert check_store(tmp_path).found == f"2 in {tmp_path} can be written; this rlrf writes schema {VERSION}"
    set_version(home, VERSION + 1)
    assert check_store(tmp_path).broken


def test_no_store_yet(tmp_path: Path) -> None:
    found = check_store(tmp_path / "runs" / "new")
    assert (found.state, found.found) == ("ok", f"none in {tmp_path / 'runs' / 'new'} yet; {tmp_path} can be written")
    assert list(tmp_path.iterdir()) == []


def test_a_home_where_none_can_be(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    found = check_store(tmp_path / "file" / "home")
    assert found.broken
    assert f"{tmp_path / 'file'} can't be written" in found.found
