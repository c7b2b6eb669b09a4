"""What a home holds that nothing needs, and its removal: by hand or on a schedule, never by a run itself.

What may be in use stays: all of it while a run is under way, what another process has locked, what was written this hour.
"""

import fcntl
import re
import time
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path

from flows.homes import open_home
from rlrf.backends.weights import is_whole
from rlrf.config import load_config
from rlrf.files import GOING, changed_at, remove_whole, size_of
from rlrf.retention import Retention
from storage import retaining, runs
from storage.invalidating import ASIDE
from storage.store import Store

HOUR, DAY = 3600.0, 86_400.0
WORK = ".work"
_OURS = re.compile(r"-(?P<key>[0-9a-f]{8})(?P<aside>\.(?:invalidated|damaged)-\d+)?$")
"""How the stages that make models name their folders: after the start of their key."""


@dataclass(frozen=True)
class Litter:
    """A file or folder that nothing needs: why, its size in bytes, and the policy that it holds, if any."""

    path: Path
    why: str
    size: int
    policy_id: str | None = None


@dataclass(frozen=True)
class Found:
    """What would go, and why some of it was not looked at."""

    store: Store
    litter: list[Litter] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def home_of(place: Path) -> tuple[Store, Retention]:
    """The store and what is to be kept, of a run's TOML file or of a home, whose latest run says it. Raises RlrfError."""
    if place.suffix == ".toml":
        config = load_config(place)
        return open_home(config.home), config.retention
    store = open_home(place)
    return store, Retention.model_validate(retaining.latest_retention(store))


def look(store: Store, retention: Retention) -> Found:
    """What could go; changes nothing."""
    home, now = store.path.parent.resolve(), time.time()
    found = [*_copies(home, now - retention.copies_days * DAY)]
    busy = [*runs.live_runs(store), *retaining.maybe_live(store)]
    notes = [
        f"run {row['run_id'][:8]} of {row['name']!r} (PID {row['pid']} on {row['host']}) is under way: only copies were "
        "looked at, all else may be in use"
        for row in busy
    ]
    if not busy:
        known = retaining.known(store)
        found += _leftovers(home, now - HOUR)
        found += _trainings(home, now, retention, known)
        found += _old(
            home / "models" / "reference", "*", now - retention.logs_days * DAY, "log-probabilities of a reference"
        )
        found += _old(home / "engines", "*", now - retention.logs_days * DAY, "log of an engine")
        found += _models(home, now, retention, known)
        found += _policies(home, retention, known)
    return Found(store, [Litter(path, why, size_of(path), policy) for path, why, policy in found], notes)


def remove(found: Found) -> Found:
    """Remove what was found; the store is told first which policies lose their folders. May be killed and repeated."""
    policies = [one.policy_id for one in found.litter if one.policy_id]
    if policies:
        retaining.forget_folders(found.store, policies)
    for one in found.litter:
        remove_whole(one.path)
    return found


_Find = tuple[Path, str, str | None]
"""A path, why it goes, and the policy in it."""


def _old(folder: Path, pattern: str, before: float, what: str) -> Iterator[_Find]:
    for path in sorted(folder.glob(pattern)):
        if changed_at(path) < before:
            yield path, f"{what}, older than is kept", None


def _copies(home: Path, before: float) -> Iterator[_Find]:
    yield from _old(home / "backups", "*.duckdb", before, "copy of the store")
    yield from _old(home, "store.v*.backup.duckdb", before, "copy of the store before its migration")


def _leftovers(home: Path, before: float) -> Iterator[_Find]:
    """Half-written files and folders: everything is written under another name before it gets its own."""
    folders = [home, *(one for one in sorted(home.iterdir()) if one.is_dir() and not one.is_symlink())]
    for folder in folders:
        hidden = ".*" if folder.name == "models" and folder.parent == home else f"{GOING}*"
        for path in sorted({*folder.glob("*.partial"), *folder.glob("*.part"), *folder.glob(hidden)}):
            if changed_at(path) < before:
                yield path, "half written, or half removed, by a process that was killed", None


def _trainings(home: Path, now: float, retention: Retention, known: retaining.Known) -> Iterator[_Find]:
    """Folders of work: `training/KEY` holds the data, `models/NAME-START_OF_KEY.work` the checkpoints and the log."""
    finished, stages = {key[:8] for key in known.finished}, {key[:8] for key in known.stages}
    work = [(one, one.name[:8]) for one in sorted((home / "training").glob("[!.]*"))]
    work += [(one, one.name.partition(WORK)[0][-8:]) for one in sorted((home / "models").glob(f"[!.]*{WORK}*"))]
    for folder, key in work:
        changed = changed_at(folder)
        if not folder.is_dir() or folder.is_symlink() or _is_locked(folder):
            continue
        if ASIDE in folder.name:
            if changed < now - retention.copies_days * DAY:
                yield folder, "work of a training that was invalidated, older than is kept", None
        elif key in finished:
            if changed < now - retention.logs_days * DAY:
                yield folder, "logs and data of a finished training, older than is kept", None
            else:
                yield from ((path, "checkpoints of a finished training", None) for path in _checkpoints(folder))
        elif key not in stages and changed < now - HOUR:
            yield folder, "work of a training that this store doesn't know", None
        elif changed < now - retention.checkpoints_days * DAY:
            yield folder, "checkpoints of a training without an end, older than is kept", None


def _checkpoints(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.is_dir() and path.name != "tensorboard")


def _is_locked(folder: Path) -> bool:
    """Whether a process trains here: it holds a lock that ends with it."""
    with ExitStack() as files:
        for path in folder.glob("*.lock"):
            with suppress(FileNotFoundError):
                file = files.enter_context(path.open("rb"))
                try:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    return True
    return False


def _models(home: Path, now: float, retention: Retention, known: retaining.Known) -> Iterator[_Find]:
    """Model folders that a stage made and no policy is in; by name, for a home may have been moved."""
    named = {Path(row["folder"]).name for row in known.policies}
    waiting = {key[:8] for key in known.stages - known.finished}  # made, and its receipt not yet written
    for folder in sorted((home / "models").glob("[!.]*")):
        ours = _OURS.search(folder.name)
        if ours is None or folder.is_symlink() or folder.name in named or folder.name in known.configs:
            continue
        whole, changed = is_whole(folder), changed_at(folder)
        if ours["aside"]:
            if changed < now - retention.copies_days * DAY:
                yield folder, "model that was set aside and is of no policy, older than is kept", None
        elif changed < now - HOUR and not (whole and ours["key"] in waiting):
            yield folder, "model of no policy in the store" if whole else "half-written model", None


def _policies(home: Path, retention: Retention, known: retaining.Known) -> Iterator[_Find]:
    """The oldest of the trained policies that were never in office, beyond as many as are kept."""
    if retention.policies is None:
        return
    candidates = [
        row
        for row in known.policies
        if row["kind"] in ("trained", "control")
        and row["policy_id"] not in known.champions
        and Path(row["folder"]).resolve().parent == home / "models"
        and Path(row["folder"]).is_dir()
    ]
    for row in candidates[retention.policies :]:
        yield (
            Path(row["folder"]),
            f"policy {row['name']!r}, never champion, beyond retention.policies",
            row["policy_id"],
        )
