"""The share of a run that is Prefect and the store: `python -m benchmarks.overhead`, and `--quick` for a look.

Each run is a process of its own over a fresh home, under a Prefect server that this command starts, as `rlrf run` under one
that is always up; `--temporary` lets each run start its own, as `make demo` does. The time of the run's thread is divided,
not sampled: a clock belongs to one kind of work at a time, and changes hands where a call goes from one to another.

    prefect   calls of flows and tasks outside of our functions in them, its import, its server's start where the run starts
              it, what is told to its UI, and what its threads still do when the run is over
    store     everything within a connection to DuckDB, the waiting for one, and snapshots
    stages    what a stage does besides
    the rest  our flows, preflight, tables, report, the start of Python

What Prefect's server computes beside the run, on a core of its own if there is one, is shown in CPU seconds and in no share.
A finished run is kept in FOLDER/results.jsonl; the same command goes on after a kill.
"""

from __future__ import annotations

import argparse
import functools
import json
import os
import shutil
import socket
import statistics
import subprocess
import sys
import threading
import time
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

KINDS = ("prefect", "store", "stages", "the rest")
PREFECT = Path(sys.executable).with_name("prefect")


class Clock:
    """Seconds of one thread by kind; the innermost kind counts."""

    def __init__(self) -> None:
        self.seconds: Counter[str] = Counter()
        self.calls: Counter[str] = Counter()
        self._kinds, self._since, self._thread = ["the rest"], time.perf_counter(), threading.get_ident()

    @property
    def is_ours(self) -> bool:
        """Whether this thread is the one that is timed."""
        return threading.get_ident() == self._thread

    @contextmanager
    def on(self, kind: str) -> Iterator[None]:
        """What happens within is of this kind; other threads aren't counted."""
        if not self.is_ours:
            yield
            return
        self._turn()
        self._kinds.append(kind)
        try:
            yield
        finally:
            self._turn()
            self._kinds.pop()

    def timed(self, kind: str, call: Callable[..., Any]) -> Callable[..., Any]:
        """The same function, on the clock."""

        @functools.wraps(call)
        def on_the_clock(*args: Any, **kwargs: Any) -> Any:
            with self.on(kind):
                return call(*args, **kwargs)

        return on_the_clock

    def _turn(self) -> None:
        now = time.perf_counter()
        self.seconds[self._kinds[-1]] += now - self._since
        self._since = now


def inside(config: Path, changes: list[str], to: Path, started: float) -> None:
    """One run in this process, on the clock; `started`: when the process was, by time.time()."""
    began, clock = time.time() - started, Clock()
    with clock.on("prefect"):
        import prefect.events
        import prefect.main  # noqa: F401
    _put_on_the_clock(clock)
    from rich.console import Console

    from flows.running import run_flywheel

    run_flywheel(config, Console(), changes)
    with clock.on("the rest"):
        clock.seconds["the rest"] += began
    calls = {f"calls: {name}": n for name, n in clock.calls.items()}
    to.write_text(json.dumps(dict(clock.seconds) | calls), encoding="utf-8")


def _put_on_the_clock(clock: Clock) -> None:
    """Replace what marks the borders between kinds."""
    from prefect import Flow, Task

    import flows.flywheel
    import flows.iteration
    import flows.running
    import flows.temporary_server
    import storage.snapshots
    import storage.store
    import tasks.first_policy
    import tasks.publishing
    import tasks.stage
    from storage.store import Store

    borders: list[tuple[Any, str, str]] = [
        (Flow, "__call__", "prefect"),
        (Task, "__call__", "prefect"),
        (flows.flywheel.flywheel, "fn", "the rest"),
        (flows.iteration.iteration, "fn", "the rest"),
        (flows.temporary_server, "start_temporary_server", "prefect"),
        (flows.flywheel, "summarise", "prefect"),
        (flows.flywheel.outbox, "flush", "prefect"),
        (tasks.stage, "_run_stage", "stages"),
        (tasks.stage, "publish_stage", "prefect"),
        (tasks.first_policy.load_policy, "fn", "stages"),
        (tasks.publishing, "publish", "store"),
        (storage.store, "_connect", "store"),
    ]
    for owner, name, kind in borders:
        setattr(owner, name, clock.timed(kind, getattr(owner, name)))
    plain = Store.connect

    @contextmanager
    def connect(store: Store) -> Iterator[Any]:
        before, name = clock.seconds["store"], _caller()
        with clock.on("store"), plain(store) as connection:
            yield connection
        if clock.is_ours:
            clock.seconds[f"store: {name}"] += clock.seconds["store"] - before
            clock.calls[name] += 1

    Store.connect = connect  # type: ignore[method-assign]


def _caller() -> str:
    """The function outside of the store's own module that opens a connection."""
    frame = sys._getframe(2)
    while frame.f_back is not None and frame.f_globals["__name__"] in {"contextlib", "storage.store"}:
        frame = frame.f_back
    return f"{frame.f_globals['__name__']}.{frame.f_code.co_name}"


