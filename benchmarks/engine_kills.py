"""Kill -9 in the middle of exploring: `python -m benchmarks.engine_kills --kills 20`.

Three arms on a random tiny model and a real vLLM server: its worker, its API server, and the run itself are killed at random
moments, found in the process table as an operator would. Prints, per arm: whether the store holds exactly the planned rows,
how many tokens were generated twice per kill beside one in-flight window, how long a kill cost, and what was left running.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

from benchmarks.shapes import build_shape
from storage.store import open_store

PROMPTS, N, MAX_TOKENS, IN_FLIGHT, CHOICES = 400, 8, 64, 16, 8
WINDOW = IN_FLIGHT * CHOICES * MAX_TOKENS
POLL_SECONDS, ORPHAN_SECONDS = 0.05, 5.0
CONFIG = """
name = "kills"
home = {home}
iterations = 1
[policy]
model = {model}
[[prompts.sources]]
name = "numbers"
path = {prompts}
columns = {{prompt = "question", reference = "answer"}}
[prompts.held_out]
fraction = 0.01
[engine]
type = "vllm"
concurrency = {in_flight}
choices_per_request = {choices}
kv_cache_gib = 0.125
max_num_seqs = 128
restarts = 1000
[explore]
n = {n}
max_tokens = {max_tokens}
[refine]
m = 0
[evaluate]
max_tokens = 1
[limits]
failed = 0.0
unrated = 1.0
"""


@dataclass
class Arm:
    """What happened in one arm."""

    victim: str
    kills: int = 0
    generated: int = 0
    wasted: list[int] = field(default_factory=list)
    back: list[float] = field(default_factory=list)
    orphans: int = 0


@dataclass(frozen=True)
class Process:
    """One line of the process table."""

    pid: int
    session: int
    words: str


def processes() -> Iterator[Process]:
    """The process table, this process left out."""
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit() and int(folder.name) != os.getpid():
            try:
                words = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
                session = int((folder / "stat").read_text().rpartition(")")[2].split()[3])
                state = (folder / "stat").read_text().rpartition(")")[2].split()[0]
            except (OSError, ValueError, IndexError):
                continue
            if state != "Z":
                yield Process(int(folder.name), session, words.strip())


def server_of(model: Path) -> Process | None:
    """The API server that serves this folder."""
    found = [
        one for one in processes() if "api_server" in one.words and str(model) in one.words and "guard" not in one.words
    ]
    return max(found, key=lambda one: one.pid, default=None)


def worker_of(server: Process) -> Process | None:
    """Its worker."""
    same = [one for one in processes() if one.session == server.session]
    return next((one for one in same if "VLLM::Worker" in one.words), None) or next(
        (one for one in same if "VLLM::EngineCore" in one.words), None
    )


def tokens_of(server: Process) -> int | None:
    """Tokens that this server has generated, None while it doesn't answer."""
    port = re.search(r"--port[ =](\d+)", server.words)
    if port is None:
        return None
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port[1]}/metrics", timeout=2) as reply:
            text = reply.read().decode()
    except OSError:
        return None
    found = re.findall(r"^vllm:generation_tokens_total\{[^}]*\} ([\d.e+]+)", text, re.MULTILINE)
    return round(sum(map(float, found))) if found else None


def wait_until_tokens(
    model: Path, run: subprocess.Popen[bytes], wanted: int, not_session: int | None
) -> Process | None:
    """The server once it has generated so many tokens; None when the run ended before."""
    while run.poll() is None:
        server = server_of(model)
        if server is not None and server.session != not_session and (tokens_of(server) or 0) >= wanted:
            return server
        time.sleep(POLL_SECONDS)
    return None


def stored(home: Path) -> tuple[int, int, int]:
    """Rows, distinct rows and tokens of the exploration."""
    sql = """SELECT count(*) AS rows, count(DISTINCT response_id) AS ids,
                    coalesce(sum(completion_tokens), 0) AS tokens FROM responses"""
    row = open_store(home / "store.duckdb").query(sql)[0]
    return int(row["rows"]), int(row["ids"]), int(row["tokens"])


def start(config: Path, log: Path) -> subprocess.Popen[bytes]:
    """`rlrf run` in a session of its own."""
    with log.open("ab") as file:
        return subprocess.Popen(
            [str(Path(sys.executable).with_name("rlrf")), "run", str(config)],
            stdout=file,
            stderr=file,
            start_new_session=True,
        )


