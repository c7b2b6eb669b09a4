"""Without a configured Prefect server, Prefect starts a temporary one. Here it is tied to this process's life."""

import subprocess
import sys

from prefect.server.api.server import SubprocessASGIServer
from prefect.settings import get_current_settings

_GUARD = """
import os, signal, sys
sys.stdin.read()  # ends when the guarded process ends, however it ends
try:
    os.kill(int(sys.argv[1]), signal.SIGKILL)
except ProcessLookupError:
    pass
"""


def start_temporary_server() -> None:
    """Start the server that a flow run would start, and see to it that a kill -9 of this process ends it too.

    Does nothing where a server is configured (PREFECT_API_URL). A server that goes down by itself at exit is left to it.
    """
    settings = get_current_settings()
    if settings.api.url is not None:
        return
    server = SubprocessASGIServer()  # one per process: the flow finds this one running
    server.start(timeout=settings.server.ephemeral.startup_timeout_seconds)
    assert server.server_process is not None, "a server that has started has a process"
    # The guard's input is a pipe that only this process can write to; nothing is ever written.
    subprocess.Popen(
        [sys.executable, "-c", _GUARD, str(server.server_process.pid)], stdin=subprocess.PIPE, start_new_session=True
    )
