"""How much room a home takes, by what it is for."""

from collections.abc import Iterable
from pathlib import Path


def home_sizes(store_path: Path) -> dict[str, int]:
    """Bytes of the store and of what lies beside it: snapshot, backups, damaged stores, models, training, logs."""
    home = store_path.parent
    kinds: dict[str, Iterable[Path]] = {
        "store": [store_path, store_path.with_name(store_path.name + ".wal")],
        "snapshot": [home / "snapshot.duckdb"],
        "backups": home.glob("*.backup.duckdb"),
        "damaged stores": home.glob("*.damaged-*"),
        "models": [home / "models"],
        "training": [home / "training"],
        "bootstrap": [home / "bootstrap"],
        "engine logs": [home / "engines"],
    }
    return {kind: sum(map(_bytes, paths)) for kind, paths in kinds.items()}


def _bytes(path: Path) -> int:
    files = path.rglob("*") if path.is_dir() else [path]
    return sum(file.lstat().st_size for file in files if file.is_file() and not file.is_symlink())