def left_running(home: Path, model: Path) -> list[Process]:
    """What still runs of a run that is dead, after a moment's grace."""
    deadline = time.monotonic() + ORPHAN_SECONDS
    while True:
        found = [one for one in processes() if str(model) in one.words or str(home) in one.words]
        if not found or time.monotonic() > deadline:
            return found
        time.sleep(0.1)


def work(arm: Arm, folder: Path, kills: int, draw: random.Random) -> str:
    """One arm from an empty store to its end; returns its line of the table."""
    home, model = folder / arm.victim / "home", build_shape("tiny", folder / arm.victim / "model")
    config, log = configured(folder / arm.victim, home, model), folder / arm.victim / "run.log"
    run, life = start(config, log), None
    killed_at: float | None = None
    while True:
        # A quarter of a life's tokens at most, so that the kills fall all over the exploration.
        wanted = (
            draw.randint(200, max(400, PROMPTS * N * MAX_TOKENS // max(kills, 1) * 3 // 2))
            if arm.kills < kills
            else 10**12
        )
        server = wait_until_tokens(model, run, min(wanted, 1), life)
        if server is None:
            break
        life = server.session
        if killed_at is not None:
            arm.back.append(time.monotonic() - killed_at)
            killed_at = None
        before = stored(home)[2]
        seen = follow(server, run, wanted)
        if run.poll() is not None or seen < wanted:
            arm.generated += seen
            if run.poll() is not None:
                break
            continue
        victim = {"worker": worker_of(server), "server": server, "run": Process(run.pid, 0, "")}[arm.victim]
        if victim is None:
            continue
        os.kill(victim.pid, signal.SIGKILL)
        killed_at, arm.kills = time.monotonic(), arm.kills + 1
        if arm.victim == "run":
            run.wait()
            arm.orphans += len(left_running(home, model))
            arm.wasted.append(max(0, seen - (stored(home)[2] - before)))
            run, life = start(config, log), None
        else:
            time.sleep(0.5)
            arm.wasted.append(max(0, seen - (stored(home)[2] - before)))
        arm.generated += seen
    run.wait()
    arm.orphans += len(left_running(home, model))
    rows, ids, _ = stored(home)
    planned = open_store(home / "store.duckdb").value("SELECT count(*) FROM prompts") * N
    print(
        f"{arm.victim}: exit {run.returncode}, planned {planned}, rows {rows}, ids {ids}", file=sys.stderr, flush=True
    )
    worst, back = max(arm.wasted, default=0), arm.back or [0.0]
    return (
        f"| {arm.victim} | {arm.kills} | {planned:,} | {rows:,} | {planned - ids:,} | {rows - ids:,} "
        f"| {median(arm.wasted or [0]):,.0f} / {worst:,} of {WINDOW:,} | {median(back):.1f} / {max(back):.1f} | {arm.orphans} |"
    )


def follow(server: Process, run: subprocess.Popen[bytes], wanted: int) -> int:
    """Tokens of this server's life, until there are so many or it ends."""
    seen = 0
    while run.poll() is None:
        now = tokens_of(server)
        if now is None:
            return seen
        seen = now
        if seen >= wanted:
            return seen
        time.sleep(POLL_SECONDS)
    return seen


def configured(folder: Path, home: Path, model: Path) -> Path:
    """The run's files."""
    prompts = folder / "prompts.jsonl"
    rows = [{"question": f"What is {i} + {i * 7 % 97}?", "answer": str(i + i * 7 % 97)} for i in range(PROMPTS)]
    prompts.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    config = folder / "kills.toml"
    places = {"home": json.dumps(str(home)), "model": json.dumps(str(model)), "prompts": json.dumps(str(prompts))}
    numbers = {"in_flight": IN_FLIGHT, "choices": CHOICES, "n": N, "max_tokens": MAX_TOKENS}
    config.write_text(CONFIG.format(**places, **numbers), encoding="utf-8")
    return config


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--victims", nargs="+", default=["worker", "server", "run"])
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--folder", type=Path, default=Path("runs/engine-kills"))
    arguments = parser.parse_args()
    draw = random.Random(arguments.seed)
    print(
        "| killed | kills | rows planned | rows stored | lost | doubled | tokens generated twice per kill, median / most "
        "| seconds until tokens flow again, median / most | left running |\n|---|---|---|---|---|---|---|---|---|",
        flush=True,
    )
    for victim in arguments.victims:
        shutil.rmtree(arguments.folder / victim, ignore_errors=True)
        (arguments.folder / victim).mkdir(parents=True)
        print(work(Arm(victim), arguments.folder.absolute(), arguments.kills, draw), flush=True)


if __name__ == "__main__":
    main()
