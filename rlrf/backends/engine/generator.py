"""A generator behind a vLLM server of our own, which is started again when it dies in the middle."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Generator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

from transformers import PreTrainedTokenizerBase

from rlrf.backends.endpoint.generator import EndpointGenerator
from rlrf.backends.engine.command import facts
from rlrf.backends.engine.env import EngineEnv, find_engine
from rlrf.backends.engine.link import AdapterError
from rlrf.backends.engine.model import Served, find_merged, find_served
from rlrf.backends.engine.pool import EnginePool, Say, Wanted
from rlrf.backends.engine.server import VllmServer
from rlrf.backends.gpus import gpus
from rlrf.backends.model_info import check_model, load_tokenizer, render_ids
from rlrf.backends.prompt_checks import PromptChecks
from rlrf.engine_config import Vllm
from rlrf.errors import BackendError
from rlrf.records import Completion, Failure, Message, Request, Sampling

Rows = list[Completion | Failure]

DOUBT_SECONDS = 15.0
"""How long a server that answers with errors may take to recover or to die; vLLM's takes 5 s from its engine's death."""


def open_vllm(
    pool: EnginePool, settings: Vllm, folder: Path, *, lora_rank: int | None, logs: Path, say: Say
) -> VllmGenerator:
    """A generator for the model in `folder`; its server is started, or found running, for the first request.

    `lora_rank` is the highest rank of the adapters to be served, None for none; `logs` the folder of servers' logs.

    Raises:
        BackendError: there is no engine environment, it doesn't fit this machine, or the folder can't be used.
    """
    engine = find_engine()
    if engine is None:
        raise BackendError('engine.type = "vllm": no vLLM environment; run `rlrf engine install`')
    return VllmGenerator(pool, Wanted(engine, device_of(engine), settings, lora_rank, logs, say), folder)


def device_of(engine: EngineEnv) -> str:
    """What the engine computes on: "cpu", or the GPU's name. Raises BackendError where it needs one and there is none."""
    if not engine.for_gpu:
        return "cpu"
    found = gpus()
    if not found:
        raise BackendError(
            f"{engine.package} {engine.version} in {str(engine.folder)!r} is for GPUs, and there is none to use here; "
            "see `rlrf doctor`, or run `rlrf engine install` again for the CPU's"
        )
    return found[0].name


