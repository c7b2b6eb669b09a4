"""One vLLM server: started, asked whether it lives, given adapters, stopped. Its process is vllm_process's business."""

from __future__ import annotations

import os
import secrets
import shutil
import socket
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from rlrf.backends.engine.command import HOST, command, environment
from rlrf.backends.engine.env import EngineEnv
from rlrf.backends.engine.link import VllmLink
from rlrf.backends.engine.process import GuardedProcess
from rlrf.backends.engine.reasons import PORT_TAKEN, explain, read_log
from rlrf.backends.gpu_memory import memory_in_use, wait_until_back
from rlrf.engine_config import Vllm
from rlrf.errors import BackendError

POLL_SECONDS = 0.05
MEMORY_SECONDS = 60.0
"""How long the GPU memory may take to come back once its processes have ended."""
PORTS = 5
"""Ports that are tried, one start each, before it is no accident that somebody else takes them."""


@dataclass(frozen=True, slots=True)
class Stopped:
    """How a server went.

    Attributes:
        seconds: until its last process had ended.
        memory_seconds: from then until the GPU memory was back, 0 without a GPU.
        held: bytes of GPU memory that were still in use at the end of the wait.
        had_gpu: whether there was any to wait for.
    """

    seconds: float
    memory_seconds: float
    held: int
    had_gpu: bool


def free_port() -> int:
    """A port of this machine that nobody listens at, for the moment."""
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return int(probe.getsockname()[1])


class VllmServer:
    """A server for the model in `folder`, which requests call `name`; not started yet.

    `lora_rank` is the highest rank of adapters to be loaded, None for none; `logs` a folder, with a new file per start.
    """

    def __init__(
        self,
        engine: EngineEnv,
        settings: Vllm,
        folder: Path,
        *,
        name: str,
        lora_rank: int | None,
        logs: Path,
        ports: Callable[[], int] = free_port,
    ) -> None:
        self.name, self.key, self.log = name, secrets.token_urlsafe(32), logs / "engine.log"
        self._engine, self._settings, self._folder = engine, settings, folder
        self._lora_rank, self._logs, self._ports = lora_rank, logs, ports
        self._link = VllmLink(0, self.key)
        self._process: GuardedProcess | None = None
        self._memory: dict[str, int] = {}
        self.was_stopped = False

    def __repr__(self) -> str:
        return f"VllmServer({self.name!r} at {self.base_url})"

    @property
    def base_url(self) -> str:
        """Where it answers, once it is started."""
        return self._link.base_url

    def start(self) -> float:
        """Start it and wait until it serves the model; seconds that this took.

        Raises:
            BackendError: it can't be started, with the engine's own reason and the place of its log.
        """
        started = time.monotonic()
        self._memory = memory_in_use() if self._engine.for_gpu else {}
        why = ""
        for _ in range(PORTS):
            process = self._launch()
            try:
                if self._wait_until_ready(process, started):
                    return time.monotonic() - started
            except BaseException:
                self.stop()
                raise
            words = read_log(self.log)
            why = explain(words, process.code())
            self.stop()
            if PORT_TAKEN not in words:
                break
        raise BackendError(f"vLLM doesn't start for {str(self._folder)!r}: {why}; log: {self.log}")

    def gone(self) -> str | None:
        """Why it is dead, or None while its process lives."""
        if self.was_stopped:
            return f"vLLM's server of {self.name!r} was stopped"
        if self._process is None or not self._process.over.is_set():
            return None
        why = explain(read_log(self.log), self._process.code())
        return f"vLLM's server of {self.name!r} died: {why}; log: {self.log}"

    def healthy(self) -> bool:
        """Whether the server says that its engine lives."""
        return self._link.is_healthy()

    def load_adapter(self, name: str, folder: Path) -> None:
        """Serve the adapter in `folder` as model `name`, from the next request on.

        Raises:
            AdapterError: it doesn't take it, with its words.
            BackendError: it is dead.
        """
        self._link.adapter("load", name, lora_path=str(folder))

    def unload_adapter(self, name: str) -> None:
        """Serve it no longer. Raises as `load_adapter` does."""
        self._link.adapter("unload", name)

    def stop(self) -> Stopped:
        """Ask it to end, kill what is left after `stop_timeout`, and wait until its GPU memory is back."""
        process, self._process = self._process, None
        if process is None:
            return Stopped(0.0, 0.0, 0, False)
        started = time.monotonic()
        self.was_stopped = True
        taken = memory_in_use() if self._memory else {}
        process.end()
        seconds = time.monotonic() - started
        waited = wait_until_back(self._memory, taken, MEMORY_SECONDS)
        return Stopped(seconds, waited.seconds, waited.held, bool(self._memory))

    def disown(self) -> None:
        """In a forked child: it is the parent's, and ends with the parent."""
        if self._process is not None:
            self._process.disown()
        self._process = None

    def _launch(self) -> GuardedProcess:
        port = self._ports()
        self._link, self.was_stopped = VllmLink(port, self.key), False
        engine, settings, rank = self._engine, self._settings, self._lora_rank
        words = command(engine, settings, self._folder, name=self.name, port=port, lora_rank=rank)
        scratch = Path(tempfile.mkdtemp(prefix="rlrf-"))
        try:
            variables = environment(engine, settings, key=self.key, scratch=scratch, lora_rank=rank, ours=os.environ)
            self.log = _new_log(self._logs)
            self._process = GuardedProcess(words, variables, scratch=scratch, log=self.log, grace=settings.stop_timeout)
        except BaseException:
            shutil.rmtree(scratch, ignore_errors=True)
            raise
        return self._process

    def _wait_until_ready(self, process: GuardedProcess, started: float) -> bool:
        """True once it serves the model, False when it has ended before. Raises BackendError when the time is up."""
        limit = self._settings.start_timeout
        while not process.over.wait(POLL_SECONDS):
            if self._link.is_ready(self.name):
                return True
            if time.monotonic() - started > limit:
                raise BackendError(
                    f"vLLM doesn't answer for {str(self._folder)!r} within start_timeout = {limit!r} s: "
                    f"{explain(read_log(self.log), None)}; raise it if it was still loading; log: {self.log}"
                )
        return False


def _new_log(folder: Path) -> Path:
    """An empty file with the next free number."""
    folder.mkdir(parents=True, exist_ok=True)
    number = 1
    while True:
        with suppress(FileExistsError):
            path = folder / f"engine-{number}.log"
            path.touch(exist_ok=False)
            return path
        number += 1
