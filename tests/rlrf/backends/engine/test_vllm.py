"""The real engine: its texts, its adapters, its deaths. One server is shared by most tests; each start takes about 20 s."""

from __future__ import annotations

import http.client
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

from rlrf.backends.engine.env import find_engine
from rlrf.backends.engine.generator import VllmGenerator, open_vllm
from rlrf.backends.engine.model import Served
from rlrf.backends.engine.pool import EnginePool, Wanted
from rlrf.backends.engine.server import VllmServer
from rlrf.backends.local import LocalGenerator
from rlrf.backends.protocols import Generator
from rlrf.engine_config import Vllm
from rlrf.errors import BackendError
from rlrf.judges.questions import reply_schema
from rlrf.judges.reply import parse
from rlrf.judges.rubric import Manner, RubricJudge
from rlrf.records import Case, Completion, Failure, Judgement, Request, Sampling
from rlrf.rubric import Rubric, load_rubric
from tests.rlrf.backends.engine.process_table import running, session_of, wait_until, with_words
from tests.rlrf.backends.engine.tiny_adapter import build_tiny_adapter
from tests.rlrf.backends.tiny_model import build_tiny_model

pytestmark = pytest.mark.skipif(find_engine() is None, reason="no engine environment; `rlrf engine install` builds one")

RANK = 4
GREEDY = Sampling(temperature=0.0, max_tokens=24)
DRAWN = Sampling(temperature=1.0, max_tokens=48)
Results = dict[str, Completion | Failure]


class Bench:
    """A pool with the real engine, models, and what was said."""

    def __init__(self, folder: Path) -> None:
        self.pool, self.folder, self.said = EnginePool(), folder, list[str]()
        self.base = build_tiny_model(folder / "base", hidden_size=128, layers=2, max_position_embeddings=2048)
        self.one = build_tiny_adapter(folder / "one", self.base, seed=1)
        self.two = build_tiny_adapter(folder / "two", self.base, seed=2)

    def generator(self, model: Path, **changes: Any) -> VllmGenerator:
        settings = Vllm.model_validate({"type": "vllm", "kv_cache_gib": 0.125, **changes})
        return open_vllm(self.pool, settings, model, lora_rank=RANK, logs=self.folder / "logs", say=self.said.append)

    def starts(self) -> int:
        return sum("up in" in text for text in self.said)

    def guard(self) -> int:
        """The guard of the one server, which is also its session; what it is just forking still bears its command line."""
        (pid,) = (pid for pid in with_words("server_guard", str(self.base)) if session_of(pid) == pid)
        return pid

    def member(self, word: str) -> int:
        return next(pid for pid, line in running(self.guard()).items() if word in line and "guard" not in line)


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    made = Bench(tmp_path_factory.mktemp("vllm"))
    yield made
    made.pool.close()


def questions(prompts: int, each: int = 1, first: int = 0) -> list[Request]:
    """Consecutive seeds for each prompt."""
    return [
        Request(f"{i}-{j}", ({"role": "user", "content": f"Anna has {i} apples and buys {j % 3} more."},), 1000 * i + j)
        for i in range(first, first + prompts)
        for j in range(each)
    ]


def same_prompts(prompts: int, each: int) -> list[Request]:
    return [
        Request(f"{i}-{j}", ({"role": "user", "content": f"Anna has {i} apples."},), 1000 * i + j)
        for i in range(prompts)
        for j in range(each)
    ]


def ask(generator: Generator, requests: list[Request], sampling: Sampling) -> Results:
    rows = [row for batch in generator.generate(requests, sampling) for row in batch]
    assert len({row.request_id for row in rows}) == len(rows) == len(requests)
    return {row.request_id: row for row in rows}


def texts(results: Results) -> dict[str, str]:
    assert all(isinstance(row, Completion) for row in results.values()), results
    return {name: row.text for name, row in results.items() if isinstance(row, Completion)}


def test_the_same_seeds_give_the_same_texts_alone_together_and_under_load(bench: Bench) -> None:
    """Choice i of a request for several is drawn by the request's seed + i, whoever else is in the batch."""
    few = same_prompts(4, 8)
    alone = texts(ask(bench.generator(bench.base, choices_per_request=1, concurrency=1), few[:12], DRAWN))
    together = texts(ask(bench.generator(bench.base, choices_per_request=8, concurrency=1), few, DRAWN))
    crowd = texts(ask(bench.generator(bench.base), same_prompts(40, 8), DRAWN))
    assert {name: together[name] for name in alone} == alone
    assert {name: crowd[name] for name in together} == together
    assert len(set(crowd.values())) > 250


