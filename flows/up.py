"""`rlrf up` and `rlrf down`: a Prefect server, a worker, the deployments and the automations, and the end of exactly those.

Which processes are ours is in the processes themselves: each carries the home that it was started for in its environment, as
do all that it starts. So no file can say something else, and a kill in the middle leaves nothing that the next `up` or
`down` doesn't find.
"""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import httpx
import psutil
from prefect.client.orchestration import get_client
from prefect.client.schemas.actions import WorkPoolCreate
from prefect.exceptions import ObjectAlreadyExists
from prefect.settings import PREFECT_API_AUTH_STRING, PREFECT_API_URL, get_current_settings, temporary_settings

from flows.alerts import install_alerts
from flows.healing import install_healing
from rlrf.errors import BackendError

MARK = "RLRF_UP"
"""The environment variable that holds the home for which a process was started."""

POOL = "rlrf"
PREFECT = Path(sys.executable).with_name("prefect")
START_SECONDS, STOP_SECONDS = 120.0, 20.0
HEARTBEAT, QUERY = 30, 5
"""Seconds between a run's signs of life (Prefect's least), and between a worker's questions for work."""

SILENCE, PAUSE = timedelta(seconds=3 * HEARTBEAT), timedelta(seconds=15)
"""After which silence a run has crashed, and how long a crashed run is left alone: under a minute from kill to work."""

Say = Callable[[str], None]


@dataclass(frozen=True)
class Place:
    """Where it all is: Prefect's home, the server's port on loopback, the file of the deployments."""

    home: Path
    port: int
    deployments: Path

    @property
    def url(self) -> str:
        """The server's API."""
        return f"http://127.0.0.1:{self.port}/api"

    @property
    def ui(self) -> str:
        """The page to open."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def auth(self) -> str | None:
        """`user:password` that the server asks for; none unless PREFECT_SERVER_API_AUTH_STRING is set."""
        return os.environ.get("PREFECT_SERVER_API_AUTH_STRING")

    def environment(self) -> dict[str, str]:
        """What every process of ours is told."""
        found = os.environ | {
            MARK: str(self.home.resolve()),
            "PREFECT_HOME": str(self.home.resolve()),
            "PREFECT_API_URL": self.url,
            "PREFECT_SERVER_API_HOST": "127.0.0.1",
            "PREFECT_SERVER_API_PORT": str(self.port),
            "PREFECT_SERVER_UI_API_URL": self.url,
            "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
            "PREFECT_SERVER_UI_SHOW_PROMOTIONAL_CONTENT": "false",
            "PREFECT_FLOWS_HEARTBEAT_FREQUENCY": str(HEARTBEAT),
            "PREFECT_WORKER_QUERY_SECONDS": str(QUERY),
            "RLRF_PROJECT": str(Path.cwd()),
            "DO_NOT_TRACK": "1",
            # What Prefect starts as a script to look for hooks would find a `storage` of its own without this.
            "PYTHONSAFEPATH": "1",
        }
        return found | ({"PREFECT_API_AUTH_STRING": self.auth} if self.auth else {})


def up(place: Place, say: Say) -> None:
    """Start what isn't there yet, and bring deployments and automations up to date. May be repeated at any time.

    Raises BackendError where the port is somebody else's, or a process doesn't come up.
    """
    if not place.deployments.is_file():
        raise BackendError(
            f"{str(place.deployments)!r} is no file; start from the project's folder, or name it with --deployments"
        )
    place.home.mkdir(parents=True, exist_ok=True)
    say(f"server       {_start_server(place)}")
    with client_of(place):
        with get_client(sync_client=True) as client, suppress(ObjectAlreadyExists):
            client.create_work_pool(WorkPoolCreate(name=POOL, type="process"))
        say(f"deployments  {_deploy(place)}")
        for line in (*install_healing(SILENCE, PAUSE), *install_alerts(silence=SILENCE)):
            say(f"automation   {line}")
    say(f"worker       {_start_worker(place)}")


def down(home: Path, say: Say) -> None:
    """End the processes that `up` started for this home, the worker first; those that don't go are killed."""
    for name, command in (("worker", ("worker", "start")), ("server", ("server", "start"))):
        found = _running(home, *command)
        say(f"{name:<12} " + ("stopped" if _end(found) else "was not running"))
    rest = list(_ours(home))
    if _end(rest):
        say(f"{len(rest)} processes of theirs stopped")


@contextmanager
def client_of(place: Place) -> Iterator[None]:
    """This process as a client of the server."""
    settings = {PREFECT_API_URL: place.url} | ({PREFECT_API_AUTH_STRING: place.auth} if place.auth else {})
    with temporary_settings(settings):
        yield


