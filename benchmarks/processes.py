"""Several processes on one store: `python -m benchmarks.processes --seconds 300`, and with `--identical` two equal runs at once.

Two flywheels with the same seeds and different n, a backfill that judges what they made with another judge, and a loop of
`rlrf status`, each a command line of its own, one after the other, for so many seconds; beside them a notebook that keeps a
published snapshot open. The engine is scripted and takes 10 ms a request; it writes down what it was asked, so that a row
that two processes ask for is seen. A wait is the time from wanting the file to having it open.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from statistics import median, quantiles

from storage.snapshots import publish
from storage.store import Store, open_store, snapshot_path
from tests import builders
from tests.builders import NEVER
from tests.flows.replies import ASKED, SECONDS
from tests.rlrf.backends.tiny_model import build_tiny_model

STOPPED = 3
"""The exit code of a run that ended before its training, as all of these do."""

READ = """
import sys, time, duckdb
connection = duckdb.connect(sys.argv[1], read_only=True)
while True:
    connection.execute("SELECT count(*), max(text) FROM responses").fetchall()
    time.sleep(1)
"""
"""The notebook: one connection that is never closed."""


@dataclass
class Commands:
    """One kind of process: the command lines that it runs in turn, and what came of them."""

    name: str
    lines: Iterator[list[str]]
    done: int = 0
    errors: list[str] = field(default_factory=list)
    waits: list[float] = field(default_factory=list)

    def run(self, folder: Path, until: float) -> None:
        """Command lines one after the other until the time is up; one that is under way then is left to end."""
        for number, line in enumerate(self.lines):
            if time.monotonic() > until:
                return
            log = folder / f"{self.name}-{number}.json"
            ended = start(line, log)
            _, said = ended.communicate()
            self.done += 1
            if ended.returncode not in (0, STOPPED):
                self.errors.append(said)
            if log.exists():
                self.waits += json.loads(log.read_text())


def start(line: list[str], log: Path) -> subprocess.Popen[str]:
    """A command line of rlrf in a process of its own, which leaves its waits in a file."""
    command = [sys.executable, "-m", "benchmarks.processes", "--waits", str(log), *line]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)


def rlrf(log: Path, line: list[str]) -> None:
    """The command line in this process, with every wait for the store timed."""
    import storage.store
    from flows.cli import main as cli

    waits: list[float] = []
    connect = storage.store._connect

    def timed(path: Path) -> object:
        began = time.perf_counter()
        try:
            return connect(path)
        finally:
            waits.append(time.perf_counter() - began)

    storage.store._connect = timed  # type: ignore[assignment]
    sys.argv = ["rlrf", *line]
    try:
        cli()
    finally:
        log.write_text(json.dumps(waits))


@contextmanager
def server() -> Iterator[None]:
    """One Prefect server for all."""
    from prefect.settings import PREFECT_API_URL
    from prefect.testing.utilities import prefect_test_harness

    with prefect_test_harness(server_startup_timeout=120):
        os.environ["PREFECT_API_URL"] = PREFECT_API_URL.value()
        yield


def config(folder: Path, name: str, n: int, **changes: object) -> str:
    """A run up to its pairs; all of a folder share one store."""
    settings = {"explore__n": n, "refine__m": 1, "pairs__min_pairs": NEVER, "prompts__per_iteration": 20} | changes
    path = builders.write_config(folder, folder / "model", "slow", file=f"{name}.toml", name=name, **settings)
    return str(path)


def together(folder: Path, seconds: float) -> None:
    """Print what became of four processes and a notebook."""
    few, many = config(folder, "few", 6), config(folder, "many", 8)
    judge = {
        "type": "rubric",
        "rubric": "math",
        "engine": {"type": "scripted", "reply": "tests.tasks.judge_replies:steady"},
    }
    other = config(folder, "other", 6, judge=judge, evaluate__aspect="logical_correctness")
    home = folder / "home"
    store = open_store(home / "store.duckdb")
    everyone = [
        Commands("flywheel, n = 6", (["run", few, "--set", f"seed={seed}"] for seed in count())),
        Commands("flywheel, n = 8", (["run", many, "--set", f"seed={seed}"] for seed in count())),
        Commands("backfill", (["pairs", other, "--set", f"seed={seed}"] for seed in count())),
        Commands("rlrf status", (["status", str(home)] for _ in count())),
    ]
    began = time.monotonic()
    with notebook(store):
        threads = [threading.Thread(target=one.run, args=(folder, began + seconds)) for one in everyone]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    lasted = time.monotonic() - began
    print(f"{lasted:.0f} s; load {os.getloadavg()[0]:.1f}\n")
    print("| process | commands | errors | store opened | median wait, ms | 99th, ms | longest, s |\n|" + "---|" * 7)
    for one in everyone:
        print(f"| {one.name} | {one.done} | {len(one.errors)} | {len(one.waits):,} | {_waits(one.waits)} |")
    print(f"\n{_throughput(store, lasted)}\n{_doubled(folder / 'asked.txt')}")
    for one in everyone:
        for said in one.errors:
            print(f"{one.name}: {said[-2000:]}", file=sys.stderr)
    if any(one.errors for one in everyone):
        raise SystemExit("there were errors")


@contextmanager
def notebook(store: Store) -> Iterator[None]:
    """A reader that holds the published snapshot open, the whole time."""
    publish(store)
    reader = subprocess.Popen([sys.executable, "-c", READ, str(snapshot_path(store.path))])
    try:
        yield
        assert reader.poll() is None, "the notebook failed"
    finally:
        reader.kill()
        reader.wait()


def identical(folder: Path) -> None:
    """Print how much two equal runs at once did twice, over what a single one does."""
    path = config(folder, "same", 20)
    both = [start(["run", path], folder / f"{name}.json") for name in "ab"]
    said = [one.communicate()[1] for one in both]
    if [one.returncode for one in both] != [STOPPED, STOPPED]:
        raise SystemExit("\n".join(said))
    store = open_store(folder / "home" / "store.duckdb")
    made = store.query("SELECT run_id, count(*) AS n FROM responses GROUP BY ALL ORDER BY n DESC")
    print(f"responses by run: {', '.join(str(row['n']) for row in made)}\n{_doubled(folder / 'asked.txt')}")


def _waits(waits: list[float]) -> str:
    if len(waits) < 2:
        return "- | - | -"
    return f"{1000 * median(waits):.0f} | {1000 * quantiles(waits, n=100)[-1]:.0f} | {max(waits):.2f}"


def _throughput(store: Store, seconds: float) -> str:
    counts = {}
    for table in ("responses", "judgements"):
        scopes = (f"SELECT count(*) AS n FROM {scope}.{table}" for scope in ("main", "held_out"))
        counts[table] = int(store.value(f"SELECT sum(n) FROM ({' UNION ALL '.join(scopes)})"))
    return ", ".join(f"{n:,} {table} ({n / seconds:.1f}/s)" for table, n in counts.items())


def _doubled(file: Path) -> str:
    asked = Counter(file.read_text().split())
    twice = asked.total() - len(asked)
    return f"asked for {asked.total():,} responses, {twice:,} of them twice ({twice / len(asked):.2%})"


def main() -> None:
    """Print the table."""
    if sys.argv[1:2] == ["--waits"]:
        return rlrf(Path(sys.argv[2]), sys.argv[3:])
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=300)
    parser.add_argument("--identical", action="store_true")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place).resolve()
        os.environ |= {SECONDS: "0.01", ASKED: str(folder / "asked.txt"), "OMP_NUM_THREADS": "1"}
        os.environ |= {"PREFECT_SERVER_ANALYTICS_ENABLED": "false", "PREFECT_LOGGING_LEVEL": "CRITICAL"}
        build_tiny_model(folder / "model")
        with server():
            identical(folder) if given.identical else together(folder, given.seconds)


if __name__ == "__main__":
    main()