def one_run(config: str, folder: Path, changes: list[str], api: str | None) -> dict[str, float]:
    """A run in a process of its own over a fresh home: seconds by kind, and of the process from its start to its end."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    to, log = folder / "clock.json", folder / "run.log"
    command = [sys.executable, "-m", "benchmarks.overhead", "--inside", str(to), "--config", config]
    command += [
        "--set",
        f"home={json.dumps(str(folder / 'home'))}",
        *(part for one in changes for part in ("--set", one)),
    ]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PREFECT_HOME": str(folder / "prefect"), **_quiet()}
    environment.pop("PREFECT_API_URL", None)
    environment |= {"PREFECT_API_URL": api} if api else {}
    began = time.perf_counter()
    with log.open("wb") as out:
        done = subprocess.run(
            [*command, "--started", repr(time.time())], env=environment, stdout=out, stderr=out, check=False
        )
    wall = time.perf_counter() - began
    if done.returncode:
        sys.exit(f"a run ended with {done.returncode}; see {log}")
    found: dict[str, float] = json.loads(to.read_text())
    seconds = {kind: found.get(kind, 0.0) for kind in KINDS}
    seconds["prefect"] += wall - sum(seconds.values())  # the end of the process, at which Prefect sends what is left
    shutil.rmtree(folder / "home")
    return found | seconds | {"wall": wall}


@contextmanager
def server(folder: Path) -> Iterator[tuple[str, int]]:
    """A Prefect server with a home of its own: the address of its API, and its process."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    folder.mkdir(parents=True, exist_ok=True)
    command = [PREFECT, "server", "start", "--no-ui", "--host", "127.0.0.1", "--port", str(port)]
    environment = os.environ | {"PREFECT_HOME": str(folder), **_quiet()}
    with (folder / "server.log").open("wb") as log:
        process = subprocess.Popen(command, env=environment, stdout=log, stderr=log, start_new_session=True)
    api = f"http://127.0.0.1:{port}/api"
    try:
        for _ in range(240):
            try:
                urllib.request.urlopen(f"{api}/health", timeout=5).close()
                break
            except OSError:
                time.sleep(0.5)
        yield api, process.pid
    finally:
        process.terminate()
        process.wait()


def cpu_seconds(pid: int) -> float:
    """What a process has computed so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _quiet() -> dict[str, str]:
    return {"PREFECT_SERVER_ANALYTICS_ENABLED": "false", "DO_NOT_TRACK": "1", "PREFECT_LOGGING_TO_CONSOLE": "false"}


def show(results: list[dict[str, float]]) -> None:
    """A line per run, then what they have in common."""
    print(
        f"{'run':<8}{'wall s':>8}" + "".join(f"{kind:>10}" for kind in KINDS) + f"{'overhead':>10}{'server CPU s':>14}"
    )
    shares = []
    for number, one in enumerate(results, 1):
        shares.append((one["prefect"] + one["store"]) / one["wall"])
        cells = "".join(f"{one[kind]:>10.1f}" for kind in KINDS)
        print(f"{number:<8}{one['wall']:>8.1f}{cells}{shares[-1]:>10.1%}{one.get('server', float('nan')):>14.1f}")
    longest = sorted((name for name in results[-1] if name.startswith("store: ")), key=lambda one: -results[-1][one])
    for name in longest[:8]:
        calls = results[-1][name.replace("store: ", "calls: ")]
        print(f"last run, {name}: {calls:,.0f} times, {results[-1][name]:.1f} s")
    middle = {kind: statistics.median(one[kind] / one["wall"] for one in results) for kind in KINDS}
    print("median share: " + ", ".join(f"{kind} {share:.1%}" for kind, share in middle.items()))
    print(
        f"overhead (prefect and store): median {statistics.median(shares):.1%}, {min(shares):.1%} to {max(shares):.1%}"
    )


def main() -> None:
    """Runs that are missing, then the table of all."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument(
        "--quick", action="store_true", help="the short demo, of which start and end are a larger share"
    )
    parser.add_argument("--temporary", action="store_true", help="each run starts a Prefect server of its own")
    parser.add_argument("--folder", type=Path, default=Path("runs/overhead"))
    parser.add_argument("--config", help="another configuration")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="one change of it")
    parser.add_argument("--inside", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--started", type=float, default=0.0, help=argparse.SUPPRESS)
    given = parser.parse_args()
    config = given.config or f"deployments/demo{'-quick' if given.quick else ''}.toml"
    if given.inside:
        inside(Path(config), given.set, given.inside, given.started)
        return
    asked = {"config": config, "changes": given.set, "temporary": given.temporary}
    kept = given.folder.resolve() / "results.jsonl"
    given.folder.mkdir(parents=True, exist_ok=True)
    lines = [json.loads(line) for line in kept.read_text().splitlines()] if kept.exists() else []
    results = [line["seconds"] for line in lines if line["asked"] == asked][: given.runs]
    while len(results) < given.runs:
        if given.temporary:
            results.append(one_run(config, kept.parent / "run", given.set, None))
        else:
            with server(kept.parent / "server") as (api, pid):
                before = cpu_seconds(pid)
                found = one_run(config, kept.parent / "run", given.set, api)
                results.append(found | {"server": cpu_seconds(pid) - before})
        with kept.open("a") as file:
            file.write(json.dumps({"asked": asked, "seconds": results[-1]}) + "\n")
    show(results)


if __name__ == "__main__":
    main()
