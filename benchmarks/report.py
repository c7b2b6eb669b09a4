"""Size, seconds and memory of `rlrf report`: python -m benchmarks.report [RESPONSES ...], 10,000 and 100,000 by default.

Texts are synthetic: words drawn by Zipf's law from 20,000, responses of 40 to 400 of them (mean 170), four critiques of about
20 each, 8 responses and 2 refinements per prompt. Each page is written by a process of its own, whose peak is what is told.
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from rlrf.fingerprints import content_id
from storage.store import insert, open_store

ASPECTS = ("correctness", "clarity", "completeness", "brevity")
RUN, JUDGE, POLICY, GEN = (content_id("benchmark", name) for name in ("run", "judge", "policy", "gen"))
PROMPTS, RESPONSES, REFINEMENTS, PAIRS = (
    content_id("set", name) for name in ("prompts", "responses", "refined", "pairs")
)
CHUNK = 1_000


def main() -> None:
    """Print one line per number of responses."""
    for count in map(int, sys.argv[1:] or ("10000", "100000")):
        with tempfile.TemporaryDirectory() as folder:
            build(Path(folder), count)
            code = "from benchmarks.report import write; import sys; write(sys.argv[1])"
            done = subprocess.run([sys.executable, "-c", code, folder], capture_output=True, text=True, check=True)
            print(f"{count:>9,} responses: {done.stdout.strip()}", flush=True)


def write(folder: str) -> None:
    """Write the page and print what it took."""
    from flows.report_page import write_page
    from storage.store import Store

    store = Store(Path(folder) / "store.duckdb")
    began = time.monotonic()
    page = write_page(store)
    seconds, peak = time.monotonic() - began, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    shown = f"{page.responses:,} responses of {page.prompts:,} prompts shown"
    print(f"{page.bytes / 1e6:.1f} MB, {seconds:.1f} s, peak {peak:,.0f} MB, {shown}; load {os.getloadavg()[0]:.1f}")


def build(folder: Path, responses: int) -> None:
    """A store with one finished iteration of so many responses, refinements included."""
    store, random = open_store(folder / "store.duckdb"), np.random.default_rng(0)
    words = np.array(["".join(random.choice(list("etaoinshrdlucm"), random.integers(2, 10))) for _ in range(20_000)])

    def text(mean: int) -> str:
        ranks = (random.zipf(1.15, max(3, int(random.gamma(4, mean / 4)))) - 1) % len(words)
        return " ".join(words[ranks])

    run = {"run_id": RUN, "name": "benchmark", "config": "{}", "status": "completed", "host": "here", "pid": 1}
    policy = {"policy_id": POLICY, "name": "policy", "kind": "model"}
    keys = {"explore": RESPONSES, "refine": REFINEMENTS, "select_pairs": PAIRS}
    iteration = {
        "run_id": RUN,
        "iteration": 1,
        "arm": "policy",
        "policy_id": POLICY,
        "evaluation": GEN,
        "judge_key": JUDGE,
    }
    iteration |= {"prompts_key": PROMPTS, "responses_key": RESPONSES, "refinements_key": REFINEMENTS, "pair_set": PAIRS}
    iteration |= {"stage_keys": json.dumps(keys), "seconds": 1.0}
    with store.connect() as connection:
        for table, row in (("runs", run), ("policies", policy), ("iterations", iteration)):
            insert(connection, table, [row])
        for first in range(0, responses // 10, CHUNK // 10):
            tables: dict[str, list[dict[str, object]]] = {}
            for number in range(first, min(first + CHUNK // 10, responses // 10)):
                for table, row in _rows(number, text, random):
                    tables.setdefault(table, []).append(row)
            for table, rows in tables.items():
                insert(connection, table, rows, looked_up=True)


def _rows(number, text, random):  # type: ignore[no-untyped-def]
    prompt = content_id("prompt", number)
    message = json.dumps([{"role": "user", "content": text(60)}])
    yield (
        "prompts",
        {"prompt_id": prompt, "source": "synthetic", "messages": message, "reference": "42", "metadata": "{}"},
    )
    yield "members", {"set_key": PROMPTS, "member_id": prompt}
    ids = [content_id("response", [number, position]) for position in range(10)]
    for position, one in enumerate(ids):
        said, refined = text(170), position >= 8
        row = {"response_id": one, "prompt_id": prompt, "parent_id": ids[0] if refined else None, "gen_key": GEN}
        row |= {
            "policy_id": POLICY,
            "position": position,
            "text": said,
            "finish_reason": "stop",
            "backend": "synthetic",
        }
        yield "responses", row | {"completion_tokens": said.count(" ") * 4 // 3}
        yield "members", {"set_key": REFINEMENTS if refined else RESPONSES, "member_id": one}
        levels = random.integers(-1, 2, len(ASPECTS)).astype(float)
        judged = {
            "response_id": one,
            "judge_key": JUDGE,
            "score": float(levels.mean()),
            "positive": bool(levels.min() == 1),
        }
        yield "judgements", judged | {"prompt_tokens": 300, "completion_tokens": 80, "attempts": 1}
        for place, (aspect, level) in enumerate(zip(ASPECTS, levels.tolist(), strict=True)):
            rating = {"response_id": one, "judge_key": JUDGE, "aspect": aspect, "place": place, "rating": level}
            yield "ratings", rating | {"level": level, "critique": text(20)}
    yield "pairs", {"pair_set": PAIRS, "prompt_id": prompt, "position": 0, "chosen_id": ids[9], "rejected_id": ids[1]}


if __name__ == "__main__":
    main()
