"""Kill -9 all over the wheel: `python -m benchmarks.kills --kills 200 --seed 0 --out runs/kills`.

The whole wheel turns on a tiny policy that it makes itself. One round is one home that is killed again and again, at
moments that are drawn or watched for from outside, and started again by the same command until it is complete; then it
is compared, row by row, with one that was never killed. Rounds are appended to `rounds.jsonl`, so that this program may
be killed too: it goes on after the last whole round. Ends with the table, and
with code 1 if a row is lost, doubled or different, or a kill cost more rows than can be under way.
"""

from __future__ import annotations

import argparse
import json
import random
import shutil
import sys
import time
from collections import Counter
from dataclasses import asdict
from pathlib import Path
from typing import Any

from benchmarks.kills.comparing import Home, compare, read_home
from benchmarks.kills.homes import BOUNDS, Wheel, kill
from benchmarks.kills.scheduler import start_server, worker_round
from benchmarks.kills.table import Kill, account, markdown
from benchmarks.kills.victims import STRIKES, Running
from rlrf.backends.engine.env import find_engine

ANYWHERE, OF_VLLM = ("flow", "group", "batch"), ("engine", "guard")
OF_BOOTSTRAP, OF_TRAINING = ("bootstrap", "checkpoint", "publish"), ("checkpoint", "trainer", "publish")
IN_ROUND, VLLM_IN_ROUND, WORKER_IN_ROUND = 14, 5, 6


