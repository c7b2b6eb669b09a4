"""Tokens per second of exploring: `python -m benchmarks.explore [--shape tiny|1b|7b]`.

One vLLM server, started as a run starts it. In turns, over the same prompts with the same seeds: rlrf (its client, every
response durable in a store), and a bare aiohttp loop with the same requests and as many in flight, which keeps texts and
checks nothing. Beside them, each alone on the machine: the transformers backend, and vLLM's offline `LLM.generate` in the
engine's environment. Weights are random, so responses run to max_tokens and every arm makes the same number of tokens.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import re
import resource
import subprocess
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from statistics import median
from typing import Any

import aiohttp
import torch

from benchmarks.engine_kills import server_of
from benchmarks.shapes import SHAPES, build_shape
from rlrf.backends.engine.env import find_engine
from rlrf.backends.engine.generator import open_vllm
from rlrf.backends.engine.pool import pool
from rlrf.backends.local import LocalGenerator
from rlrf.backends.protocols import Generator
from rlrf.engine_config import Vllm
from rlrf.exploring import Planned, plan_responses
from rlrf.fingerprints import content_id
from rlrf.records import Completion, Prompt, Request, Sampling
from rlrf.word_problems import word_problems
from storage import rows
from storage.store import Store, open_store

OFFLINE = """
import json, sys, time
from vllm import LLM, SamplingParams
given = json.load(open(sys.argv[1]))
llm = LLM(**given["engine"])
chats = [chat for chat, _ in given["groups"]]
params = [SamplingParams(n=n, seed=seed, temperature=1.0, max_tokens=given["max_tokens"]) for _, (seed, n) in given["groups"]]
for _ in range(given["turns"]):
    began = time.perf_counter()
    done = llm.chat(chats, params, use_tqdm=False)
    seconds = time.perf_counter() - began
    print("RATE", sum(len(o.token_ids) for one in done for o in one.outputs) / seconds, flush=True)
