"""`rlrf up` as people use it: a real server, a real worker, a real browser, a real kill; and `rlrf down`."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
import yaml

from flows.up import MARK
from rlrf.config import load_config, parse_config
from storage import intervals, reading
from storage.store import open_store
from tests import builders
from tests.browser import CHROMIUM, chromium
from tests.flows.conftest import KILLED
from tests.flows.replies import ASKED, SECONDS
from tests.flows.test_dates import nightly

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium: apt install chromium")

ROOT = Path(__file__).parents[2]
RLRF = Path(sys.executable).with_name("rlrf")


def wait_for(what: str, ready: Callable[[], Any], seconds: float = 180) -> Any:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if found := ready():
            return found
        time.sleep(0.2)
    raise AssertionError(f"{what} never came")


@dataclass
class Here:
    """A place of its own for server and worker, with the project's deployments over scripted configurations."""

    folder: Path
    port: int
    deployments: Path
    ad_hoc: Path
    nights: Path
    said: dict[str, str] = field(default_factory=dict)
    facts: dict[str, Any] = field(default_factory=dict)

    @property
    def home(self) -> Path:
        return self.folder / "prefect"

    def rlrf(self, name: str, *arguments: str | Path) -> None:
        """A command in a process of its own, which must end well; what it said is kept under the name."""
        environment = os.environ | {
            "PREFECT_HOME": str(self.home),
            SECONDS: "0.05",
            ASKED: str(self.folder / "asked.txt"),
        }
        environment.pop("PREFECT_API_URL", None)
        done = subprocess.run(
            [RLRF, *arguments], env=environment, cwd=ROOT, capture_output=True, text=True, timeout=300
        )
        assert done.returncode == 0, done.stdout + done.stderr
        self.said[name] = done.stdout

    def up(self, name: str) -> None:
        self.rlrf(name, "up", "--port", str(self.port), "--deployments", self.deployments)

    def api(self, method: str, path: str, body: Any = None) -> httpx.Response:
        return httpx.request(method, f"http://127.0.0.1:{self.port}/api{path}", json=body, timeout=60)

    def flow_runs(self, deployment: str) -> list[dict[str, Any]]:
        found = self.api("POST", "/flow_runs/filter", {"deployments": {"name": {"any_": [deployment]}}}).json()
        return sorted(found, key=lambda one: one["created"])

    def deployment(self, name: str) -> str:
        return str(self.api("GET", f"/deployments/name/{name}").json()["id"])

    def trigger(self, name: str, config: dict[str, Any]) -> httpx.Response:
        return self.api(
            "POST", f"/deployments/{self.deployment(name)}/create_flow_run", {"parameters": {"config": config}}
        )

    def processes(self) -> list[psutil.Process]:
        found = psutil.process_iter(["environ", "cmdline"])
        return [one for one in found if (one.info["environ"] or {}).get(MARK) == str(self.home.resolve())]

    def worker(self) -> psutil.Process:
        return next(one for one in self.processes() if "worker" in one.info["cmdline"])


@contextmanager
def place(folder: Path, model: Path) -> Iterator[Here]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    ad_hoc = builders.write_config(folder / "ad-hoc", model, "mixed", pairs__min_pairs=1)
    nights = nightly(folder / "nights", model, range(0))
    parameters = {
        name: {"config": load_config(path).model_dump(mode="json")}
        for name, path in (("ad-hoc", ad_hoc), ("nightly", nights))
    }
    written = yaml.safe_load((ROOT / "deployments" / "prefect.yaml").read_text())
    for one in written["deployments"]:
        one["parameters"] = parameters.get(one["name"], one["parameters"])
        if one["name"] == "nightly":
            one["schedules"] = [{"cron": "* * * * *", "timezone": "UTC", "slug": "nightly"}]
    deployments = folder / "prefect.yaml"
    deployments.write_text(yaml.safe_dump(written))
    here = Here(folder, port, deployments, ad_hoc, nights)
    try:
        yield here
    finally:
        for one in here.processes():
            one.kill()


