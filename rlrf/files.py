"""Files and folders as housekeeping sees them: how large, how old, and gone at once."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

GOING = ".going."
"""Before the name of a folder that is being removed: what a kill leaves is never taken for the whole."""


def size_of(path: Path) -> int:
    """Bytes of a file, or of all files of a folder; links count as themselves."""
    return sum(stat.st_size for stat in _stats(path))


def changed_at(path: Path) -> float:
    """When a file, or anything in a folder, was last written, in seconds since the epoch."""
    return max((stat.st_mtime for stat in _stats(path)), default=0.0)


def remove_whole(path: Path) -> None:
    """Remove a file, a link or a folder; a folder's name is gone before anything in it is."""
    if path.is_dir() and not path.is_symlink():
        going = path if path.name.startswith(GOING) else path.with_name(GOING + path.name)
        if going != path:
            path.rename(going)
        shutil.rmtree(going)
    else:
        path.unlink(missing_ok=True)


def _stats(path: Path) -> Iterator[os.stat_result]:
    with suppress(FileNotFoundError):
        yield path.lstat()
        if path.is_dir() and not path.is_symlink():
            for one in path.rglob("*"):
                with suppress(FileNotFoundError):
                    yield one.lstat()
