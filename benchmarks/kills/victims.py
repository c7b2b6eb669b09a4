"""Who is killed and when: moments are found from outside, in the process table and in files as they appear."""

from __future__ import annotations

import random
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from benchmarks.kills.homes import Process, Wheel, kill, processes

POLL_SECONDS = 0.0005
TABLE_SECONDS = 0.05


@dataclass(frozen=True)
class Struck:
    """A kill that took place: when, and what was seen under way."""

    at: float
    moment: str


Running = subprocess.Popen[bytes]
Strike = Callable[[Wheel, Running, random.Random], Struck | None]
"""Waits for its moment in a run, and kills; None when the run ended before."""


def _wait(run: Running, there: Callable[[], bool], poll: float = POLL_SECONDS) -> bool:
    while not there():
        if run.poll() is not None:
            return False
        time.sleep(poll)
    return True


def _pause(run: Running, seconds: float) -> bool:
    """Let some time pass; False when the run ends in it."""
    deadline = time.monotonic() + seconds
    return _wait(run, lambda: time.monotonic() > deadline, 0.005)


def _stages(wheel: Wheel, pid: int, event: str = "stage") -> list[str]:
    return [one["stage"] for one in wheel.entries() if one["event"] == event and one["pid"] == pid]


def _struck(pid: int, moment: str, *, group: bool = False) -> Struck | None:
    at = time.time()
    return Struck(at, moment) if kill(pid, group=group) else None


def flow(wheel: Wheel, run: Running, draw: random.Random, *, group: bool = False) -> Struck | None:
    """The run's process (or all of its group), some random time after its first stage; now and then as it starts."""
    if draw.random() < 0.1:
        return _struck(run.pid, "start", group=group) if _pause(run, draw.uniform(0, 4) * wheel.pace) else None
    if not _wait(run, lambda: bool(_stages(wheel, run.pid)), 0.02) or not _pause(run, draw.uniform(0, 6) * wheel.pace):
        return None
    return _struck(run.pid, "any", group=group)


def group(wheel: Wheel, run: Running, draw: random.Random) -> Struck | None:
    """The run's process group."""
    return flow(wheel, run, draw, group=True)


def batch(wheel: Wheel, run: Running, draw: random.Random) -> Struck | None:
    """The run, while its engine computes a batch of responses."""

    def asked() -> int:
        return sum(one["event"] == "asked" and one["pid"] == run.pid for one in wheel.entries())

    if not _wait(run, lambda: bool(asked()), 0.02) or not _pause(run, draw.uniform(0, 2) * wheel.pace):
        return None
    before = asked()
    if not _wait(run, lambda: asked() > before, 0.005):
        return None
    time.sleep(draw.uniform(0, 0.1))
    return _struck(run.pid, "a batch of responses")


def bootstrap(wheel: Wheel, run: Running, draw: random.Random) -> Struck | None:
    """The run, in the middle of the bootstrap's steps."""

    def at_work() -> bool:
        return any(
            one["event"] == "begin" and one["pid"] == run.pid and one["unit"] == "steps" for one in wheel.entries()
        )

    if not _wait(run, at_work, 0.02) or not _pause(run, draw.uniform(0.5, 12) * wheel.pace):
        return None
    return _struck(run.pid, "bootstrap steps") if "bootstrap" not in _stages(wheel, run.pid, "receipt") else None


def trainer(wheel: Wheel, run: Running, draw: random.Random) -> Struck | None:
    """The training process alone: the run has to end with a reason, and the next one to go on."""
    found = _find(run, lambda one: _is_trainer(one, wheel))
    if found is None or not _pause(run, draw.uniform(0, 9) * wheel.pace):
        return None
    return _struck(found.pid, "training")


def commit(wheel: Wheel, run: Running, draw: random.Random) -> Struck | None:
    """The run, while the store's write-ahead log is there or the store's file grows."""
    store, wal = wheel.home / "store.duckdb", wheel.home / "store.duckdb.wal"
    if not _wait(run, lambda: bool(_stages(wheel, run.pid)), 0.02) or not _pause(run, draw.uniform(0, 5) * wheel.pace):
        return None
    before = _size(store)
    if not _wait(run, lambda: wal.exists() or _size(store) != before):
        return None
    time.sleep(draw.uniform(0, 0.004))
    return _struck(run.pid, f"wal of {_size(wal):,} bytes" if wal.exists() else "store's file")