def main() -> None:
    """Rounds until there are enough kills, then the table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.kills", description=__doc__)
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("runs/kills"))
    parser.add_argument("--kinds", nargs="+", default=["whole", "after", "worker", "vllm"], help="Kinds of rounds")
    arguments = parser.parse_args()
    out = arguments.out.absolute()
    out.mkdir(parents=True, exist_ok=True)
    server = start_server(out)
    try:
        _rounds(out, arguments.kills, arguments.seed, arguments.kinds)
    finally:
        kill(server.pid, group=True)
        server.wait()
    rounds = _read(out / "rounds.jsonl")
    kills = [one for row in rounds for one in row["killed"]]
    print(markdown(kills, rounds))
    bad = [one for one in rounds if one["lost"] or one["doubled"] or one["different"]]
    dear = [one for one in kills if one["rows"] > one["bound"]]
    for one in bad:
        print(f"round {one['round']}: {'; '.join(one['said'])}", file=sys.stderr)
    for one in dear:
        print(f"round {one['round']}: {one['victim']} ({one['moment']}) cost {one['rows']} rows", file=sys.stderr)
    sys.exit(1 if bad or dear else 0)


def _rounds(out: Path, wanted: int, seed: int, kinds: list[str]) -> None:
    if find_engine() is None and "vllm" in kinds:
        kinds = [kind for kind in kinds if kind != "vllm"]
        print("no vLLM environment: its rounds are left out", file=sys.stderr)
    order = _order(kinds)
    while True:
        rounds = _read(out / "rounds.jsonl")
        done, number = sum(one["kills"] for one in rounds), len(rounds) + 1
        if done >= wanted:
            return
        kind = order[(number - 1) % len(order)]
        _round(out, number, kind, min(wanted - done, IN_ROUND), random.Random(f"{seed}/{number}"))


def _order(kinds: list[str]) -> list[str]:
    """Rounds from the start and rounds after the bootstrap by turns, with one of a worker and one of vLLM in six."""
    plain = [kind for kind in kinds if kind in {"whole", "after"}]
    return [*plain, *[kind for kind in kinds if kind == "worker"], *plain, *[kind for kind in kinds if kind == "vllm"]]


def _round(out: Path, number: int, kind: str, wanted: int, draw: random.Random) -> None:
    """One home, killed until it is complete, compared and written down."""
    wheel = Wheel(out, "vllm" if kind == "vllm" else "transformers", iterations=1 if kind == "vllm" else 2)
    wheel.write_config()
    wheel.results = number
    reference, prefix = _reference(wheel)
    wheel.begin(None if kind == "whole" else prefix)
    began = time.monotonic()
    if kind == "worker":
        kills = worker_round(wheel, number, min(wanted, WORKER_IN_ROUND), draw)
    else:
        kills = _until_complete(wheel, number, kind, wanted, draw)
    account(kills, wheel.entries())
    for one in kills:
        one.bound = BOUNDS[wheel.engine]
        one.seconds = round((time.monotonic() - began) / len(kills), 1)
    found = compare(read_home(wheel.home), reference)
    row = {"round": number, "kind": kind, "kills": len(kills), "seconds": round(time.monotonic() - began, 1)}
    row |= {"lost": found.lost, "doubled": found.doubled, "different": found.different, "said": found.said}
    print(json.dumps(row), file=sys.stderr, flush=True)
    if not found.none:
        shutil.copytree(wheel.home, out / f"wrong-{number}", dirs_exist_ok=True)
        shutil.copy(wheel.journal, out / f"wrong-{number}.jsonl")
    with (out / "rounds.jsonl").open("a") as file:
        file.write(json.dumps(row | {"killed": [asdict(one) for one in kills]}) + "\n")


def _until_complete(wheel: Wheel, number: int, kind: str, wanted: int, draw: random.Random) -> list[Kill]:
    kills: list[Kill] = []
    struck: Counter[str] = Counter()
    limit = min(wanted, VLLM_IN_ROUND) if kind == "vllm" else wanted
    run = _start(wheel, kills)
    try:
        while True:
            if run.poll() is not None:
                if run.returncode == 0:
                    return kills
                lost_its_trainer = run.returncode == 1 and kills and kills[-1].victim in {"trainer", "checkpoint"}
                if not lost_its_trainer and run.returncode != -9:
                    raise RuntimeError(f"rlrf ended with {run.returncode}; see {wheel.folder}/run-{wheel.engine}.log")
                run = _start(wheel, kills)
            if len(kills) >= limit:
                run.wait()
                continue
            victim = _victim(wheel, kind, struck, draw)
            hit = STRIKES[victim](wheel, run, draw)
            if hit is None:
                struck[victim] += 1  # its moment may not come any more: others first
                continue
            struck[victim] += 1
            kills.append(Kill(number, wheel.engine, victim, hit.moment, hit.at))
            if victim not in OF_VLLM:
                run.wait()
    finally:
        if run.poll() is None:
            kill(run.pid, group=True)
            run.wait()


def _start(wheel: Wheel, kills: list[Kill]) -> Running:
    if kills and kills[-1].restarted is None:
        kills[-1].restarted = time.time()
    return wheel.start()


def _victim(wheel: Wheel, kind: str, struck: Counter[str], draw: random.Random) -> str:
    """One of those whose moment is near, those killed least first."""
    entries = wheel.entries()
    stage = next((one["stage"] for one in reversed(entries) if "stage" in one), "")
    if kind == "vllm":
        there: tuple[str, ...] = (*OF_VLLM, *ANYWHERE)
    elif kind == "whole" and not _has_receipt(wheel, "bootstrap"):
        there = (*OF_BOOTSTRAP, "flow", "commit")
    elif stage in {"audit_pairs", "train_policy"}:
        there = (*OF_TRAINING, "flow")
    else:
        there = (*ANYWHERE, "commit", *(("snapshot",) if _has_snapshots(wheel) else ()))
    least = min(struck[name] for name in there)
    return draw.choice([name for name in there if struck[name] <= least])


def _has_snapshots(wheel: Wheel) -> bool:
    return any(wheel.home.glob("*snapshot*"))


def _reference(wheel: Wheel) -> tuple[Home, Path]:
    """What an unkilled run leaves, and a home in which no more than the bootstrap is done; both are made once."""
    kept, prefix = (wheel.folder / f"{name}-{wheel.engine}" for name in ("reference", "prefix"))
    took = wheel.folder / f"unkilled-{wheel.engine}-seconds.txt"
    results, wheel.results = wheel.results, -10
    if not kept.exists():
        wheel.begin(None)
        began = time.monotonic()
        if wheel.start().wait() != 0:
            raise RuntimeError(f"the run that isn't killed failed; see {wheel.folder}/run-{wheel.engine}.log")
        seconds = time.monotonic() - began
        print(f"{wheel.engine}: an unkilled run takes {seconds:.0f} s", file=sys.stderr, flush=True)
        took.write_text(f"{seconds:.0f}")
        _keep(wheel.home, kept)
    wheel.pace = max(1.0, float(took.read_text()) / 60)
    if not prefix.exists():
        wheel.begin(None)
        run = wheel.start()
        while run.poll() is None and not _has_receipt(wheel, "bootstrap"):
            time.sleep(0.02)
        kill(run.pid, group=True)
        run.wait()
        _keep(wheel.home, prefix)
    wheel.begin(kept)  # at its own place, which the store names
    reference, wheel.results = read_home(wheel.home), results
    return reference, prefix


def _keep(home: Path, place: Path) -> None:
    partial = place.with_name(place.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    shutil.copytree(home, partial)
    partial.rename(place)


def _has_receipt(wheel: Wheel, stage: str) -> bool:
    return any(one["event"] == "receipt" and one["stage"] == stage for one in wheel.entries())


def _read(path: Path) -> list[dict[str, Any]]:
    if not path.exists():
        return []
    return [json.loads(line) for line in path.read_text().splitlines(keepends=True) if line.endswith("\n")]


if __name__ == "__main__":
    main()
