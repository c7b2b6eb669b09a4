"""A server's process behind its guard (server_guard): started in a session of its own, watched, ended without a trace."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from rlrf.backends.engine import server_guard

GUARD_SECONDS = server_guard.KILL_SECONDS + 10.0
"""How much longer than its grace the guard may take before it is killed itself."""


class GuardedProcess:
    """A running command and all that it starts; `over` is set when the last process of its session has ended."""

    def __init__(
        self, command: Sequence[str], environment: Mapping[str, str], *, scratch: Path, log: Path, grace: float
    ) -> None:
        """Start it. `scratch` is removed at its end; it gets `grace` seconds to end when it is asked to."""
        guard = [sys.executable, "-I", "-S", server_guard.__file__, str(os.getpid()), str(grace), str(scratch)]
        self.over, self._grace, self._scratch = threading.Event(), grace, scratch
        with log.open("ab") as file:
            self._guard = subprocess.Popen(
                [*guard, *command],
                stdin=subprocess.PIPE,
                stdout=file,
                stderr=file,
                env=dict(environment),
                bufsize=0,
                start_new_session=True,
            )
        threading.Thread(target=self._watch, name="rlrf-guard", daemon=True).start()

    def code(self) -> int | None:
        """The command's exit code, 128 + n for signal n; None while anything of it runs."""
        code: int | None = self._guard.returncode if self.over.is_set() else None
        return code if code is None or code >= 0 else 128 - code

    def end(self) -> None:
        """Ask it to end, and wait until nothing of it is left."""
        assert self._guard.stdin is not None
        with suppress(OSError):  # the guard may be dead
            self._guard.stdin.write(b"stop")
        if not self.over.wait(self._grace + GUARD_SECONDS):
            server_guard.kill_session(self._guard.pid)
            self.over.wait()
        self.disown()

    def disown(self) -> None:
        """Let go of the pipe to the guard, which ends it where nobody else holds on to it."""
        assert self._guard.stdin is not None
        with suppress(OSError):
            self._guard.stdin.close()

    def _watch(self) -> None:
        """See the guard's end, and do its work where it couldn't; until it is reaped, its session is nobody else's."""
        os.waitid(os.P_PID, self._guard.pid, os.WEXITED | os.WNOWAIT)
        server_guard.kill_session(self._guard.pid)
        shutil.rmtree(self._scratch, ignore_errors=True)
        self._guard.wait()
        self.over.set()