@pytest.mark.parametrize("model", ["base", "one", "two"])
def test_greedy_texts_equal_those_of_transformers_on_the_merged_weights(bench: Bench, model: str) -> None:
    """With adapters switched on; the base is served without one."""
    folder, asked = getattr(bench, model), questions(8)
    served = ask(bench.generator(folder), asked, GREEDY)
    local = ask(LocalGenerator(folder, device="cpu", dtype="float32"), asked, GREEDY)
    assert whole(served) == whole(local)


def whole(results: Results) -> dict[str, str]:
    """Texts without the bytes of a sign that max_tokens cut off; vLLM leaves them out, transformers marks them."""
    return {name: text.rstrip("\ufffd") for name, text in texts(results).items()}


def test_an_adapters_log_probs_equal_those_of_the_merged_weights(bench: Bench) -> None:
    generator = bench.generator(bench.one)
    ask(generator, questions(1), GREEDY)
    server, name = bench.pool.server(generator.wanted, generator.served)
    prompt = list(range(5, 60))
    said = post(server, "/v1/completions", {"model": name, "prompt": prompt, "max_tokens": 1, "prompt_logprobs": 0})
    theirs = [next(iter(one.values()))["logprob"] for one in said["choices"][0]["prompt_logprobs"][1:]]
    merged = AutoModelForCausalLM.from_pretrained(bench.one, dtype=torch.float32)
    with torch.inference_mode():
        log_probs = merged(torch.tensor([prompt])).logits.log_softmax(-1)[0, :-1]
    ours = log_probs.gather(1, torch.tensor(prompt[1:])[:, None])[:, 0].tolist()
    assert theirs == pytest.approx(ours, abs=2e-5)


def post(server: VllmServer, path: str, content: dict[str, Any], key: str | None = None) -> Any:
    link = http.client.HTTPConnection("127.0.0.1", int(server.base_url.split(":")[2].split("/")[0]), timeout=60)
    headers = {"Authorization": f"Bearer {key or server.key}", "Content-Type": "application/json"}
    link.request("POST", path, json.dumps(content), headers)
    body = link.getresponse().read()
    link.close()
    return json.loads(body)


def test_tokens_are_counted_as_the_server_counts_them(bench: Bench) -> None:
    generator = bench.generator(bench.base)
    (request,) = questions(1)
    (row,) = ask(generator, [request], GREEDY).values()
    assert isinstance(row, Completion)
    assert generator.count_tokens(request.messages) == row.prompt_tokens
    assert row.finish_reason == ("length" if row.completion_tokens == GREEDY.max_tokens else "stop")


def test_guided_answers_are_instances_of_their_schema(bench: Bench) -> None:
    """A random model writes no JSON of its own accord; what max_tokens cuts off is called truncated."""
    words = json.dumps({"enum": ["yes", "no"]})
    asked = [replace(one, json_schema=words) for one in questions(6, 2)]
    assert set(texts(ask(bench.generator(bench.base), asked, DRAWN)).values()) <= {'"yes"', '"no"'}
    rubric = load_rubric("math")
    asked = [replace(one, json_schema=reply_schema(rubric)) for one in questions(16)]
    replies = ask(bench.generator(bench.base), asked, Sampling(temperature=1.0, max_tokens=256)).values()
    assert [one for one in replies if not isinstance(one, Completion)] == []
    whole = [one.text for one in replies if isinstance(one, Completion) and one.finish_reason == "stop"]
    assert whole, "none of 16 random replies came to its end"
    assert all(parse(text, rubric)[1] is None for text in whole)


SHORT = Rubric.model_validate(
    {
        "name": "short",
        "aspects": [
            {"name": name, "definition": "Is it?", "success": "Yes.", "moderate": "Partly.", "failure": "No."}
            for name in ("right", "clear")
        ],
    }
)


def test_every_reply_of_a_guided_judge_ends_and_is_rated(bench: Bench) -> None:
    """A model that knows nothing: its comments and the white space between them would have no end."""
    cases = [Case(str(i), ({"role": "user", "content": f"{i} + 1?"},), None, f"{i + 1}") for i in range(24)]
    one = SHORT.model_copy(update={"aspects": SHORT.aspects[:1]})
    assert {judgement.ratings[0].rating for judgement in guided(bench, one, cases)} == {-1, 0, 1}
    for judgement in guided(bench, SHORT, cases[:8], aspects="call", choose=1):
        assert len(judgement.ratings) == 1
    assert all(len(judgement.ratings) == 2 for judgement in guided(bench, SHORT, cases[:4], calls="each"))


def guided(bench: Bench, rubric: Rubric, cases: list[Case], **manner: Any) -> list[Judgement]:
    """What a judge that asks once says, all of it rated and no longer than it may be."""
    how = Manner(guided=True, comment_chars=20, retries=0, **manner)
    judge = RubricJudge(lambda: bench.generator(bench.base), rubric, "digest", Sampling(max_tokens=160), how)
    found = [judgement for batch in judge.judge(cases) for judgement in batch]
    assert len(found) == len(cases)
    assert [judgement for judgement in found if not judgement.rated] == []
    assert all(len(rating.critique) <= 20 for judgement in found for rating in judgement.ratings)
    return found


