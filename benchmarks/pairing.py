"""What each rule of pairs costs on a large store: `python -m benchmarks.pairing`.

A store of 125,000 prompts with 6 responses and 2 refinements each, rated on 6 aspects and by a reward, is made in a temporary
folder. Every rule then runs in a process of its own: seconds on the clock, seconds of CPU in user mode (which other work on
the machine hardly changes), and the most memory that the process held.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, get_args

from rlrf.fingerprints import content_id
from rlrf.pair_config import Pairs, Rule
from storage.pairing import select_pairs
from storage.store import Store, open_store

ASPECTS = ("answer", "arithmetic", "clarity", "completeness", "conciseness", "steps")
NAMES = ("prompts", "explored", "refined", "judge", "reward", "generation", "policy", "pairs")
KEYS = {name: content_id("benchmark", f"pairing {name}") for name in NAMES}

_FILL = """
CREATE TEMP TABLE made AS
    SELECT md5('prompt ' || i // $each)::UUID AS prompt_id, md5('response ' || i)::UUID AS response_id,
           CASE WHEN i % $each >= $each - 2 THEN md5('response ' || (i - i % $each))::UUID END AS parent_id,
           i % $each AS position, hash(i) AS draw, i // $each AS asked
    FROM range($first * $each, ($first + $number) * $each) t(i);
INSERT INTO prompts SELECT DISTINCT prompt_id, 'benchmark', '[]', NULL, '{}', now() FROM made;
INSERT INTO responses
    SELECT response_id, prompt_id, parent_id, $generation, $policy, position, position,
           array_to_string([md5(j || ':' || draw % 64 || ':' || asked) FOR j IN range(12)], ''),
           CASE WHEN draw % 97 = 0 THEN 'length' ELSE 'stop' END, 50, (20 + draw % 300)::INTEGER, 'none', NULL, NULL, now()
    FROM made;
CREATE TEMP TABLE rated AS
    SELECT response_id, place, CASE WHEN hash(asked) % 100 + hash(draw) % 100 + hash(draw % 1000000 + place) % 100 > 110
           THEN 1 ELSE (hash(draw % 1000000 + 7 * place) % 2)::INTEGER - 1 END::DOUBLE AS level
    FROM made, range(len($aspects)) t(place);
INSERT INTO ratings
    SELECT response_id, $judge, $aspects[place + 1], place, level, level, 'what the judge says of it, in a few words'
    FROM rated;
INSERT INTO judgements
    SELECT response_id, $judge, avg(level), min(level) = 1, NULL, NULL, 0, 0, 0, NULL, now() FROM rated GROUP BY response_id;
INSERT INTO judgements
    SELECT response_id, $reward, (draw % 100000) / 1000, false, NULL, NULL, 0, 0, 0, NULL, now() FROM made;
INSERT INTO members SELECT DISTINCT $prompts::UUID, prompt_id FROM made;
INSERT INTO members SELECT CASE WHEN parent_id IS NULL THEN $explored ELSE $refined END::UUID, response_id FROM made;
"""


def fill(path: Path, prompts: int, each: int, first: int = 0, aspects: int = len(ASPECTS)) -> None:
    """Make the store, by SQL, or add to it the prompts from number `first` on."""
    values: dict[str, Any] = {"first": first, "number": prompts, "each": each, **KEYS}
    values["aspects"] = list(ASPECTS[:aspects])
    with open_store(path).connect() as connection:
        for statement in filter(str.strip, _FILL.split(";\n")):
            connection.execute(statement, {name: values[name] for name in values if f"${name}" in statement})


def cpu_seconds() -> float:
    """Seconds of CPU that this process spent in user mode, all threads."""
    return os.times().user


def peak_bytes() -> int:
    """The most memory that this process held. Not `ru_maxrss`, which starts from what its parent held."""
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    return 1024 * int(status.split("VmHWM:")[1].split()[0])


def one_rule(path: Path, rule: Pairs, reward: bool) -> dict[str, float]:
    """Run one rule here."""
    began, cpu = time.perf_counter(), cpu_seconds()
    pairs, dropped = select_pairs(
        Store(path),
        KEYS["pairs"],
        prompts=KEYS["prompts"],
        responses=[KEYS["explored"], KEYS["refined"]],
        judge_key=KEYS["judge"],
        rule=rule,
        seed=0,
        reward_key=KEYS["reward"] if reward else None,
    )
    spent = {"seconds": time.perf_counter() - began, "cpu": cpu_seconds() - cpu, "peak": peak_bytes()}
    return spent | {"pairs": pairs, "dropped": sum(dropped.values())}


def measured(path: Path, rule: Pairs, reward: bool) -> dict[str, float]:
    """Run one rule in a process of its own, on a copy of the store."""
    copy = path.with_name("copy.duckdb")
    shutil.copy(path, copy)
    command = [sys.executable, "-m", "benchmarks.pairing", "--store", str(copy), "--rule", rule.model_dump_json()]
    done = subprocess.run([*command, *(["--reward"] if reward else [])], capture_output=True, text=True, check=False)
    copy.unlink()
    if done.returncode:
        raise SystemExit(f"rule {rule.type!r}: {done.stderr}")
    return json.loads(done.stdout)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--prompts", type=int, default=125_000)
    parser.add_argument("--each", type=int, default=8, help="responses per prompt, the two refinements among them")
    parser.add_argument("--rules", nargs="+", default=get_args(Rule))
    parser.add_argument("--k", type=int, nargs="+", default=[1, 4])
    parser.add_argument("--store", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--rule", type=Pairs.model_validate_json, help=argparse.SUPPRESS)
    parser.add_argument("--reward", action="store_true", help="rank by the reward")
    asked = parser.parse_args()
    if asked.store:
        print(json.dumps(one_rule(asked.store, asked.rule, asked.reward)))
        return
    with tempfile.TemporaryDirectory(dir=".") as place:
        path = Path(place) / "store.duckdb"
        fill(path, asked.prompts, asked.each)
        size = path.stat().st_size / 2**30
        rows = asked.prompts * asked.each
        print(
            f"{rows:,} responses, {rows * len(ASPECTS):,} ratings, {size:.1f} GiB; {os.cpu_count()} cores, "
            f"load {os.getloadavg()[0]:.1f}\n"
        )
        print(
            "| rule | k | seconds | CPU seconds (user) | peak GB | pairs | prompts dropped |\n|---|---|---|---|---|---|---|"
        )
        for name in asked.rules:
            for k in asked.k:
                found = measured(path, Pairs(type=name, k=k), asked.reward)
                print(
                    f"| {name} | {k} | {found['seconds']:.1f} | {found['cpu']:.1f} | {found['peak'] / 1e9:.2f} "
                    f"| {found['pairs']:,} | {found['dropped']:,} |",
                    flush=True,
                )


if __name__ == "__main__":
    main()
