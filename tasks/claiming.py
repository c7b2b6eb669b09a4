"""Working beside other processes on one store: each row is done by one of them, and the others say for whom they wait."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from typing import TypeVar

from storage.claims import Claimant
from tasks.progress import StageProgress

POLL_SECONDS = (0.5, 2.0)
"""How long a waiting process sleeps between looks."""

SAY_SECONDS = 30.0
"""How often it says for whom it waits; each time it also looks for rows that have come since."""

T = TypeVar("T")


class Waiting:
    """One wait for others, in as many parts as it takes."""

    def __init__(self, claimant: Claimant, progress: StageProgress) -> None:
        self._claimant, self._progress = claimant, progress
        self._started = self._said = 0.0

    def for_change(self, work: str) -> None:
        """Until someone who holds rows of this work lets go of them or is gone, SAY_SECONDS at most."""
        first: set[str] | None = None
        self._started = self._started or time.monotonic()
        began = time.monotonic()
        while holders := self._claimant.holders(work):
            owners = {one.owner for one in holders}
            first = first or owners
            if first - owners or time.monotonic() - began > SAY_SECONDS:
                return
            if not self._said or time.monotonic() - self._said > SAY_SECONDS:
                self._said = time.monotonic()
                who = "; ".join(map(str, holders))
                self._progress.say(
                    f"waiting for {who}, which does the same work; {self._said - self._started:.0f} s so far"
                )
            time.sleep(random.uniform(*POLL_SECONDS))


@contextmanager
def turn(claimant: Claimant, progress: StageProgress, key: str, finished: Callable[[], T | None]) -> Iterator[T | None]:
    """The right to do a stage, for as long as the block lasts; the value is what `finished` finds if it is done already.

    Another process that is at it is waited for; one that stops, or is gone, leaves the stage to us.
    """
    done, waiting = None, Waiting(claimant, progress)
    try:
        while True:
            with claimant.store.kept_open():
                done = finished()
                ours = claimant.take(key, [key]) if done is None else set[str]()
                done = (
                    done if done is not None else finished()
                )  # after the claim: another may have finished just before
            if ours or done is not None:
                break
            waiting.for_change(key)
        yield done
    finally:
        claimant.release(key)


def share(
    claimant: Claimant,
    progress: StageProgress,
    work: str,
    wanted: Collection[str],
    there: Callable[[set[str]], set[str]],
    do: Callable[[set[str]], None],
) -> set[str]:
    """Do the wanted rows that no other process is at, then wait for the others'; returns the rows that others did.

    `there` says which rows the store has. `do` gets each row at most once, also one that another process failed at. Nothing
    is claimed while we wait, so that no two processes wait for each other.
    """
    left, waiting, came = set(wanted), Waiting(claimant, progress), set[str]()
    while left:
        try:
            with claimant.store.kept_open():
                mine = claimant.take(work, left)
                found = there(left)  # after the claims: another may have finished just before
            mine -= found
            if mine:
                do(mine)
        finally:
            claimant.release(work)
        came |= found
        progress.found(len(found))
        left -= mine | found
        if left and not mine:
            waiting.for_change(work)
    return came