class VllmGenerator:
    """Generates with the pool's server; a Generator (rlrf.backends.protocols). Made by `open_vllm`."""

    name = "vllm"

    def __init__(self, pool: EnginePool, wanted: Wanted, folder: Path) -> None:
        """Check the folder; no server is started yet. Raises BackendError."""
        info = check_model(folder)
        self._pool, self.wanted, self._folder = pool, wanted, folder
        self._tokenizer: PreTrainedTokenizerBase = load_tokenizer(folder)
        self._checks = PromptChecks(self._tokenizer, wanted.settings.max_model_len or info.context_length)
        self.served = find_served(folder, wanted.lora_rank)
        self.settings: dict[str, Any] = self._facts()
        self._say_why(self.served)

    def __repr__(self) -> str:
        return f"VllmGenerator({self.served.name!r})"

    def generate(self, requests: Sequence[Request], sampling: Sampling) -> Generator[Rows]:
        """Yield what can't be asked first, then micro-batches in order of arrival, each request exactly once.

        Failure reasons: those of PromptChecks and of EndpointGenerator. A server that dies is started again for what
        has not been yielded yet, `restarts` times at most.

        Raises:
            BackendError: it doesn't start, dies too often, or lives and still answers nothing; with its own reason.
        """
        left, failures = self._plan(requests, sampling)
        if failures:
            yield failures
        if not left:
            return
        user = self._pool.enter(self.wanted, self.served)
        try:
            deaths, deadline = 0, None
            while left:
                server, model = self._server()
                deadline = deadline or self._deadline()
                why = yield from self._ask(server, model, left, sampling, deadline)
                if why is not None:
                    deaths += not server.was_stopped
                    self._begin_again(server, why, deaths, len(left), deadline)
        finally:
            self._pool.leave(user)

    def count_tokens(self, messages: Sequence[Message]) -> int:
        """Length of the rendered chat in tokens, generation prompt included; needs no server."""
        return len(render_ids(self._tokenizer, messages))

    def close(self) -> None:
        """The server stays: other stages may use it."""

    def _plan(self, requests: Sequence[Request], sampling: Sampling) -> tuple[dict[str, Request], Rows]:
        """The requests that can be asked by their ids, and a Failure for each that can't."""
        left: dict[str, Request] = {}
        failures: Rows = []
        for request in requests:
            outcome = self._checks.render(request.messages, sampling)
            if isinstance(outcome, tuple):
                failures.append(Failure(request.request_id, *outcome))
            else:
                left[request.request_id] = request
        return left, failures

    def _server(self) -> tuple[VllmServer, str]:
        try:
            return self._pool.server(self.wanted, self.served)
        except AdapterError as error:
            self.served = find_merged(self._folder, str(error))
            self.settings["adapter"] = False
            self._say_why(self.served)
            return self._pool.server(self.wanted, self.served)

    def _ask(
        self, server: VllmServer, model: str, left: dict[str, Request], sampling: Sampling, deadline: float
    ) -> Generator[Rows, None, str | None]:
        """Ask one server for all that is left, and take out of it what is yielded; returns why it is of no use any more.

        A Failure is final once the engine is seen alive after it: a dying one answers with errors.
        """
        error: BackendError | None = None
        held: Rows = []
        with closing(self._client(server, model, deadline).generate(tuple(left.values()), sampling)) as batches:
            try:
                for batch in batches:
                    rows, doubtful = self._sift(batch)
                    held += doubtful
                    if held and server.healthy():
                        rows, held = rows + held, []
                    if rows:
                        yield _taken_out(rows, left)
            except BackendError as caught:
                error = caught
        if error is None and not held:
            return None
        if not _recovers(server):
            return server.gone() or f"vLLM's server of {server.name!r} hangs ({error or held[0]}); log: {server.log}"
        if held:
            yield _taken_out(held, left)
        if error is not None:
            raise error
        return None

    def _client(self, server: VllmServer, model: str, deadline: float) -> EndpointGenerator:
        left = None if deadline == math.inf else max(0.001, deadline - time.monotonic())
        return EndpointGenerator(
            server.base_url,
            model,
            self.wanted.settings.model_copy(update={"stage_timeout": left}),
            key=server.key,
            backlog=0,  # a kill costs what can be in flight, and nothing beside it
            gone=server.gone,
        )

    def _sift(self, batch: Rows) -> tuple[Rows, Rows]:
        """Answers, and what a dying server may be to blame for."""
        rows: Rows = []
        doubtful: Rows = []
        for row in batch:
            if isinstance(row, Failure):
                doubtful.append(row)
            elif fault := self._checks.text_fault(row.text):
                rows.append(Failure(row.request_id, *fault))
            else:
                rows.append(row)
        return rows, doubtful

    def _deadline(self) -> float:
        timeout = self.wanted.settings.stage_timeout
        return math.inf if timeout is None else time.monotonic() + timeout

    def _begin_again(self, server: VllmServer, why: str, deaths: int, left: int, deadline: float) -> None:
        """Clear a dead server away; the next one is started by whoever needs it. Raises BackendError when it's enough."""
        say, limit = self.wanted.say, self.wanted.settings.restarts
        if deaths:
            say(f"{why} (death {deaths} of this stage); {left:,} requests are left")
        self._pool.drop(server, say)
        if time.monotonic() >= deadline:
            raise BackendError(
                f"{why}. stage_timeout is over too; {left:,} requests are left: rerun to go on from there"
            )
        if deaths > limit:
            raise BackendError(
                f"{why}. It died {deaths} times in one stage and engine.restarts is {limit!r}; "
                f"{left:,} requests are left: rerun to go on from there"
            )

    def _facts(self) -> dict[str, Any]:
        wanted, adapter = self.wanted, self.served.adapter is not None
        return facts(
            wanted.engine,
            wanted.settings,
            device=wanted.device,
            lora_rank=wanted.lora_rank,
            adapter=adapter,
            ours=os.environ,
        )

    def _say_why(self, served: Served) -> None:
        if served.why_merged:
            self.wanted.say(f"{self._folder.name} is served with its adapter merged into it: {served.why_merged}")


def _taken_out(rows: Rows, left: dict[str, Request]) -> Rows:
    for row in rows:
        del left[row.request_id]
    return rows


def _recovers(server: VllmServer) -> bool:
    """Whether a server that gave cause for doubt is alive after all; False too when it neither recovers nor dies."""
    deadline = time.monotonic() + DOUBT_SECONDS
    while server.gone() is None and time.monotonic() < deadline:
        if server.healthy():
            return True
        time.sleep(0.1)
    return False
