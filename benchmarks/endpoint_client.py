"""What EndpointGenerator costs beside the least that aiohttp can do: `python -m benchmarks.endpoint_client`.

Three clients send the same chats to a server that answers at once, 256 requests for 8 responses each and then 2,048 for
one, 64 in flight, in turns:

    bare aiohttp      keeps every response's text, checks nothing, stores nothing
    client            EndpointGenerator: names failures, counts tokens, hands batches to another thread
    client and store  the same, and every row committed to a DuckDB store on disk before the next batch is taken

CPU time is this process's alone (the server is another): on a shared machine it says more than wall time.
"""

from __future__ import annotations

import argparse
import asyncio
import multiprocessing
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection
from pathlib import Path
from statistics import median
from typing import Any

import aiohttp

from rlrf.backends.endpoint.generator import EndpointGenerator
from rlrf.engine_config import Client
from rlrf.exploring import Planned, plan_responses
from rlrf.fingerprints import content_id
from rlrf.records import Completion, Prompt, Request, Sampling
from storage.rows import add_prompts, add_results
from storage.store import Store, open_store
from tests.rlrf.backends.endpoint.misbehaving_server import MODEL, MisbehavingServer

WORK = ((256, 8), (2048, 1))
"""Chats, and responses to each."""
ROWS = sum(chats * n for chats, n in WORK)
IN_FLIGHT, TURNS = 64, 7
KEY = content_id("benchmark", "endpoint_client")
COMMON = {"gen_key": KEY, "policy_id": KEY, "backend": "endpoint", "run_id": KEY}


def prompts(chats: int, n: int) -> list[Prompt]:
    """Prompts of some 200 characters."""
    texts = [f"ok: {n} {i} {'x' * 200}" for i in range(chats)]
    return [Prompt(content_id("prompt", text), "benchmark", ({"role": "user", "content": text},)) for text in texts]


CHATS = [(prompt, n) for chats, n in WORK for prompt in prompts(chats, n)]
PLAN: list[Planned] = [one for prompt, n in CHATS for one in plan_responses(KEY, [prompt], n)]
REQUESTS = [Request(one.response_id, one.messages, one.seed) for one in PLAN]
PLANNED = {
    one.response_id: {name: getattr(one, name) for name in ("prompt_id", "parent_id", "position", "seed")}
    for one in PLAN
}


async def ask_bare(base_url: str) -> int:
    """The number of texts that a loop without any care gets."""
    todo, texts = iter(CHATS), []

    async def work(session: aiohttp.ClientSession) -> None:
        for prompt, n in todo:
            content: dict[str, Any] = {"model": MODEL, "messages": prompt.messages, "temperature": 1.0, "top_p": 1.0}
            content |= {"max_tokens": 512, "seed": 0, "n": n}
            async with session.post(f"{base_url}/chat/completions", json=content) as response:
                texts.extend(choice["message"]["content"] for choice in (await response.json())["choices"])

    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=IN_FLIGHT)) as session:
        await asyncio.gather(*(work(session) for _ in range(IN_FLIGHT)))
    return len(texts)


def ask_client(base_url: str, batch_rows: int, keep: Callable[[list[Any]], object] = len) -> int:
    """The number of rows that EndpointGenerator gets; `keep` takes each batch."""
    generator = EndpointGenerator(
        base_url, MODEL, Client(concurrency=IN_FLIGHT), batch_rows=batch_rows, backlog=2 * batch_rows
    )
    rows = 0
    for batch in generator.generate(REQUESTS, Sampling()):
        keep(batch)
        rows += sum(isinstance(row, Completion) for row in batch)
    return rows


def measured(ask: Callable[[], int]) -> tuple[float, float]:
    """Wall and CPU seconds of this process."""
    wall, cpu = time.perf_counter(), time.process_time()
    rows = ask()
    spent = time.perf_counter() - wall, time.process_time() - cpu
    assert rows == ROWS, rows
    return spent


def turn(base_url: str, folder: str, batch_rows: int) -> dict[str, tuple[float, float]]:
    """Each client once; the store is new and knows the prompts."""
    store = open_store(Path(folder) / "store.duckdb")
    add_prompts(store, [prompt for prompt, _ in CHATS])
    batches: list[tuple[float, float]] = []
    found = {
        "bare aiohttp": measured(lambda: asyncio.run(ask_bare(base_url))),
        "client": measured(lambda: ask_client(base_url, batch_rows)),
        "client and store": measured(
            lambda: ask_client(base_url, batch_rows, lambda batch: batches.append(stored(store, batch)))
        ),
    }
    assert store.value("SELECT count(*) FROM responses") == ROWS
    found["of it add_results"] = (sum(wall for wall, _ in batches), sum(cpu for _, cpu in batches))
    found["batches"] = (len(batches), len(batches))
    return found


def stored(store: Store, batch: list[Any]) -> tuple[float, float]:
    """Wall and CPU seconds of one batch's transaction; the CPU is that of the calling thread."""
    wall, cpu = time.perf_counter(), time.thread_time()
    add_results(store, batch, PLANNED, COMMON)
    return time.perf_counter() - wall, time.thread_time() - cpu


@contextmanager
def served() -> Iterator[str]:
    """The address of a server in another process."""
    ours, theirs = multiprocessing.get_context("spawn").Pipe()
    server = multiprocessing.get_context("spawn").Process(target=serve, args=(theirs,))
    server.start()
    try:
        yield ours.recv()
    finally:
        ours.send("end")
        server.join()


def serve(channel: Connection) -> None:
    """Serve until told to end."""
    with MisbehavingServer() as server:
        channel.send(server.base_url)
        channel.recv()


def main() -> None:
    """Print medians, and what each takes for a unit of the bare loop."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--batch-rows", type=int, default=2048, help="rows of one transaction at most")
    batch_rows = parser.parse_args().batch_rows
    turns = []
    with served() as base_url:
        for number in range(TURNS + 1):
            with tempfile.TemporaryDirectory() as folder:
                found = turn(base_url, folder, batch_rows)
            if number:  # the first one warms up
                turns.append(found)
    print(
        f"{ROWS:,} rows by {sum(chats for chats, _ in WORK):,} requests, {IN_FLIGHT} in flight, medians of {TURNS} turns"
    )
    print(f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}\n")
    print(f"{'':18}{'wall s':>8}{'CPU s':>8}{'wall ratio':>12}{'CPU ratio':>11}")
    for name in ("bare aiohttp", "client", "client and store", "of it add_results"):
        wall, cpu = (median(one[name][i] for one in turns) for i in (0, 1))
        ratios = [median(one[name][i] / one["bare aiohttp"][i] for one in turns) for i in (0, 1)]
        print(f"{name:18}{wall:8.3f}{cpu:8.3f}{ratios[0]:12.2f}{ratios[1]:11.2f}")
    print(f"\n{median(one['batches'][0] for one in turns):.0f} transactions")


if __name__ == "__main__":
    main()