def checkpoint(wheel: Wheel, run: Running, draw: random.Random) -> Struck | None:
    """Whoever writes a checkpoint, in the middle of it: the trainer's, or the bootstrap's in the run itself."""
    models = wheel.home / "models"

    def being_written() -> Path | None:
        for folder in models.glob("*.work/*/checkpoint-*"):
            if not (folder / "complete.json").exists():
                return folder
        return next(models.glob("*.work/bootstrap.safetensors.partial"), None)

    if not _wait(run, lambda: being_written() is not None):
        return None
    place = being_written()
    time.sleep(draw.uniform(0, 0.03))
    if place is None or place.suffix == ".partial":
        return _struck(run.pid, "bootstrap's checkpoint")
    found = next((one for one in processes() if _is_trainer(one, wheel)), None)
    return _struck(found.pid, f"trainer's {place.name}") if found else None


def publish(wheel: Wheel, run: Running, draw: random.Random) -> Struck | None:
    """Trainer and run, while a finished model's folder is written, renamed or recorded."""
    models = wheel.home / "models"
    if not _wait(run, lambda: any(models.glob("*.work/result")) or any(models.glob("*.work/*/result"))):
        return None
    time.sleep(draw.choice((draw.uniform(0, 0.05), draw.uniform(0, 1.0))))
    return _struck(run.pid, "publishing a model", group=True)


def snapshot(wheel: Wheel, run: Running, draw: random.Random) -> Struck | None:
    """The run, while a snapshot of the store is written."""

    def being_written() -> bool:
        return any(wheel.home.glob("*.partial")) or any(wheel.home.glob("snapshots/*.partial"))

    if not _wait(run, being_written):
        return None
    time.sleep(draw.uniform(0, 0.02))
    return _struck(run.pid, "publishing a snapshot")


def engine(wheel: Wheel, run: Running, draw: random.Random) -> Struck | None:
    """vLLM's server or its worker, while it answers."""
    words = draw.choice(("api_server", "VLLM::EngineCore"))
    found = _answering(wheel, run, lambda one: words in one.words and "guard" not in one.words)
    return _struck(found.pid, words) if found and _pause(run, draw.uniform(0, 2)) else None


def guard(wheel: Wheel, run: Running, draw: random.Random) -> Struck | None:
    """The guard between the run and its vLLM server."""
    found = _answering(wheel, run, lambda one: "server_guard" in one.words)
    return _struck(found.pid, "guard") if found and _pause(run, draw.uniform(0, 2)) else None


def _answering(wheel: Wheel, run: Running, wanted: Callable[[Process], bool]) -> Process | None:
    """A process of the run's vLLM server, once a question has been asked of it."""
    now = time.time()
    asked = _wait(run, lambda: any(one["event"] == "asked" and one["t"] > now for one in wheel.entries()), 0.02)
    return _find(run, lambda one: wanted(one) and _of_run(one, run, wheel)) if asked else None


def _of_run(one: Process, run: Running, wheel: Wheel) -> bool:
    table = {other.pid: other for other in processes()}
    at: Process | None = one
    while at is not None:
        if at.parent == run.pid:
            return True
        at = table.get(at.parent)
    return str(wheel.home) in one.words


def _find(run: Running, wanted: Callable[[Process], bool]) -> Process | None:
    found: list[Process] = []

    def there() -> bool:
        found[:] = [one for one in processes() if wanted(one)]
        return bool(found)

    return max(found, key=lambda one: one.pid) if _wait(run, there, TABLE_SECONDS) else None


def _is_trainer(one: Process, wheel: Wheel) -> bool:
    return "rlrf.backends.training.process" in one.words and str(wheel.home) in one.words


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0


STRIKES: dict[str, Strike] = {
    "flow": flow,
    "group": group,
    "batch": batch,
    "commit": commit,
    "bootstrap": bootstrap,
    "trainer": trainer,
    "checkpoint": checkpoint,
    "publish": publish,
    "snapshot": snapshot,
    "engine": engine,
    "guard": guard,
}