def _start_server(place: Place) -> str:
    found = _running(place.home, "server", "start")
    if found and _healthy(place):
        return f"already up, {place.ui}"
    if found:
        other = found[0].info["environ"].get("PREFECT_SERVER_API_PORT")
        if other != str(place.port):
            raise BackendError(
                f"the server of {str(place.home)!r} is up on port {other}; give --port {other}, or stop it: `rlrf down`"
            )
        _end(found)
    if _taken(place.port):
        raise BackendError(
            f"port {place.port} is taken by another process; stop that one, or choose another: `rlrf up --port {place.port + 1}`"
        )
    server = _start(place, "server", "start", "--host", "127.0.0.1", "--port", str(place.port))
    _wait(place, server, "server", lambda: _healthy(place))
    return f"{place.ui}, data and logs in {place.home}"


def _start_worker(place: Place) -> str:
    if _running(place.home, "worker", "start"):
        return f"already up, pool {POOL!r}"
    worker = _start(place, "worker", "start", "--pool", POOL, "--type", "process", "--install-policy", "never")
    _wait(place, worker, "worker", lambda: "started!" in _log(place, "worker"))
    return f"pool {POOL!r}, log {place.home / 'worker.log'}"


def _deploy(place: Place) -> str:
    """Deploy the whole file with Prefect's own command, which makes changes and leaves alone what is equal."""
    command = [str(PREFECT), "--no-prompt", "deploy", "--all", "--prefect-file", str(place.deployments)]
    done = subprocess.run(command, env=place.environment(), capture_output=True, text=True, timeout=10 * START_SECONDS)
    (place.home / "deploy.log").write_text(done.stdout + done.stderr, encoding="utf-8")
    if done.returncode:
        last = "\n".join((done.stdout + done.stderr).strip().splitlines()[-20:])
        raise BackendError(f"{str(place.deployments)!r} could not be deployed:\n{last}")
    with get_client(sync_client=True) as client:
        flows = {flow.id: flow.name for flow in client.read_flows()}
        return ", ".join(sorted(f"{flows[one.flow_id]}/{one.name}" for one in client.read_deployments()))


def _start(place: Place, *command: str) -> "subprocess.Popen[bytes]":
    with (place.home / f"{command[0]}.log").open("wb") as log:
        return subprocess.Popen(
            [PREFECT, *command],
            env=place.environment(),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )


def _wait(place: Place, process: "subprocess.Popen[bytes]", name: str, ready: Callable[[], bool]) -> None:
    deadline = time.monotonic() + START_SECONDS
    while not ready():
        if process.poll() is not None or time.monotonic() > deadline:
            how = f"ended with code {process.returncode}" if process.returncode is not None else "is not ready"
            last = "\n".join(_log(place, name).strip().splitlines()[-15:])
            raise BackendError(f"the {name} {how}; the end of {str(place.home / f'{name}.log')!r}:\n{last}")
        time.sleep(0.2)


def _log(place: Place, name: str) -> str:
    return (place.home / f"{name}.log").read_text(encoding="utf-8", errors="replace")


def _healthy(place: Place) -> bool:
    user, _, password = (place.auth or "").partition(":")
    try:
        answer = httpx.get(f"{place.url}/health", timeout=5, auth=(user, password) if place.auth else None)
    except httpx.HTTPError:
        return False
    return answer.status_code == 200 and answer.json() is True


def _taken(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return True
    return False


def _ours(home: Path) -> Iterator[psutil.Process]:
    """Every process that was started for this home, by `up` or by what `up` started."""
    for one in psutil.process_iter(["pid", "cmdline", "environ", "status"]):
        mark = (one.info["environ"] or {}).get(MARK)
        if mark == str(home.resolve()) and one.pid != os.getpid() and one.info["status"] != psutil.STATUS_ZOMBIE:
            yield one


def _running(home: Path, *command: str) -> list[psutil.Process]:
    """Those of them that run this command of Prefect's."""
    words = " ".join(command)
    return [one for one in _ours(home) if f"prefect {words}" in " ".join(one.info["cmdline"] or [])]


def _end(found: list[psutil.Process]) -> bool:
    """Ask them to end, wait, and kill what is left; whether there was anything."""
    for one in found:
        with suppress(psutil.NoSuchProcess):
            one.send_signal(signal.SIGINT if "worker" in (one.info["cmdline"] or []) else signal.SIGTERM)
    _, alive = psutil.wait_procs(found, timeout=STOP_SECONDS)
    for one in alive:
        one.kill()
    psutil.wait_procs(alive, timeout=STOP_SECONDS)
    return bool(found)


def place_of(home: Path | None, port: int | None, deployments: Path) -> Place:
    """The place that options mean; what is left out comes from Prefect's settings."""
    settings = get_current_settings()
    return Place(home or settings.home, port or settings.server.api.port, deployments)
