"""Progress of a stage, where people look: a bar in the terminal, log lines elsewhere, an artifact in the Prefect UI."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from uuid import UUID

from prefect.artifacts import create_progress_artifact, update_progress_artifact
from prefect.context import TaskRunContext
from prefect.logging import get_run_logger
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from rlrf.terminal import visible
from storage.ledger import Counts
from storage.waiting import say_with
from tasks.outbox import is_watched, outbox

console = Console(stderr=True, highlight=False)

LOG_SECONDS = 10.0
ARTIFACT_SECONDS = 5.0


@dataclass
class StageProgress:
    """Counts one stage's rows. `begin` says what is kept, `advance` counts what gets done."""

    stage: str
    kept: int = 0
    produced: int = 0
    failed: int = 0
    tokens: int = 0
    total: int = 0
    unit: str = "rows"
    _clock: tuple[float, int] | None = None
    _bar: Progress | None = None
    _bar_id: TaskID | None = None
    _artifact: UUID | None = None
    _logged: float = field(default_factory=time.monotonic)
    _pushed: float = 0.0
    _ended: bool = False

    def begin(self, total: int, kept: int, unit: str = "rows") -> None:
        """Say how many of the stage's rows are already there."""
        self.total, self.kept, self.unit = total, kept, unit
        if 0 < kept < total:
            self.say(f"{kept:,} of {total:,} {unit} kept, {total - kept:,} to do")
        if console.is_terminal:
            self._bar = Progress(
                TextColumn("  {task.description:<14}"),
                BarColumn(),
                MofNCompleteColumn(),
                TextColumn("{task.fields[rate]}"),
                TimeRemainingColumn(),
                console=console,
                transient=True,
            )
            self._bar_id = self._bar.add_task(self.stage, total=total, completed=kept, rate="")
            self._bar.start()

    def advance(self, produced: int, failed: int = 0, tokens: int = 0) -> None:
        """Count a micro-batch that is now durable."""
        self.produced, self.failed, self.tokens = self.produced + produced, self.failed + failed, self.tokens + tokens
        now, done, rate = time.monotonic(), self.done, self._rate()
        shown = f"{rate:,.1f} {self.unit}/s" if rate else ""
        if self._bar is not None and self._bar_id is not None:
            self._bar.update(self._bar_id, completed=done, rate=shown)
        elif rate and done < self.total and now - self._logged > LOG_SECONDS:
            self._logged = now
            self.say(f"{done:,} of {self.total:,}, {shown}, {_duration((self.total - done) / rate)} left")
        if now - self._pushed > ARTIFACT_SECONDS:
            self._push(f"{done:,} of {self.total:,} {self.unit}{self._outlook(rate)}")

    def found(self, rows: int) -> None:
        """Count rows that another process has made meanwhile: they are kept, not produced."""
        self.kept += rows
        if self._bar is not None and self._bar_id is not None:
            self._bar.update(self._bar_id, completed=self.done)

    def end(self) -> None:
        """Take the bar away."""
        if self._bar is not None:
            self._bar.stop()
        self._bar = None
        if self._pushed and not self._ended:
            self._ended = True
            self._push(f"{self.done:,} of {self.total:,} {self.unit}, ended")

    def say(self, text: str, *, logged: bool = True) -> None:
        """One line for people, or several; also one entry in the run's log, unless Prefect logs the same by itself."""
        for line in visible(text).split("\n"):
            console.print(f"  {self.stage:<14} {line}", markup=False, soft_wrap=True)
        if logged and TaskRunContext.get() is not None:
            get_run_logger().info("%s: %s", self.stage, visible(text) if "\n" not in text else "\n" + visible(text))

    @property
    def done(self) -> int:
        """Rows that are kept, made or given up."""
        return self.kept + self.produced + self.failed

    def counts(self) -> Counts:
        """What the stage did, for its receipt."""
        return Counts(self.kept, self.produced, self.failed, self.tokens)

    def _rate(self) -> float:
        """Done per second since the first batch, which opened the model; 0 as long as that is all there is."""
        done = self.produced + self.failed
        if self._clock is None:
            self._clock = (time.monotonic(), done)
        started, before = self._clock
        return (done - before) / max(time.monotonic() - started, 1e-9)

    def _outlook(self, rate: float) -> str:
        """The rate and the time left, as far as they are known."""
        if not rate or self.done >= self.total:
            return ""
        return f", {rate:,.1f} {self.unit}/s, {_duration((self.total - self.done) / rate)} left"

    def _push(self, said: str) -> None:
        """Have the artifact of this progress made or brought up to date, where somebody can see it."""
        if TaskRunContext.get() is None or not is_watched():
            return
        self._pushed = time.monotonic()
        percent, description = min(100.0, 100.0 * self.done / max(self.total, 1)), f"{self.stage}: {said}"
        outbox.put(("progress", id(self)), lambda: self._send(percent, description))

    def _send(self, percent: float, description: str) -> None:
        if self._artifact is None:
            made = create_progress_artifact(progress=percent, description=description)
            self._artifact = made if isinstance(made, UUID) else None
        else:
            update_progress_artifact(artifact_id=self._artifact, progress=percent, description=description)


def _duration(seconds: float) -> str:
    """A time span for people: 40 s, 12 min, 3.5 h."""
    if seconds < 90:
        return f"{seconds:,.0f} s"
    return f"{seconds / 60:,.0f} min" if seconds < 5400 else f"{seconds / 3600:,.1f} h"


def _say_waiting(text: str) -> None:
    console.print(f"  {visible(text)}", markup=False, soft_wrap=True)
    if TaskRunContext.get() is not None:
        get_run_logger().warning(text)


say_with(_say_waiting)


@contextmanager
def stage_progress(stage: str) -> Iterator[StageProgress]:
    """Progress that leaves the terminal clean however the stage ends."""
    progress = StageProgress(stage)
    try:
        yield progress
    finally:
        progress.end()
