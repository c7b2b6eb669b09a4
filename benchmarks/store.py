"""What the store costs at a million responses and more: `python -m benchmarks.store --responses 1000000 --grow 10000000`.

A store of so many responses, each rated on 6 aspects and by a reward, is made by SQL in a folder of the disk that it is run
on. Each measurement then runs in a process of its own on that store: medians of seconds on the clock, and the most memory that
the process held. What grows with the store is measured again after it has grown. All responses have one generation key and
all ratings one judge, which is the worst case for a search.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.pairing import ASPECTS, KEYS, fill, one_rule, peak_bytes
from rlrf.fingerprints import content_id
from rlrf.pair_config import Pairs
from rlrf.records import Completion, Judgement, Rating
from storage import judgements, rows, sizes
from storage.snapshots import publish
from storage.store import Store, insert

EACH, ASKED, TIMES = 8, 80_000, 7
COMMON = {"gen_key": KEYS["generation"], "policy_id": KEYS["policy"], "backend": "none", "run_id": KEYS["policy"]}
WEIGHTS = dict.fromkeys(ASPECTS, 1.0)


@contextmanager
def timed() -> Iterator[dict[str, float]]:
    """Seconds on the clock, and of CPU in all threads: those tell more where other work runs beside."""
    spent: dict[str, float] = {}
    began, cpu = time.perf_counter(), time.process_time()
    yield spent
    spent |= {"seconds": time.perf_counter() - began, "cpu": time.process_time() - cpu}


def batches(store: Store, size: int) -> Iterator[dict[str, float]]:
    """Seconds that a micro-batch of new responses takes, and the judgements of it."""
    prompt_id = store.value("SELECT prompt_id FROM prompts LIMIT 1")
    for _ in range(TIMES):
        ids = [str(uuid.uuid4()) for _ in range(size)]
        planned = {one: {"prompt_id": prompt_id, "parent_id": None, "position": 0, "seed": 0} for one in ids}
        results = [Completion(one, os.urandom(200).hex(), "stop", 50, 100) for one in ids]
        ratings = tuple(Rating(aspect, 1, "what the judge says of it, in a few words") for aspect in ASPECTS)
        with timed() as adding:
            assert rows.add_results(store, results, planned, COMMON) == size
        with timed() as judging:
            judged = [Judgement(one, ratings) for one in ids]
            assert judgements.add_judgements(store, KEYS["judge"], judged, WEIGHTS, KEYS["policy"]) == size
        yield {"responses": adding["seconds"], "judgements": judging["seconds"], "cpu": adding["cpu"] + judging["cpu"]}


def _medians(found: list[dict[str, float]]) -> dict[str, float]:
    return {name: median(one[name] for one in found) for name in found[0]}


def micro(store: Store) -> dict[str, float]:
    """128 responses at a time, a transaction each."""
    return _medians(list(batches(store, 128)))


def bulk(store: Store) -> dict[str, float]:
    """4,096 at a time."""
    return _medians(list(batches(store, 4096)))


def existing(store: Store) -> dict[str, float]:
    """Which of 80,000 planned responses are there: half of them."""
    there = "SELECT response_id::VARCHAR FROM responses LIMIT ?"
    with store.connect() as connection:
        asked = [row[0] for row in connection.execute(there, [ASKED // 2]).fetchall()]
    asked += [content_id("benchmark", number) for number in range(ASKED // 2)]
    with timed() as spent:
        assert len(rows.existing(store, asked)) == ASKED // 2
    return spent


def claims(store: Store) -> dict[str, float]:
    """Rows of 512 claims written and taken back."""
    times = []
    for _ in range(TIMES):
        mine = [{"work": KEYS["generation"], "row_id": str(uuid.uuid4()), "owner": KEYS["policy"]} for _ in range(512)]
        with timed() as spent:
            with store.connect() as connection:
                assert insert(connection, "claims", mine) == 512
            with store.connect() as connection:
                connection.execute("DELETE FROM claims WHERE owner = ?", [KEYS["policy"]])
        times.append(spent)
    return _medians(times)


def pairs(store: Store) -> dict[str, float]:
    """Pairs of all responses by the paper's rule."""
    return one_rule(store.path, Pairs(), reward=False)


def snapshot(store: Store) -> dict[str, float]:
    """A snapshot, and how long writers wait for it."""
    with timed() as spent:
        made = publish(store)
    assert made is not None
    return spent | {"held": made.held}


MEASURES: dict[str, Callable[[Store], dict[str, float]]] = {
    one.__name__: one for one in (micro, bulk, existing, claims, snapshot, pairs)
}
GROWING = ("micro", "existing", "snapshot")


def measured(path: Path, name: str) -> dict[str, float]:
    """Run one measurement in a process of its own."""
    command = [sys.executable, "-m", "benchmarks.store", "--store", str(path), "--measure", name]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{name}: {done.stderr}")
    found: dict[str, float] = json.loads(done.stdout)
    return found


def told(name: str, found: dict[str, Any]) -> str:
    """One measurement as a row of the table."""
    if name in {"micro", "bulk"}:
        size = 128 if name == "micro" else 4096
        ms = {kind: 1000 * found[kind] for kind in ("responses", "judgements")}
        rate = size / sum(found[kind] for kind in ms)
        said = f"{ms['responses']:.0f} ms + judgements and ratings {ms['judgements']:.0f} ms: {rate:,.0f} responses/s"
        what = f"batch of {size:,} responses"
    elif name == "snapshot":
        what, said = "snapshot", f"{found['seconds']:.1f} s, of which writers wait {found['held']:.2f} s"
    else:
        what = {
            "existing": "which of 80,000 ids are there",
            "claims": "512 claims made and taken back",
            "pairs": "pairs",
        }
        what, said = what[name], f"{found['seconds']:.2f} s"
        said += f", {found['pairs']:,} pairs" if name == "pairs" else ""
    return f"| {what} | {said} | {found['cpu']:.2f} | {found['peak'] / 1e9:.2f} | {found['load']:.1f} |"


def table(path: Path, names: tuple[str, ...]) -> None:
    """Print what these measurements give on the store as it is."""
    count = Store(path).value("SELECT count(*) FROM responses")
    found = {one.name: one for one in sizes.tables(Store(path))}
    parts = ", ".join(f"{name} {found[name].bytes / 1e6:,.0f} MB" for name in ("responses", "ratings", "judgements"))
    print(f"\n{count:,} responses, {found['ratings'].rows:,} ratings: {path.stat().st_size / 1e6:,.0f} MB ({parts})\n")
    print("| | | CPU s | peak GB | load |\n|---|---|---|---|---|")
    for name in names:
        print(told(name, measured(path, name)), flush=True)


def main() -> None:
    """Make the store, print the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--responses", type=int, default=1_000_000)
    parser.add_argument("--aspects", type=int, default=len(ASPECTS))
    parser.add_argument("--grow", type=int, default=0, help="responses in the store at the end")
    parser.add_argument("--store", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--measure", choices=MEASURES, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.measure:
        found = MEASURES[asked.measure](Store(asked.store))
        print(json.dumps(found | {"peak": peak_bytes(), "load": os.getloadavg()[0]}))
        return
    step = asked.responses // EACH
    with tempfile.TemporaryDirectory(dir=".") as place:
        path = Path(place) / "store.duckdb"
        fill(path, step, EACH, aspects=asked.aspects)
        table(path, tuple(MEASURES))
        for first in range(step, asked.grow // EACH, step):
            fill(path, step, EACH, first, asked.aspects)
        if asked.grow > asked.responses:
            table(path, GROWING)


if __name__ == "__main__":
    main()