def test_one_server_did_all_this_and_knows_who_may_ask(bench: Bench) -> None:
    assert bench.starts() == 1, bench.said
    assert bench.said[0].startswith("vllm 0.32.0 (cpu, float32) serves base-")
    server, name = bench.pool.server(*wanted(bench, bench.base))
    assert "error" in post(server, "/v1/completions", {"model": name, "prompt": "1", "max_tokens": 1}, key="other")
    lines = " ".join(running(bench.guard()).values())
    assert server.key not in lines + server.log.read_text()


def wanted(bench: Bench, model: Path) -> tuple[Wanted, Served]:
    generator = bench.generator(model)
    return generator.wanted, generator.served


def test_kill_9_of_the_engine_in_the_middle_costs_no_row(bench: Bench) -> None:
    """The server is started again, with the adapter, for what had not been answered."""
    asked = same_prompts(100, 8)
    generator, rows = bench.generator(bench.one, concurrency=16), list[Completion | Failure]()
    session = bench.guard()
    batches = generator.generate(asked, DRAWN)
    rows += next(batches)
    os.kill(bench.member("EngineCore"), signal.SIGKILL)
    for batch in batches:
        rows += batch
    assert len({row.request_id for row in rows}) == len(rows) == 800
    texts({row.request_id: row for row in rows})
    assert bench.starts() == 2, bench.said
    assert running(session) == {}


def test_kill_9_of_the_api_server_leaves_no_engine(bench: Bench) -> None:
    """vLLM's own engine process would stay."""
    session = bench.guard()
    server, _ = bench.pool.server(*wanted(bench, bench.base))
    assert any("EngineCore" in line for line in running(session).values())
    os.kill(bench.member("api_server"), signal.SIGKILL)
    assert wait_until(server.gone)
    assert "SIGKILL" in str(server.gone())
    assert running(session) == {}
    bench.pool.stop(bench.said.append)


def test_kill_9_of_the_guard_leaves_nothing(bench: Bench) -> None:
    """In the middle of a start, which it ends."""
    engine, errors = find_engine(), list[BackendError]()
    assert engine is not None
    settings, logs = Vllm(type="vllm", kv_cache_gib=0.125), bench.folder / "logs"
    server = VllmServer(engine, settings, bench.base, name="m", lora_rank=None, logs=logs)

    def start() -> None:
        try:
            server.start()
        except BackendError as error:
            errors.append(error)

    starting = threading.Thread(target=start)
    starting.start()
    assert wait_until(lambda: with_words("server_guard", str(bench.base)))
    session = bench.guard()
    assert wait_until(lambda: len(running(session)) >= 2)
    os.kill(session, signal.SIGKILL)
    starting.join()
    assert "SIGKILL" in str(errors)
    assert running(session) == {}


PARENT = """
import sys
from pathlib import Path
from rlrf.backends.engine.generator import open_vllm
from rlrf.backends.engine.pool import pool
from rlrf.engine_config import Vllm
from rlrf.records import Request, Sampling

model, logs = map(Path, sys.argv[1:3])
# Its workers in processes of their own, as on several GPUs.
extra = ("--distributed-executor-backend", "mp")
settings = Vllm(type="vllm", kv_cache_gib=0.125, extra_args=extra)
generator = open_vllm(pool, settings, model, lora_rank=None, logs=logs, say=lambda text: print(text, flush=True))
requests = [Request(str(i), ({"role": "user", "content": f"{i}?"},), i) for i in range(100_000)]
for batch in generator.generate(requests, Sampling(max_tokens=64)):
    print("answers", flush=True)
"""


def test_kill_9_of_a_worker_ends_the_server_and_of_the_run_everything(bench: Bench) -> None:
    """The run is killed while the next server starts: nothing of it is left either."""
    command = [sys.executable, "-c", PARENT, str(bench.base), str(bench.folder / "parent")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, start_new_session=True) as parent:
        try:
            assert parent.stdout is not None
            assert "up in" in parent.stdout.readline()
            assert parent.stdout.readline() == "answers\n"
            session = bench.guard()
            os.kill(bench.member("Worker"), signal.SIGKILL)
            assert wait_until(lambda: not running(session))
            assert wait_until(lambda: bench_again(bench, session))
            session = bench.guard()
            assert wait_until(lambda: len(running(session)) >= 2)
            os.kill(parent.pid, signal.SIGKILL)
            assert wait_until(lambda: not running(session))
        finally:
            with suppress(ProcessLookupError):
                os.killpg(parent.pid, signal.SIGKILL)
    assert with_words(str(bench.base)) == {}


def bench_again(bench: Bench, session: int) -> bool:
    return any(pid != session for pid in with_words("server_guard", str(bench.base)))
