"""The server that all stages share: one at a time, started when it is needed, exchanged when another model is."""

from __future__ import annotations

import atexit
import os
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from rlrf.backends.engine.command import dtype
from rlrf.backends.engine.env import EngineEnv
from rlrf.backends.engine.link import AdapterError
from rlrf.backends.engine.model import Served
from rlrf.backends.engine.server import Stopped, VllmServer
from rlrf.engine_config import Client, Vllm
from rlrf.errors import BackendError

Say = Callable[[str], None]

MAX_ADAPTERS = 8
"""Adapters that stay loaded; an iteration needs two, the champion's and the new one's."""
ASKING = frozenset(Client.model_fields) | {"restarts", "start_timeout", "stop_timeout", "keep"}
"""Settings that another server isn't needed for."""


@dataclass(frozen=True)
class Wanted:
    """A server as somebody needs it, whatever the model; `say` gets lines for people."""

    engine: EngineEnv
    device: str
    settings: Vllm
    lora_rank: int | None
    logs: Path
    say: Say

    def agrees_with(self, other: Wanted) -> bool:
        """Whether one server does for both, if they want the same weights."""
        mine, others = (one.settings.model_dump(exclude=set(ASKING)) for one in (self, other))
        return (self.engine, mine, self.lora_rank) == (other.engine, others, other.lora_rank)


@dataclass
class _Running:
    server: VllmServer
    wanted: Wanted
    digest: str
    adapters: list[str] = field(default_factory=list)


class EnginePool:
    """Holds at most one running server. Safe between threads: one that needs another model waits its turn."""

    def __init__(self) -> None:
        self._changed = threading.Condition(threading.RLock())
        self._running: _Running | None = None
        self._users: list[int] = []
        self._closed = False
        atexit.register(self.close)
        os.register_at_fork(after_in_child=self._forget)

    def stop(self, say: Say) -> None:
        """End the server, if one runs, and wait until its memory is back."""
        with self._changed:
            self._end(say)

    def close(self) -> None:
        """End the server for good."""
        self._closed = True
        self.stop(lambda text: None)

    def enter(self, wanted: Wanted, served: Served) -> int:
        """Begin to use such a server, once no other thread uses another one; what is returned is for `leave`."""
        with self._changed:
            me = threading.get_ident()
            self._changed.wait_for(lambda: self._fits(wanted, served) or set(self._users) <= {me})
            self._users.append(me)
            return me

    def leave(self, user: int) -> None:
        """End of a use."""
        with self._changed:
            self._users.remove(user)
            self._changed.notify_all()

    def server(self, wanted: Wanted, served: Served) -> tuple[VllmServer, str]:
        """Such a server, alive a moment ago, and what it calls the model.

        Raises:
            BackendError: it can't be started, with the engine's own reason.
            AdapterError: it doesn't take the adapter.
        """
        with self._changed:
            if self._closed:
                raise BackendError("no engine is started any more: the process ends")
            if self._running is not None and (not self._fits(wanted, served) or self._running.server.gone()):
                self._end(wanted.say)
            running = self._running or self._start(wanted, served)
            if served.adapter is None:
                return running.server, running.server.name
            try:
                self._load(running, served.name, served.adapter)
            except AdapterError:
                raise
            except BackendError:  # it has died since
                self._end(wanted.say)
                running = self._start(wanted, served)
                self._load(running, served.name, served.adapter)
            return running.server, served.name

    def drop(self, server: VllmServer, say: Say) -> None:
        """End this server, which has died or hangs, if it is still the one."""
        with self._changed:
            if self._running is not None and self._running.server is server:
                self._end(say)

    def _fits(self, wanted: Wanted, served: Served) -> bool:
        running = self._running
        return running is not None and running.digest == served.digest and running.wanted.agrees_with(wanted)

    def _start(self, wanted: Wanted, served: Served) -> _Running:
        server = VllmServer(
            wanted.engine,
            wanted.settings,
            served.folder,
            name=served.base_name,
            lora_rank=wanted.lora_rank,
            logs=wanted.logs,
        )
        seconds = server.start()
        self._running = _Running(server, wanted, served.digest)
        kind = f"{wanted.device}, {dtype(wanted.engine, wanted.settings)}"
        wanted.say(f"vllm {wanted.engine.version} ({kind}) serves {server.name}, up in {seconds:.1f} s")
        self._changed.notify_all()
        return self._running

    def _load(self, running: _Running, name: str, folder: Path) -> None:
        if name in running.adapters:
            return
        running.server.load_adapter(name, folder)
        running.adapters.append(name)
        if len(running.adapters) > MAX_ADAPTERS:
            running.server.unload_adapter(running.adapters.pop(0))

    def _end(self, say: Say) -> None:
        if self._running is None:
            return
        server, self._running = self._running.server, None
        has_died = server.gone() is not None
        say(_farewell(server.name, has_died, server.stop()))
        self._changed.notify_all()

    def _forget(self) -> None:
        """In a forked child: the server is the parent's."""
        running, self._running = self._running, None
        self._changed, self._users = threading.Condition(threading.RLock()), []
        if running is not None:
            running.server.disown()


def _farewell(name: str, has_died: bool, stopped: Stopped) -> str:
    text = f"vllm of {name} {'cleared away' if has_died else 'stopped'} in {stopped.seconds:.1f} s"
    if stopped.held:
        return f"{text}; {stopped.held / 2**30:.1f} GiB of GPU memory still in use {stopped.memory_seconds:.0f} s later"
    return f"{text}, GPU memory back in another {stopped.memory_seconds:.1f} s" if stopped.had_gpu else text


pool = EnginePool()
"""The one of this process."""
