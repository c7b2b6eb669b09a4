"""What is generated again: `python -m benchmarks.reuse`.

Runs `rlrf run` on word problems with a scripted engine in batches of 16, which notes every response that it makes, also
those that a kill loses. Raises n from 8 to 10 after a finished run; and kills a run (-9, its whole process group) when
60 % of the responses have been made, then starts the same command again. Prints the tokens generated over the tokens needed.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from rlrf.config import load_config
from rlrf.records import Request
from rlrf.word_problems import word_problems
from storage.store import Store, open_store
from tests import builders
from tests.rlrf.backends.tiny_model import build_tiny_model

MADE, SECONDS = "RLRF_BENCH_MADE", 0.002
BATCH = 16


def reply(request: Request) -> str:
    """10 to 60 words by the request's seed, noted in a file."""
    time.sleep(SECONDS)
    words = random.Random(request.seed).randint(10, 60)
    with open(os.environ[MADE], "a", encoding="utf-8") as file:
        file.write(f"{request.request_id} {words}\n")
    return "word " * (words - 1) + "end"


@dataclass(frozen=True)
class Wheel:
    """A run's folder, and the file in which the engine notes what it made."""

    folder: Path
    model: Path
    prompts: int

    @property
    def made(self) -> Path:
        """One line per response that the engine made: id and tokens."""
        return self.folder / "made.txt"

    def config(self, n: int) -> Path:
        """A run of so many responses per prompt, up to its pairs, of which there are too few."""
        learn = [
            {"question": one.question, "answer": one.answer}
            for one in islice(word_problems("prompts", seed=1), self.prompts)
        ]
        path = builders.write_lines(self.folder / "learn.jsonl", learn)
        return builders.write_config(
            self.folder,
            self.model,
            engine={"type": "scripted", "reply": "benchmarks.reuse:reply", "batch_size": BATCH},
            prompts__sources=[builders.source(path)],
            prompts__per_iteration=None,
            explore__n=n,
            refine__m=0,
            limits__unrated=1.0,
            pairs__min_pairs=builders.NEVER,
        )

    def start(self, n: int) -> subprocess.Popen[bytes]:
        """`rlrf run` in a process group of its own."""
        return subprocess.Popen(
            [Path(sys.executable).with_name("rlrf"), "run", self.config(n)],
            env=os.environ | {MADE: str(self.made)},
            start_new_session=True,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
        )

    def run(self, n: int) -> None:
        """To its end, which is a stop before training."""
        process = self.start(n)
        _, said = process.communicate()
        assert process.returncode == 3, said.decode()

    def run_until(self, n: int, responses: int) -> None:
        """Until the engine has made so many, exam included; then it is killed."""
        process = self.start(n)
        while process.poll() is None and len(self.lines()) < responses:
            time.sleep(0.01)
        assert process.poll() is None, "it ended before it could be killed"
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()

    def lines(self) -> list[tuple[str, int]]:
        """What the engine made: ids and tokens."""
        text = self.made.read_text(encoding="utf-8") if self.made.exists() else ""
        return [(one, int(tokens)) for one, tokens in (line.split() for line in text.splitlines())]

    def store(self, n: int) -> Store:
        """The run's store."""
        return open_store(load_config(self.config(n)).store_path)

    def row(self, what: str, n: int) -> str:
        """One line of the table."""
        store = self.store(n)
        sql = "SELECT response_id, completion_tokens AS tokens FROM responses"
        needed = {row["response_id"]: row["tokens"] for row in store.query(sql)}
        assert len(needed) == self.prompts * n
        generated = sum(tokens for one, tokens in self.lines() if one in needed)
        again = sum(one in needed for one, _ in self.lines()) - len(needed)
        orphans = store.value("SELECT count(*) FROM responses WHERE response_id NOT IN (SELECT member_id FROM members)")
        share = generated / sum(needed.values())
        return f"| {what} | {len(needed):,} | {sum(needed.values()):,} | {generated:,} | {share:.3f} x | {again} | {orphans} |"


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--prompts", type=int, default=200)
    prompts = parser.parse_args().prompts
    with tempfile.TemporaryDirectory() as place:
        model = build_tiny_model(Path(place) / "tiny")
        raised, killed = (Wheel(Path(place) / name, model, prompts) for name in ("raised", "killed"))
        for wheel in (raised, killed):
            wheel.folder.mkdir()
        for n in (8, 10):
            raised.run(n)
        killed.run_until(10, builders.HELD_OUT + round(0.6 * prompts * 10))
        killed.run(10)
        head = "work | responses needed | tokens needed | tokens generated | generated / needed | made twice | orphans"
        print(f"| {head} |\n|{'---|' * 7}")
        print(raised.row("n from 8 to 10", 10))
        print(killed.row("killed at 60 %, run again", 10))


if __name__ == "__main__":
    main()