def submit_and_watch(here: Here, page: Any) -> None:
    """What a person does: open the deployment's form, look, submit, wait, open the artifacts."""
    address = f"http://127.0.0.1:{here.port}"
    page.goto(f"{address}/deployments/deployment/{here.deployment('flywheel/ad-hoc')}/run")
    page.get_by_text("Where prompts come from").first.wait_for(timeout=60_000)
    here.facts["form"] = page.inner_text("body")
    page.get_by_role("button", name="Submit").click()
    run = wait_for("a flow run", lambda: here.flow_runs("ad-hoc"))[0]
    page.goto(f"{address}/runs/flow-run/{run['id']}")
    page.get_by_text("Completed", exact=True).first.wait_for(timeout=240_000)
    here.facts["run"] = page.inner_text("body")
    page.get_by_text("Artifacts", exact=True).last.click()
    page.get_by_text("iteration-summary", exact=True).first.wait_for(timeout=60_000)
    here.facts["artifacts"] = page.inner_text("body")
    wanted = {"artifacts": {"key": {"any_": ["iteration-summary"]}, "flow_run_id": {"any_": [run["id"]]}}}
    summaries = here.api("POST", "/artifacts/filter", wanted).json()
    last = max(summaries, key=lambda one: one["created"])
    page.goto(f"{address}/artifacts/artifact/{last['id']}")
    page.get_by_text("Pair audit").first.wait_for(timeout=60_000)
    here.facts["summary"] = page.inner_text("body")


def kill_and_wait(here: Here, model: Path) -> None:
    """Kill a flow run's process with -9; how long until the store sees another attempt at work, and what the UI says."""
    path = builders.write_config(here.folder / "killed", model, "slow", **KILLED)
    store = open_store(load_config(path).store_path)
    made = here.trigger("flywheel/ad-hoc", load_config(path).model_dump(mode="json")).raise_for_status().json()
    wait_for("explore", lambda: store.value("SELECT count(*) FROM responses") >= 16)
    os.kill(store.value("SELECT pid FROM runs"), signal.SIGKILL)
    began = time.monotonic()
    kept = store.value("SELECT count(*) FROM responses")
    wait_for("more responses", lambda: store.value("SELECT count(*) FROM responses") > kept)
    here.facts["back at work"] = time.monotonic() - began
    print(f"back at work after {here.facts['back at work']:.1f} s")
    states = here.api("GET", f"/flow_run_states/?flow_run_id={made['id']}").json()
    here.facts["states"] = [
        (one["name"], one["message"] or "") for one in sorted(states, key=lambda one: one["timestamp"])
    ]


@pytest.fixture(scope="module")
def here(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Here]:
    """All of it, in the order in which it happens."""
    with stranger() as other, place(tmp_path_factory.mktemp("up"), model) as here:
        here.up("up")
        here.up("again")
        with chromium() as page:
            submit_and_watch(here, page)
            here.facts["errors"] = page.errors
        broken = load_config(here.ad_hoc).model_dump(mode="json")
        broken["explore"]["n"] = -3
        here.facts["refused"] = here.trigger("flywheel/ad-hoc", broken)
        here.facts["nightly"] = wait_for(
            "a night that fired by itself",
            lambda: [one for one in here.flow_runs("nightly") if one["state_type"] == "COMPLETED"],
        )[0]
        kill_and_wait(here, model)
        here.worker().kill()
        here.up("mended")
        here.rlrf("down", "down")
        here.facts["left"] = here.processes()
        here.rlrf("down again", "down")
        here.facts["stranger"] = other.poll()
        yield here


@contextmanager
def stranger() -> Iterator[subprocess.Popen[bytes]]:
    """A process that is none of ours."""
    other = subprocess.Popen(["sleep", "600"])
    try:
        yield other
    finally:
        other.kill()
        other.wait()