"""


@dataclass(frozen=True)
class Measured:
    """One turn: tokens per second, CPU seconds of this process, seconds within the store."""

    rate: float
    cpu: float
    store: float = 0.0


class Bench:
    """The prompts, their plan, and the arms over it."""

    def __init__(self, folder: Path, model: Path, prompts: int, n: int, max_tokens: int, in_flight: int) -> None:
        self.folder, self.model, self.n, self.in_flight = folder, model, n, in_flight
        self.sampling = Sampling(temperature=1.0, max_tokens=max_tokens)
        chats = [{"role": "user", "content": one.question} for one in islice(word_problems("prompts", seed=3), prompts)]
        self.prompts = [Prompt(content_id("prompt", chat["content"]), "bench", (chat,)) for chat in chats]
        self.engine = Vllm(
            type="vllm", concurrency=in_flight, choices_per_request=n, max_num_seqs=256, kv_cache_gib=1.0
        )

    def plan(self, turn: int) -> list[Planned]:
        """Another turn has other ids and seeds."""
        return plan_responses(content_id("turn", turn), self.prompts, self.n)

    def rlrf(self, store: Store, turn: int) -> Measured:
        """What the stage does: plan, subtract what is there, generate, make durable."""
        generator = open_vllm(pool, self.engine, self.model, lora_rank=None, logs=self.folder, say=lambda text: None)
        return self.stored(generator, store, turn)

    def stored(self, generator: Generator, store: Store, turn: int) -> Measured:
        """Every response of a turn through a generator into the store."""
        plan = self.plan(turn)
        common = {name: content_id(name, turn) for name in ("gen_key", "policy_id", "run_id")} | {
            "backend": generator.name
        }
        began, cpu, in_store, tokens = time.perf_counter(), own_cpu(), 0.0, 0
        have = rows.existing(store, [one.response_id for one in plan])
        todo = [one for one in plan if one.response_id not in have]
        planned = {
            one.response_id: {"prompt_id": one.prompt_id, "parent_id": None, "position": one.position, "seed": one.seed}
            for one in todo
        }
        for batch in generator.generate(
            [Request(one.response_id, one.messages, one.seed) for one in todo], self.sampling
        ):
            tokens += sum(one.completion_tokens for one in batch if isinstance(one, Completion))
            at = time.perf_counter()
            rows.add_results(store, batch, planned, common)
            in_store += time.perf_counter() - at
        seconds = time.perf_counter() - began
        count = store.value("SELECT count(*) FROM responses WHERE gen_key = ?", [content_id("gen_key", turn)])
        assert count == len(plan), f"{count} of {len(plan)} rows are stored"
        return Measured(tokens / seconds, own_cpu() - cpu, in_store)

    def bare(self, turn: int) -> Measured:
        """The same requests with as many in flight, and nothing else."""
        server = server_of(self.model)
        assert server is not None, "the server runs: rlrf's turn came first"
        port = re.search(r"--port[ =](\d+)", server.words)
        name = re.search(r"--served-model-name[ =](\S+)", server.words)
        assert port and name
        environment = Path(f"/proc/{server.pid}/environ").read_bytes().split(b"\0")
        key = next(one for one in environment if one.startswith(b"VLLM_API_KEY=")).partition(b"=")[2].decode()
        url = f"http://127.0.0.1:{port[1]}/v1/chat/completions"
        contents = [
            {
                "model": name[1],
                "messages": list(first.messages),
                "temperature": self.sampling.temperature,
                "max_tokens": self.sampling.max_tokens,
                "seed": first.seed,
                "n": self.n,
            }
            for first in self.plan(turn)[:: self.n]
        ]
        began, cpu = time.perf_counter(), own_cpu()
        tokens = asyncio.run(ask_bare(url, key, contents, self.in_flight))
        return Measured(tokens / (time.perf_counter() - began), own_cpu() - cpu)

    def offline(self, turns: int) -> list[float]:
        """`LLM.chat` in the engine's environment with the server's settings; the last turns' tokens per second."""
        engine = find_engine()
        assert engine is not None
        groups = [(list(one.messages), (one.seed, self.n)) for one in self.plan(0)[:: self.n]]
        settings: dict[str, Any] = {"model": str(self.model), "max_num_seqs": 256, "generation_config": "vllm"}
        if not engine.for_gpu:
            settings |= {
                "dtype": "float32",
                "enforce_eager": True,
                "kv_cache_memory_bytes": 2**30,
                "enable_chunked_prefill": False,
            }
        given = self.folder / "offline.json"
        given.write_text(
            json.dumps(
                {"engine": settings, "groups": groups, "max_tokens": self.sampling.max_tokens, "turns": turns + 1}
            )
        )
        quiet = {
            "VLLM_NO_USAGE_STATS": "1",
            "HF_HUB_OFFLINE": "1",
            "VLLM_LOGGING_LEVEL": "ERROR",
            "TORCHDYNAMO_DISABLE": "1",
        }
        script = self.folder / "offline.py"
        script.write_text(guarded(OFFLINE))
        said = subprocess.run(
            [str(engine.python), str(script), str(given)], capture_output=True, text=True, env={**os.environ, **quiet}
        )
        rates = [float(line.split()[1]) for line in said.stdout.splitlines() if line.startswith("RATE")]
        assert len(rates) == turns + 1, said.stderr[-2000:]
        return rates[1:]  # the first warms up


def guarded(script: str) -> str:
    """The script under a main guard: the engine's processes import it again."""
    head, _, body = script.strip().partition("\ngiven")
    return (
        head
        + "\nif __name__ == '__main__':\n"
        + "\n".join("    " + line for line in ("given" + body).splitlines())
        + "\n"
    )


