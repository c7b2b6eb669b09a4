"""Doing stages again on purpose: which ones a name means, what goes with them, and up to which stage a run goes."""

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path

from flows.places import PARTS, STAGES, Place, places
from rlrf.config import RunConfig
from rlrf.errors import StoreError
from storage import invalidating, runs
from storage.invalidating import ASIDE, Gone, Target
from storage.store import Store

TRAININGS = ("bootstrap", "train_policy", "train_control")
_SHORT = {"train": "train_policy", "control": "train_control"}


@dataclass(frozen=True)
class Again:
    """What is to be done again: a stage by its name or part, in some iterations (None: in all; 0 is before and after
    them), alone or `onward` with every stage after it."""

    stage: str
    iterations: range | None = None
    onward: bool = False


@dataclass(frozen=True)
class Invalidated:
    """What went, or would go: per stage, with its folders of work; and the copy of the store that was made before."""

    gone: list[tuple[Place, Gone]]
    folders: dict[Path, Path] = field(default_factory=dict)
    backup: Path | None = None

    @property
    def any(self) -> bool:
        """Whether there is anything."""
        return bool(self.folders) or any(one.rows for _, one in self.gone)


def stage_named(text: str) -> str:
    """The stage, or part of one, that is meant. Raises ValueError with the list of all where there is none."""
    name = _SHORT.get(text, text)
    if name in (*STAGES, *PARTS):
        return name
    found = [one for one in (PARTS if ":" in name else STAGES) if name and one.startswith(name)]
    if len(found) != 1:
        raise ValueError(f"{text!r} is no stage; give one of {', '.join((*STAGES, *PARTS))}, or the start of one")
    return found[0]


def iterations_named(text: str) -> range:
    """`2` or `1-2` as a range; 0 is what comes before and after all iterations. Raises ValueError for anything else."""
    first, dash, last = text.partition("-")
    numbers = [one.strip() for one in ((first, last) if dash else (first, first))]
    if not all(one.isdecimal() and len(one) < 4 for one in numbers) or int(numbers[0]) > int(numbers[1]):
        raise ValueError(f"{text!r} is no iteration; write 2, or 1-2 for several")
    return range(int(numbers[0]), int(numbers[1]) + 1)


def chosen(found: Sequence[Place], again: Again) -> list[Place]:
    """The places that are meant, in order.

    Where a decision is made again, those of later iterations are too: the last decision's champion is in office. Raises
    StoreError where the name occurs in none of the iterations.
    """
    meant: list[Place] = []
    met = False
    for _, group in groupby(found, lambda one: (one.group, one.iteration)):
        part = list(group)
        if again.iterations is not None and part[0].iteration not in again.iterations:
            continue
        at = [number for number, one in enumerate(part) if one.is_named(again.stage)]
        met = met or bool(at)
        if again.onward and at:
            meant += part[at[0] :]
        elif again.onward and met and again.iterations is None:
            meant += part
        else:
            meant += [part[number] for number in at]
    if not met:
        raise StoreError(_no_such(found, again))
    decided = next((found.index(one) for one in meant if one.stage == "decide"), len(found))
    later = [one for one in found[decided:] if one.stage == "decide"]
    return [one for one in found if one in meant or one in later]


def count(config: RunConfig, store: Store, again: Again) -> Invalidated:
    """What `invalidate` would do; changes nothing. Raises StoreError for a stage that isn't there."""
    there = [(one, one.target) for one in chosen(places(config, store), again) if one.target]
    gone = invalidating.count(store, [target for _, target in there])
    return Invalidated(list(zip((one for one, _ in there), gone, strict=True)), _work_folders(config, there))


def invalidate(config: RunConfig, store: Store, again: Again) -> Invalidated:
    """Remove the results of these stages; may be repeated. Raises StoreError, also while a run is under way in the store."""
    live = runs.live_runs(store)
    if live:
        said = ", ".join(f"{row['run_id'][:8]} of {row['name']!r} (PID {row['pid']} on {row['host']})" for row in live)
        raise StoreError(f"store {str(store.path)!r}: run {said} works with it; wait for its end, or end it")
    there = [(one, one.target) for one in chosen(places(config, store), again) if one.target]
    gone, backup = invalidating.invalidate(store, [target for _, target in there])
    folders = _work_folders(config, there)
    for folder, aside in folders.items():
        folder.rename(aside)
        os.utime(aside)
    return Invalidated(list(zip((one for one, _ in there), gone, strict=True)), folders, backup)


def up_to(config: RunConfig, store: Store, again: Again) -> tuple[Place, str]:
    """The one stage that is to be done again, and its key. Raises StoreError unless all before it is finished."""
    found = places(config, store)
    meant = [one for one in found if one.is_named(again.stage)]
    meant = [one for one in meant if again.iterations is None or one.iteration in again.iterations]
    if not meant:
        raise StoreError(_no_such(found, again))
    if len(meant) > 1:
        said = ", ".join(map(str, meant))
        raise StoreError(f"--only {again.stage}: several stages are meant ({said}); say which, also by --iterations")
    before = found[: found.index(meant[0])]
    missing = next((one for one in before if not one.finished), None)
    if missing is not None or meant[0].target is None:
        raise StoreError(
            f"--only {again.stage}: {missing or meant[0]} comes before it and isn't finished; `rlrf plan` says why, "
            "`rlrf run` without --only does it"
        )
    return meant[0], meant[0].target.key


def _no_such(found: Sequence[Place], again: Again) -> str:
    there = sorted({one.iteration for one in found if one.is_named(again.stage)})
    said = f"it occurs in iteration {', '.join(map(str, there))}" if there else "this configuration has no such stage"
    return f"{again.stage} isn't in the iterations that were named: {said} (0: before and after all iterations)"


def _work_folders(config: RunConfig, there: Sequence[tuple[Place, Target]]) -> dict[Path, Path]:
    """Where trainings left data and checkpoints, without which they start over; and where they go."""
    keys = [target.key for _, target in there if target.stage in TRAININGS]
    found = [config.home / "training" / key for key in keys]
    found += [one for key in keys for one in sorted((config.home / "models").glob(f"[!.]*-{key[:8]}.work"))]
    folders: dict[Path, Path] = {}
    for folder in found:
        number = 1
        while (aside := folder.with_name(f"{folder.name}{ASIDE}{number}")).exists():
            number += 1
        if folder.is_dir():
            folders[folder] = aside
    return folders
