"""What EndpointGenerator costs beside the least that aiohttp can do: `python -m benchmarks.endpoint_client`.

Both send the same chats to a server on loopback, in turns. The bare loop keeps every answer's text and checks nothing;
EndpointGenerator also names failures, looks at usage, and hands batches to another thread. CPU time is the client's
alone (the server is a process of its own): on a shared machine it says more than rows per second.
"""

from __future__ import annotations

import asyncio
import multiprocessing
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection
from statistics import median

import aiohttp

from rlrf.backends.endpoint import EndpointGenerator
from rlrf.backends.endpoint_questions import chat_content
from rlrf.records import Completion, Request, Sampling
from tests.rlrf.backends.misbehaving_server import MODEL, MisbehavingServer

ROWS, IN_FLIGHT, TURNS = 2048, 64, 7
CHATS = [Request(str(i), ({"role": "user", "content": f"ok: {i} {'x' * 200}"},), seed=i) for i in range(ROWS)]


async def ask_bare(base_url: str) -> int:
    """The number of answers that a loop without any care gets."""
    todo, texts = iter(CHATS), []

    async def work(session: aiohttp.ClientSession) -> None:
        for chat in todo:
            content = chat_content(MODEL, chat, Sampling())
            async with session.post(f"{base_url}/chat/completions", json=content) as response:
                texts.append((await response.json())["choices"][0]["message"]["content"])

    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=IN_FLIGHT)) as session:
        await asyncio.gather(*(work(session) for _ in range(IN_FLIGHT)))
    return len(texts)


def ask_generator(base_url: str) -> int:
    """The number of answers that EndpointGenerator gets."""
    generator = EndpointGenerator(base_url, MODEL, api_key_env=None, concurrency=IN_FLIGHT)
    return sum(isinstance(row, Completion) for batch in generator.generate(CHATS, Sampling()) for row in batch)


def measured(ask: Callable[[], int]) -> tuple[float, float]:
    """Rows per second, and microseconds of this process's CPU time per row."""
    wall, cpu = time.perf_counter(), time.process_time()
    assert ask() == ROWS
    return ROWS / (time.perf_counter() - wall), 1e6 * (time.process_time() - cpu) / ROWS


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
    """Print medians of both, and what EndpointGenerator takes for each unit of the bare loop."""
    with served() as base_url:
        clients = {"bare aiohttp": lambda: asyncio.run(ask_bare(base_url)), "rlrf": lambda: ask_generator(base_url)}
        turns = [{name: measured(ask) for name, ask in clients.items()} for _ in range(TURNS)]
    medians = {name: [median(turn[name][i] for turn in turns) for i in (0, 1)] for name in clients}
    for name, (rate, cpu) in medians.items():
        print(f"{name:12}  {rate:6.0f} rows/s  {cpu:4.0f} us CPU per row")
    ratios = [median(turn["rlrf"][i] / turn["bare aiohttp"][i] for turn in turns) for i in (0, 1)]
    print(f"{'ratio':12}  {ratios[0]:6.2f}         {ratios[1]:4.2f}   (medians of {TURNS} turns of {ROWS} rows)")


if __name__ == "__main__":
    main()
