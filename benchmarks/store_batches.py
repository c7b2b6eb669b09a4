"""What one micro-batch of responses costs as the store grows: `python -m benchmarks.store_batches --upto 200000`.

128 responses of 400 characters are made durable, one transaction each, with so many in the store already: in the store as it
is, and in one whose tables have primary keys, as DuckDB keeps an index for each.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from pathlib import Path
from statistics import median

import duckdb

from rlrf.fingerprints import content_id
from rlrf.records import Completion, Prompt
from storage.rows import add_prompts, add_results
from storage.schema import IDENTITY, MIGRATIONS, VERSION
from storage.store import Store, open_store

BATCH, FILL, TIMES, PROMPTS = 128, 4096, 9, 1000
KEY = content_id("benchmark", "store_batches")
COMMON = {"gen_key": KEY, "policy_id": KEY, "backend": "none", "run_id": KEY}


def prompt(number: int) -> Prompt:
    """One of the prompts that are answered."""
    return Prompt(content_id("prompt", number), "benchmark", ({"role": "user", "content": f"{number} {'x' * 200}"},))


def add(store: Store, start: int, count: int) -> float:
    """Seconds that so many new responses take in one transaction."""
    results, planned = [], {}
    for number in range(start, start + count):
        name = content_id("response", number)
        where = {"prompt_id": prompt(number % PROMPTS).prompt_id, "parent_id": None}
        planned[name] = {**where, "position": number // PROMPTS, "seed": number}
        results.append(Completion(name, os.urandom(200).hex(), "stop", 50, 100))
    began = time.perf_counter()
    assert add_results(store, results, planned, COMMON) == count
    return time.perf_counter() - began


def measured(store: Store, sizes: list[int]) -> list[float]:
    """Median milliseconds of a micro-batch at each size."""
    add_prompts(store, map(prompt, range(PROMPTS)))
    rows, found = 0, []
    for size in sizes:
        while rows < size:
            rows += (add(store, rows, FILL), FILL)[1]
        times = []
        for _ in range(TIMES):
            times.append(1000 * add(store, rows, BATCH))
            rows += BATCH
        found.append(median(times))
    return found


def with_primary_keys(path: Path) -> Store:
    """A store of this version whose tables are those of the first one; from here on `insert` relies on their keys."""
    with duckdb.connect(str(path)) as connection:
        for migration in MIGRATIONS[:-1]:
            connection.execute(migration)
        connection.execute("INSERT INTO meta VALUES ('version', ?), ('store_id', 'x')", [str(VERSION)])
    IDENTITY.clear()
    return open_store(path)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--upto", type=int, default=200_000)
    sizes = [round(parser.parse_args().upto * share) for share in (0, 0.125, 0.25, 0.5, 1)]
    with tempfile.TemporaryDirectory(dir=".") as place:
        plain = measured(open_store(Path(place) / "plain.duckdb"), sizes)
        keyed = measured(with_primary_keys(Path(place) / "keyed.duckdb"), sizes)
    print(f"medians of {TIMES} transactions of {BATCH} responses, ms; load {os.getloadavg()[0]:.1f}\n")
    print(f"| responses in the store | {' | '.join(f'{size:,}' for size in sizes)} |\n|{'---|' * (len(sizes) + 1)}")
    for name, found in (("as it is", plain), ("with primary keys", keyed)):
        print(f"| {name} | {' | '.join(f'{value:.0f}' for value in found)} |")


if __name__ == "__main__":
    main()
