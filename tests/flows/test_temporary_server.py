from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

START = """
import time
from prefect.server.api.server import SubprocessASGIServer
from flows.temporary_server import start_temporary_server
start_temporary_server()
print(SubprocessASGIServer().server_process.pid, flush=True)
time.sleep(60)
"""


def alive(pid: int) -> bool:
    """A process that runs; one that has ended and waits to be collected doesn't."""
    try:
        return Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_a_killed_run_leaves_no_server_behind(tmp_path: Path) -> None:
    unset = {"PREFECT_API_URL"}
    environment = {name: value for name, value in os.environ.items() if name not in unset}
    process = subprocess.Popen(
        [sys.executable, "-c", START],
        stdout=subprocess.PIPE,
        text=True,
        env=environment | {"PREFECT_HOME": str(tmp_path)},
    )
    assert process.stdout is not None
    server = int(process.stdout.readline())
    assert alive(server)
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stdout.close()
    deadline = time.monotonic() + 20
    while alive(server) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not alive(server)
