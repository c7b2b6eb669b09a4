"""The demo over several seeds: `python -m benchmarks.demo_seeds deployments/demo.toml --seeds 0 1 2`.

Each seed makes its own word problems, held-out questions, tiny policy and run, under `runs/demo-seed-N`. Prints one table
row per seed: accuracy of base, control and iterations on the held-out questions, and the paired gains with 95 % intervals.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
import tomllib
from pathlib import Path
from typing import Any

from rlrf.config import parse_config
from rlrf.evaluating import mean_interval
from storage import answers, reading
from storage.store import open_store

TEMPLATE = "deployments/demo.toml"


def main() -> None:
    """Run every seed that isn't finished, then print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("config", nargs="?", default=TEMPLATE)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    arguments = parser.parse_args()
    print("| seed | base | control | iteration 1 | iteration 2 | last over base | last over control | seconds |")
    print("|---|---|---|---|---|---|---|---|")
    for seed in arguments.seeds:
        print(_row(Path(arguments.config), seed), flush=True)


def _row(template: Path, seed: int) -> str:
    config, seconds = _run(template, seed)
    store = open_store(config.store_path)
    rows = reading.results(store, str(reading.latest_run(store)))
    arms = {row["arm"] if row["arm"] != "policy" else f"iteration {row['iteration']}": row for row in rows}
    last = max((arms[name] for name in arms if name.startswith("iteration")), key=lambda row: row["iteration"])
    cells = [_accuracy(arms.get(name)) for name in ("base", "control", "iteration 1", "iteration 2")]
    gains = [_gain(store, config.evaluate.aspect, last, arms[name]) for name in ("base", "control")]
    return f"| {seed} | " + " | ".join([*cells, *gains, f"{seconds:.0f}"]) + " |"


def _run(template: Path, seed: int) -> tuple[Any, float]:
    data = tomllib.loads(template.read_text(encoding="utf-8"))
    text = template.read_text(encoding="utf-8")
    home = f"runs/{data['name']}-seed-{seed}"
    text = text.replace(f'home = "{data["home"]}"', f'home = "{home}"').replace("seed = 0", f"seed = {seed}")
    text = text.replace("[policy.bootstrap]", f"[policy.bootstrap]\nseed = {seed}")
    path = Path(home + ".toml")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    started = time.monotonic()
    command = [str(Path(sys.executable).with_name("rlrf")), "run", str(path)]
    subprocess.run(command, check=True, env={**os.environ, "OMP_NUM_THREADS": "1"}, stdout=subprocess.DEVNULL)
    return parse_config(tomllib.loads(text), str(path)), time.monotonic() - started


def _accuracy(row: dict[str, Any] | None) -> str:
    return "" if row is None else f"{row['accuracy']:.1%} ({row['low']:.1%}..{row['high']:.1%})"


def _gain(store: Any, aspect: str, new: dict[str, Any], old: dict[str, Any]) -> str:
    """Paired over the same questions."""
    ours, theirs = (_correct(store, aspect, row["evaluation"]) for row in (new, old))
    mean, low, high = mean_interval([float(ours[key]) - float(theirs[key]) for key in ours])
    return f"{100 * mean:+.1f} ({100 * low:+.1f}..{100 * high:+.1f})"


def _correct(store: Any, aspect: str, evaluation: str) -> dict[str, bool]:
    judge = store.value("SELECT judge_key FROM evaluations WHERE stage_key = ?", [evaluation])
    return {row["prompt_id"]: row["correct"] for row in answers.answers(store.held_out(), evaluation, judge, aspect)}


if __name__ == "__main__":
    main()
