"""A Prefect server for all rounds, and the wheel as a deployment that a worker runs."""

from __future__ import annotations

import os
import random
import socket
import subprocess
import sys
import time
import urllib.request
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.kills.homes import Wheel, die_with_parent, kill, processes
from benchmarks.kills.table import Kill

POOL, START_SECONDS = "kills", 300.0
ENTRYPOINT = "benchmarks.kills.worker_flow.flywheel"


def start_server(folder: Path) -> subprocess.Popen[bytes]:
    """A server with a database in `folder`; its address goes into this process's environment."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    os.environ |= {
        "PREFECT_HOME": str(folder / "prefect"),
        "PREFECT_API_URL": f"http://127.0.0.1:{port}/api",
        "PREFECT_SERVER_API_PORT": port,
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "PREFECT_LOGGING_LEVEL": "CRITICAL",
        "DO_NOT_TRACK": "1",
    }
    (folder / "prefect").mkdir(parents=True, exist_ok=True)
    with (folder / "server.log").open("ab") as log:
        command = [sys.executable, "-m", "prefect", "server", "start", "--host", "127.0.0.1", "--port", port]
        server = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True, preexec_fn=die_with_parent)
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline and server.poll() is None:
        with suppress(OSError), urllib.request.urlopen(os.environ["PREFECT_API_URL"] + "/health", timeout=2):
            return server
        time.sleep(0.2)
    kill(server.pid, group=True)
    raise RuntimeError(f"the Prefect server didn't start; see {folder / 'server.log'}")


@dataclass
class Worker:
    """A process worker and the flow runs that it is given."""

    wheel: Wheel
    process: subprocess.Popen[bytes] | None = None
    deployment: Any = None
    flow_run: Any = None
    left: list[int] = field(default_factory=list)

    def start(self) -> None:
        """Start a worker, as a supervisor would after its death."""
        with (self.wheel.folder / "worker.log").open("ab") as log:
            command = [sys.executable, "-m", "prefect", "worker", "start", "--pool", POOL, "--type", "process"]
            self.process = subprocess.Popen(
                [*command, "--name", "kills"],
                env=self.wheel.surroundings() | {"PREFECT_WORKER_QUERY_SECONDS": "1", "PYTHONSAFEPATH": "1"},
                stdout=log,
                stderr=log,
                start_new_session=True,
                preexec_fn=die_with_parent,
            )

    def deploy(self) -> None:
        """Register the flywheel under its module's path."""
        from prefect.client.orchestration import get_client
        from prefect.client.schemas.actions import WorkPoolCreate
        from prefect.deployments.runner import EntrypointType
        from prefect.exceptions import ObjectAlreadyExists

        from flows.flywheel import flywheel

        with get_client(sync_client=True) as client, suppress(ObjectAlreadyExists):
            client.create_work_pool(WorkPoolCreate(name=POOL, type="process"))
        deployment = flywheel.to_deployment(
            name="kills", work_pool_name=POOL, entrypoint_type=EntrypointType.MODULE_PATH
        )
        deployment.entrypoint = ENTRYPOINT
        self.deployment = deployment.apply()

    def run(self, draw: random.Random) -> str:
        """A new flow run, or the last one again by a retry; returns which."""
        from prefect.client.orchestration import get_client
        from prefect.states import AwaitingRetry

        from rlrf.config import load_config

        with get_client(sync_client=True) as client:
            if self.flow_run is not None and draw.random() < 0.5:
                client.set_flow_run_state(self.flow_run.id, AwaitingRetry(), force=True)
                return "retry"
            config = load_config(self.wheel.config).model_dump(mode="json")
            self.flow_run = client.create_flow_run_from_deployment(self.deployment, parameters={"config": config})
            return "new run"

    def state(self) -> str:
        """The state's type of the flow run."""
        from prefect.client.orchestration import get_client

        with get_client(sync_client=True) as client:
            found = client.read_flow_run(self.flow_run.id).state
            return str(found.type.value) if found else "PENDING"

    def stop(self) -> None:
        """Nothing is left running."""
        if self.process is not None:
            kill(self.process.pid, group=True)
            self.process.wait()


NOBODY = -1
"""In the place of a pid: no process."""


def worker_round(wheel: Wheel, number: int, wanted: int, draw: random.Random) -> list[Kill]:
    """A home that a worker works on until it is complete; worker, flow run, or both are killed on the way."""
    worker, kills = Worker(wheel), []
    worker.deploy()
    worker.start()
    worker.run(draw)
    try:
        since, pid = time.time(), None
        while (pid := _begun(worker, since, pid)) is not None:
            if len(kills) < wanted:
                time.sleep(draw.uniform(0, 9) * wheel.pace)
                if _is_alive(pid):
                    since, kill_ = _strike(worker, pid, number, draw)
                    kills.append(kill_)
                    continue
            if _ended(worker, pid):
                break
            since = time.time()
            worker.run(draw)
    finally:
        worker.stop()
    return kills


def _strike(worker: Worker, pid: int, number: int, draw: random.Random) -> tuple[float, Kill]:
    """Kill the worker, the flow run's process or both, and have it go on; returns since when, and the kill."""
    who, at = draw.choice(("worker", "flow run", "worker and flow run")), time.time()
    assert worker.process is not None
    if who != "worker":
        kill(pid)
    if who != "flow run":
        kill(worker.process.pid)
        worker.process.wait()
        worker.start()
    how = "goes on by itself" if who == "worker" and _survives(pid) else worker.run(draw)
    since = time.time() - 1 if how == "goes on by itself" else at
    return since, Kill(number, worker.wheel.engine, "Prefect worker", f"{who}; {how}", at, restarted=time.time())


def _is_alive(pid: int) -> bool:
    return any(one.pid == pid for one in processes())


def _survives(pid: int) -> bool:
    """Whether a flow run's process lives on without its worker for some seconds."""
    deadline = time.monotonic() + 5
    while time.monotonic() < deadline and _is_alive(pid):
        time.sleep(0.1)
    return _is_alive(pid)


def _begun(worker: Worker, since: float, last: int | None) -> int | None:
    """The pid of the flow run's process, once it has done its first stage; None when the flow run is complete.

    The last one's, where it was to go on and is gone: a flow run that writes to its dead worker dies of that.
    """
    deadline, gone = time.monotonic() + START_SECONDS, 0
    while time.monotonic() < deadline:
        entries = [one for one in worker.wheel.entries() if one["t"] > since and one["event"] == "stage"]
        if entries:
            return int(entries[-1]["pid"])
        state = worker.state()
        if state == "COMPLETED":
            return None
        # A worker may report a crash once more after the run was scheduled again, which ends that attempt.
        lost = state == "CRASHED" or (state == "RUNNING" and last is not None and not _is_alive(last))
        gone = gone + 1 if lost else 0
        if gone > 100:
            return last or NOBODY
        time.sleep(0.1)
    raise RuntimeError(f"no flow run began; see {worker.wheel.folder / 'worker.log'}")


def _ended(worker: Worker, pid: int) -> bool:
    """Wait for the flow run's end; False where it ended otherwise than complete, or its process is gone without a word."""
    deadline, gone = time.monotonic() + 10 * START_SECONDS, 0
    while time.monotonic() < deadline and gone < 20:
        state = worker.state()
        if state in {"COMPLETED", "FAILED", "CRASHED", "CANCELLED"}:
            return state == "COMPLETED"
        gone = 0 if _is_alive(pid) else gone + 1
        time.sleep(0.5)
    return False