DEPLOYED = "backfill/backfill, evaluate/any-policy, flywheel/ad-hoc, flywheel/nightly, judge-check/judge-check, snapshot-and-gc/snapshot-and-gc"


def test_up_says_what_is_there_and_where(here: Here) -> None:
    assert f"http://127.0.0.1:{here.port}" in here.said["up"]
    assert DEPLOYED in here.said["up"]
    assert here.said["up"].count(": created") >= 2, "the automations"
    assert "rlrf down" in here.said["up"]


def test_up_again_starts_nothing_twice(here: Here) -> None:
    assert here.said["again"].count("already up") == 2


def test_the_form_describes_every_part_of_the_configuration(here: Here) -> None:
    for text in (
        "Responses per prompt",
        "Who generates",
        "vllm",
        "The paired gain's lower bound",
        "Where prompts come from",
    ):
        assert text in here.facts["form"]


def test_a_run_that_was_started_from_the_form_is_completed_and_in_the_store(here: Here) -> None:
    assert "Completed" in here.facts["run"]
    store = open_store(load_config(here.ad_hoc).store_path)
    assert [row["status"] for row in reading.runs(store)] == ["completed"]
    assert store.value("SELECT count(*) FROM iterations WHERE arm = 'policy'") == 1


def test_its_artifacts_are_on_the_page(here: Here) -> None:
    assert "wheel after iteration 1" in here.facts["artifacts"]
    assert "accuracy" in here.facts["summary"].lower()
    assert here.facts["errors"] == []


def test_a_wrong_value_is_refused_before_the_run_with_its_path(here: Here) -> None:
    refused = here.facts["refused"]
    assert refused.status_code in {409, 422}
    assert "config.explore.n" in refused.text or all(name in refused.text for name in ("explore", "n", "-3"))


def test_a_killed_run_is_back_at_work_within_a_minute_and_says_why(here: Here) -> None:
    assert here.facts["back at work"] < 60
    names = [name for name, _ in here.facts["states"]]
    assert names.index("Crashed") < names.index("AwaitingRetry")
    assert any("SIGKILL" in message for name, message in here.facts["states"] if name == "Crashed")


def test_a_worker_that_is_gone_is_started_again(here: Here) -> None:
    assert here.said["mended"].count("already up") == 1


def test_the_night_fires_by_itself_with_the_date_of_its_schedule(here: Here) -> None:
    night = here.facts["nightly"]
    assert night["auto_scheduled"] is True
    store = open_store(load_config(here.nights).store_path)
    done = intervals.finished(store, load_config(here.nights).name)
    assert done, "its date is on record"
    assert all(when.second == when.microsecond == 0 and when < datetime.now(UTC) for when in done)


def test_down_ends_all_of_it_and_nothing_else(here: Here) -> None:
    assert here.said["down"].count("stopped") >= 2
    assert here.facts["left"] == []
    assert here.said["down again"].count("was not running") == 2
    assert here.facts["stranger"] is None, "another process is still there"


def test_a_port_of_somebody_else_is_an_error_with_the_remedy(tmp_path: Path) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        environment = os.environ | {"PREFECT_HOME": str(tmp_path)}
        done = subprocess.run(
            [RLRF, "up", "--port", str(port)], env=environment, cwd=ROOT, capture_output=True, text=True, timeout=120
        )
    assert done.returncode == 1
    assert f"port {port} is taken" in done.stderr
    assert f"--port {port + 1}" in done.stderr


def test_the_projects_own_deployments_hold_configurations_that_are_valid() -> None:
    written = yaml.safe_load((ROOT / "deployments" / "prefect.yaml").read_text())
    configs = [one["parameters"]["config"] for one in written["deployments"] if "config" in one["parameters"]]
    assert {parse_config(one, "prefect.yaml").name for one in configs} >= {"ad-hoc", "nightly"}