async def ask_bare(url: str, key: str, contents: Sequence[dict[str, Any]], in_flight: int) -> int:
    """Tokens that the server says it made."""
    todo, texts, tokens = iter(contents), [], 0

    async def work(session: aiohttp.ClientSession) -> None:
        nonlocal tokens
        for content in todo:
            async with session.post(url, json=content) as response:
                answer = await response.json()
                texts.extend(choice["message"]["content"] for choice in answer["choices"])
                tokens += answer["usage"]["completion_tokens"]

    limits = aiohttp.ClientTimeout(total=None)
    connector = aiohttp.TCPConnector(limit=in_flight)
    headers = {"Authorization": f"Bearer {key}"}
    async with aiohttp.ClientSession(connector=connector, timeout=limits, headers=headers) as session:
        await asyncio.gather(*(work(session) for _ in range(in_flight)))
    return tokens


def own_cpu() -> float:
    """CPU seconds of this process and its threads."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def repeated(turns: int, measure: Callable[[int], Measured], first: int) -> list[Measured]:
    """Some turns of one arm."""
    return [measure(first + turn) for turn in range(turns)]


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--shape", choices=SHAPES, default="tiny")
    parser.add_argument("--prompts", type=int, default=256)
    parser.add_argument("--n", type=int, default=8)
    parser.add_argument("--max-tokens", type=int, default=64)
    parser.add_argument("--in-flight", type=int, default=64)
    parser.add_argument("--turns", type=int, default=5)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        model = build_shape(arguments.shape, folder / "model")
        numbers = (arguments.prompts, arguments.n, arguments.max_tokens, arguments.in_flight)
        bench, store = Bench(folder, model, *numbers), open_store(folder / "store.duckdb")
        rows.add_prompts(store, bench.prompts)
        bench.rlrf(store, 0)  # starts and warms the server
        bench.bare(1)
        ours, bare = [], []
        for turn in range(arguments.turns):
            if turn % 2:
                bare.append(bench.bare(100 + turn))
            ours.append(bench.rlrf(store, 10 + turn))
            if not turn % 2:
                bare.append(bench.bare(100 + turn))
        settings = open_vllm(pool, bench.engine, model, lora_rank=None, logs=folder, say=lambda text: None).settings
        pool.stop(lambda text: None)
        offline = bench.offline(arguments.turns)
        local = LocalGenerator(model, batch_size=256 if torch.cuda.is_available() else 128)
        locally = repeated(min(3, arguments.turns), lambda turn: bench.stored(local, store, turn), 1000)
    report(ours, bare, offline, locally, numbers, settings)


def report(
    ours: list[Measured],
    bare: list[Measured],
    offline: list[float],
    locally: list[Measured],
    numbers: tuple[int, int, int, int],
    settings: dict[str, Any],
) -> None:
    """Medians over the turns and ratios within them."""
    prompts, n, max_tokens, in_flight = numbers
    print(f"{prompts} prompts, n = {n}, {max_tokens} tokens each, {in_flight} requests in flight, {len(ours)} turns")
    print(f"engine: {json.dumps(settings, sort_keys=True)}\n")
    print(
        "| arm | tokens/s, median (least to most) | rlrf against it | client CPU, s per turn | in the store, s per turn |"
    )
    print("|---|---|---|---|---|")
    rates = [one.rate for one in ours]
    arms: list[tuple[str, list[float], float | None, float | None]] = [
        ("rlrf, rows durable", rates, median(one.cpu for one in ours), median(one.store for one in ours)),
        ("bare aiohttp", [one.rate for one in bare], median(one.cpu for one in bare), None),
        ("offline `LLM.chat`", offline, None, None),
        (
            "transformers backend, rows durable",
            [one.rate for one in locally],
            None,
            median(one.store for one in locally),
        ),
    ]
    for name, found, cpu, store in arms:
        paired = name == "bare aiohttp"
        ratio = median(a / b for a, b in zip(rates, found, strict=True)) if paired else median(rates) / median(found)
        spread = f"{median(found):,.0f} ({min(found):,.0f} to {max(found):,.0f})"
        cells = [f"{value:.2f}" if value is not None else "" for value in (cpu, store)]
        print(f"| {name} | {spread} | {ratio:.2f} | {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
