from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from storage.store import Store, open_store


@pytest.fixture(scope="session")
def empty_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A new store's file; copying it takes a tenth of the time of making another."""
    return open_store(tmp_path_factory.mktemp("empty") / "store.duckdb").path


@pytest.fixture
def store(tmp_path: Path, empty_file: Path) -> Store:
    """An empty store of the test's own."""
    path = tmp_path / "store.duckdb"
    shutil.copy(empty_file, path)
    return Store(path)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", folder], capture_output=True)
    if mounted.returncode:
        pytest.skip("only root may mount a small disk")
    yield folder
    subprocess.run(["umount", folder], check=True)
