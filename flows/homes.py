"""A store that a command is given: the file, or the `home` folder of the run that made it."""

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from storage.store import Store


def open_home(home: Path) -> "Store":
    """The store at `home`. Raises StoreError where there is none; storage is imported late, with the first that needs it."""
    from rlrf.errors import StoreError
    from storage.store import open_store

    path = store_at(home)
    if not path.is_file():
        raise StoreError(f"no store at {str(path)!r}; give the `home` of a run that was started")
    return open_store(path)


def store_at(home: Path) -> Path:
    """Where the store of a home is, or would be."""
    return home / "store.duckdb" if home.is_dir() else home
