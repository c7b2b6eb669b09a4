"""Whether a store can be used, for `rlrf doctor`."""

from __future__ import annotations

import os
from pathlib import Path

from rlrf.backends.doctor import Finding
from rlrf.errors import StoreError
from storage.schema import VERSION
from storage.store import Store

WHAT = "store"


def check_store(home: Path) -> Finding:
    """The store of a run's home (or a store's own path), those one folder below, or whether one could be made there.

    Each is opened for writing, as a run does; nothing is made, changed or brought up to date.
    """
    stores = [home] if home.is_file() else [home / "store.duckdb"] if (home / "store.duckdb").exists() else []
    stores = stores or sorted(home.glob("*/store.duckdb"))
    if not stores:
        return _none_yet(home)
    findings = [_check(path) for path in stores]
    trouble = next((finding for finding in findings if finding.state != "ok"), None)
    if trouble or len(stores) == 1:
        return trouble or findings[0]
    return Finding("ok", WHAT, f"{len(stores)} in {home} can be written; this rlrf writes schema {VERSION}")


def _check(path: Path) -> Finding:
    try:
        version = _version(Store(path))
    except StoreError as error:
        return Finding("missing", WHAT, str(path), str(error), required=True)
    if version is None:
        return Finding("missing", WHAT, f"{path} is no rlrf store", "choose another `home`", required=True)
    if version > VERSION:
        said = f"{path} has schema {version}, this rlrf knows up to {VERSION}"
        return Finding("missing", WHAT, said, "upgrade rlrf, or choose another `home`", required=True)
    older = f" (brought to {VERSION} by the next run, after a backup)" if version < VERSION else ""
    return Finding("ok", WHAT, f"{path} can be written, schema {version}{older}")


def _version(store: Store) -> int | None:
    """The schema version in the file; None where it isn't a store's."""
    if not store.value("SELECT count(*) FROM duckdb_tables() WHERE table_name = 'meta'"):
        return None
    version = store.value("SELECT value FROM meta WHERE name = 'version'")
    return None if version is None else int(version)


def _none_yet(home: Path) -> Finding:
    place = next(parent for parent in (home.absolute(), *home.absolute().parents) if parent.exists())
    if place.is_dir() and os.access(place, os.W_OK | os.X_OK):
        return Finding("ok", WHAT, f"none in {home} yet; {place} can be written")
    return Finding("missing", WHAT, f"{place} can't be written", "choose another `home`, or mend it", required=True)
