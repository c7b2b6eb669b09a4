"""What knowing costs: `python -m benchmarks.planning --prompts 10000 --n 8`.

A whole run on the scripted engine fills a store (real stages, real store, one training step), then the same run is asked for
again, and plans are made: of the same configuration, of one with n raised by two, and of one that was never run. Every
command is a process of its own, its start included: seconds on the clock, the best and the median of several.
"""

from __future__ import annotations

import argparse
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from functools import cache
from itertools import islice
from pathlib import Path

from rlrf.records import Request
from rlrf.word_problems import WordProblem, word_problems

SEED = 0
RLRF = Path(sys.executable).with_name("rlrf")
ASKED = "RLRF_BENCHMARK_PROMPTS"

_CONFIG = """
name = "planning"
home = "{home}"
iterations = 1
policy = {{bootstrap = {{prompts = {prompts}, held_out = 200, steps = 1, seed = {seed}}}}}
prompts = {{per_iteration = {prompts}, near_duplicate = 1.0, reuse = true}}
engine = {{type = "scripted", reply = "benchmarks.planning:reply", batch_size = 4096}}
explore = {{n = {n}, max_tokens = 64}}
refine = {{m = 1, max_tokens = 64, budget = {{solved = "off", hopeless = "off"}}}}
pairs = {{k = 1}}
audit = {{{audit}}}
evaluate = {{max_tokens = 64}}
train = {{epochs = 1e-4, batch_size = 1, max_length = 256, method = "rs"}}
limits = {{unrated = 1.0}}
"""


@cache
def _known() -> dict[str, WordProblem]:
    asked = int(os.environ[ASKED])
    counts = (("prompts", asked), ("held_out", 200))
    return {one.question: one for split, n in counts for one in islice(word_problems(split, seed=SEED), n)}  # type: ignore[arg-type]


def reply(request: Request) -> str:
    """What the scripted engine answers: right in four of ten responses."""
    solution = _known()[request.messages[0]["content"]].solution
    return solution if random.Random(request.seed).random() < 0.4 else solution.replace("#### ", "#### 1")


def timed(*command: str | Path) -> float:
    """Seconds of one `rlrf` command. Ends the benchmark with what it said where it fails."""
    began = time.perf_counter()
    done = subprocess.run([RLRF, *command], capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"rlrf {' '.join(map(str, command))}: {done.stdout}\n{done.stderr}")
    return time.perf_counter() - began


def row(what: str, seconds: list[float]) -> None:
    """One line of the table."""
    print(f"| {what} | {min(seconds):.2f} | {statistics.median(seconds):.2f} | {len(seconds)} |", flush=True)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--prompts", type=int, default=10_000)
    parser.add_argument("--n", type=int, default=8)
    parser.add_argument("--times", type=int, default=3)
    parser.add_argument(
        "--folder", type=Path, help="Where to keep the store; a folder that is made and removed when unset"
    )
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as made:
        folder = (asked.folder or Path(made)).resolve()
        folder.mkdir(parents=True, exist_ok=True)
        os.environ |= {ASKED: str(asked.prompts), "PREFECT_HOME": str(folder / "prefect")}
        config = folder / "run.toml"
        config.write_text(
            _CONFIG.format(home=folder / "home", prompts=asked.prompts, n=asked.n, seed=SEED, audit=""),
            encoding="utf-8",
        )
        print(
            f"{asked.prompts:,} prompts x {asked.n} responses; {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}\n"
        )
        print("| command | best, seconds | median | times |\n|---|---|---|---|")
        row("plan of a run that never was", [timed("plan", config)])
        first = timed("run", config)
        row("run, the first", [first])
        again = [timed("run", config) for _ in range(asked.times)]
        row(f"run, the same again: {min(again) / first:.1%} of the first", again)
        row("plan, everything finished", [timed("plan", config) for _ in range(asked.times)])
        more = f"explore.n={asked.n + 2}"
        row(f"plan --set {more}", [timed("plan", config, "--set", more) for _ in range(asked.times)])
        row("why explore", [timed("why", "explore", config, "--set", more) for _ in range(asked.times)])


if __name__ == "__main__":
    main()
