"""What the audit of a large pair set costs: `python -m benchmarks.audit --pairs 100000`.

So many pairs of 1,000 characters a side, each on a prompt of its own: word problems, whose numbers tell most of them apart, or
60 random words without any number, the worst case for near-duplicates. 1,000 prompts are held out.
"""

from __future__ import annotations

import argparse
import json
import random
import tempfile
import time
from itertools import islice
from pathlib import Path

import pyarrow as pa

from rlrf.auditing import lines
from rlrf.fingerprints import content_id
from rlrf.pair_config import Audit
from rlrf.word_problems import word_problems
from storage.auditing import audit
from storage.store import Store, open_store

KEY = content_id("benchmark", "audit")
HELD_OUT, CHARACTERS = 1000, 1000

FILL = (
    "INSERT INTO prompts (prompt_id, source, messages, metadata) SELECT id, 'benchmark', messages, '{}' FROM asked",
    "INSERT INTO held_out.prompts (prompt_id, source, messages, metadata) SELECT id, 'benchmark', messages, '{}' FROM unseen",
    f"INSERT INTO held_out.members SELECT '{KEY}', id FROM unseen",
    f"INSERT INTO members SELECT '{KEY}', id FROM given",
    f"""INSERT INTO responses (response_id, prompt_id, gen_key, policy_id, position, text, finish_reason, completion_tokens,
        backend) SELECT id, prompt, '{KEY}', '{KEY}', 0, text, 'stop', 250, 'none' FROM given""",
    f"""INSERT INTO judgements (response_id, judge_key, score, positive, prompt_tokens, completion_tokens, attempts)
        SELECT id, '{KEY}', top::INTEGER, top, 0, 0, 0 FROM given""",
    f"""INSERT INTO pairs SELECT '{KEY}', c.prompt, 0, c.id, r.id FROM given c JOIN given r USING (prompt)
        WHERE c.top AND NOT r.top""",
)


def questions(kind: str, split: str, count: int) -> list[str]:
    """So many different questions."""
    if kind == "word problems":
        return [one.question for one in islice(word_problems(split, seed=0), count)]  # type: ignore[arg-type]
    draw = random.Random(split)
    words = ["".join(draw.choices("abcdefghij", k=4)) for _ in range(5000)]
    return [" ".join(draw.choices(words, k=60)) for _ in range(count)]


def table(texts: list[str], name: str) -> pa.Table:
    """Prompts as rows."""
    messages = [json.dumps([{"role": "user", "content": text}]) for text in texts]
    return pa.table({"id": [content_id(name, at) for at in range(len(texts))], "messages": messages})


def fill(store: Store, kind: str, pairs: int) -> None:
    """A store with so many pairs."""
    asked = table(questions(kind, "prompts", pairs), "prompt")
    unseen = table(questions(kind, "held_out", HELD_OUT), "held out")
    text = "".join(random.Random(0).choices("abcdefghijkl \n", k=2 * CHARACTERS))
    given = pa.table(
        {
            "id": [content_id("response", at) for at in range(2 * pairs)],
            "prompt": [prompt for prompt in asked["id"].to_pylist() for _ in range(2)],
            "text": [f"{at} {text[at % CHARACTERS :][:CHARACTERS]}" for at in range(2 * pairs)],
            "top": [not at % 2 for at in range(2 * pairs)],
        }
    )
    with store.connect() as connection:
        for name, rows in {"asked": asked, "unseen": unseen, "given": given}.items():
            connection.register(name, rows)
        for statement in FILL:
            connection.execute(statement)


def main() -> None:
    """Print wall and processor seconds for both kinds of prompts."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", type=int, default=100_000)
    pairs = parser.parse_args().pairs
    for kind in ("word problems", "random words"):
        with tempfile.TemporaryDirectory() as folder:
            store = open_store(Path(folder) / "store.duckdb")
            fill(store, kind, pairs)
            wall, processor = time.perf_counter(), time.process_time()
            found = audit(store, KEY, KEY, judged=[KEY], judge_key=KEY, held_out=KEY, settings=Audit(), seed=0)
            took = time.perf_counter() - wall, time.process_time() - processor
        print(f"{pairs:,} pairs on {kind}: {took[0]:.1f} s, {took[1]:.1f} s of the processors")
        print("\n".join(lines(found)))


if __name__ == "__main__":
    main()
