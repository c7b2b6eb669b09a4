"""One run under a real server and a real worker, killed three times and resumed in three ways; another without either's memory."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import httpx
import pytest
from prefect.client.orchestration import get_client
from prefect.client.schemas.actions import WorkPoolCreate
from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterId, FlowRunFilterParentFlowRunId
from prefect.client.schemas.objects import FlowRun, State
from prefect.events.schemas.automations import Automation
from prefect.flows import EntrypointType
from prefect.settings import PREFECT_API_URL, temporary_settings

from flows import healing
from flows.alerts import alerts
from flows.flywheel import flywheel
from rlrf.config import load_config
from storage import reading
from storage.store import Store, open_store
from tests import builders
from tests.builders import Ran, Said
from tests.flows.conftest import KILLED
from tests.flows.replies import ASKED, SECONDS

PREFECT, RLRF = (Path(sys.executable).with_name(name) for name in ("prefect", "rlrf"))
BATCH, PLANNED, REFINED = 8, 80, 10
SOME = 20
"""Responses that an attempt makes before it is killed."""
SILENCE, PAUSE = timedelta(seconds=10), timedelta(seconds=15)
PATIENCE = 240.0


def wait_for(what: str, found: Callable[[], Any]) -> Any:
    """Until something is found. Under load everything takes long; what is asserted never depends on how long."""
    deadline = time.monotonic() + PATIENCE
    while not (there := found()):
        assert time.monotonic() < deadline, f"waited {PATIENCE:.0f} s for {what}"
        time.sleep(0.1)
    return there


def is_running(pid: int) -> bool:
    """A process that has ended and waits to be collected doesn't run."""
    try:
        return bool(Path(f"/proc/{pid}/cmdline").read_bytes())
    except (FileNotFoundError, ProcessLookupError):
        return False


def response_ids(store: Store) -> set[str]:
    sql = "SELECT response_id FROM responses UNION ALL SELECT response_id FROM held_out.responses"
    return {row["response_id"] for row in store.query(sql)}


def contents(store: Store) -> list[Any]:
    """All that has to be the same after any kill."""
    found = []
    for scope in ("main", "held_out"):
        responses = (
            "SELECT response_id, prompt_id, parent_id, gen_key, position, seed, text FROM {}.responses ORDER BY ALL"
        )
        verdicts = "SELECT response_id, judge_key, score, reason FROM {}.judgements ORDER BY ALL"
        found += [store.query(sql.format(scope)) for sql in (responses, verdicts)]
    receipts = "SELECT stage, stage_key, rows, digest FROM receipts ORDER BY ALL"
    return [*found, store.query("SELECT * FROM pairs ORDER BY ALL"), store.query(receipts)]


@dataclass
class Place:
    """A Prefect server with a home of its own, and the processes that run beside it."""

    folder: Path
    port: int
    processes: list[subprocess.Popen[bytes]] = field(default_factory=list)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/api"

    def start(self, *command: str | Path, **environment: str) -> subprocess.Popen[bytes]:
        """A process group that speaks to this server."""
        prefect = {"PREFECT_HOME": str(self.folder), "PREFECT_API_URL": self.url, "PREFECT_WORKER_QUERY_SECONDS": "1"}
        with (self.folder.parent / f"{len(self.processes)}.log").open("wb") as log:
            made = subprocess.Popen(
                command, env=os.environ | prefect | environment, start_new_session=True, stdout=log, stderr=log
            )
        self.processes.append(made)
        return made

    def says(self, *command: str | Path) -> str:
        """What a command says that ends by itself and well."""
        process = self.start(*command)
        assert process.wait(PATIENCE) == 0
        return (self.folder.parent / f"{self.processes.index(process)}.log").read_text()

    def worker(self, **environment: str) -> subprocess.Popen[bytes]:
        """A worker. What Prefect starts as a script to look for hooks would find a `storage` of Prefect's without PYTHONSAFEPATH."""
        command = (PREFECT, "worker", "start", "--pool", "here", "--type", "process")
        return self.start(*command, PYTHONSAFEPATH="1", **environment)

    def healthy(self) -> bool:
        with httpx.Client() as client:
            try:
                return client.get(f"{self.url}/health").status_code == 200
            except httpx.HTTPError:
                return False

    def end(self) -> None:
        """Kill all, and delete all that Prefect knew: database, results, settings."""
        for process in self.processes:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        shutil.rmtree(self.folder)


@contextmanager
def opened(folder: Path) -> Iterator[Place]:
    """A server with all its services, and this process as its client."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        place = Place(folder / "prefect", free.getsockname()[1])
    place.folder.mkdir(parents=True)
    try:
        place.start(PREFECT, "server", "start", "--no-ui", "--host", "127.0.0.1", "--port", str(place.port))
        wait_for("the server", place.healthy)
        with temporary_settings({PREFECT_API_URL: place.url}):
            yield place
    finally:
        place.end()


@dataclass(frozen=True)
class Kill:
    """What was there right after a kill."""

    kept: set[str]
    asked: list[str]
    runs: list[dict[str, Any]]

    @property
    def lost(self) -> set[str]:
        """Answered and not durable: what has to be asked again."""
        return set(self.asked) - self.kept


@dataclass
class Victim:
    """A configuration whose runs are killed, and what they were asked."""

    path: Path
    asked: Path

    @classmethod
    def of(cls, model: Path, folder: Path) -> Victim:
        return cls(builders.write_config(folder, model, "slow", **KILLED), folder / "asked.txt")

    @property
    def slow(self) -> dict[str, str]:
        """The environment of a process that is to be killed."""
        return {SECONDS: "0.1", ASKED: str(self.asked)}

    @property
    def store(self) -> Store:
        return open_store(load_config(self.path).store_path)

    def answered(self) -> list[str]:
        return self.asked.read_text().splitlines() if self.asked.exists() else []

    def kill(self, *others: subprocess.Popen[bytes]) -> Kill:
        """Kill the flow's process in the middle of explore, with -9, and others that are to take no notice of it."""
        done = max(len(self.answered()), builders.HELD_OUT)
        wait_for("explore", lambda: len(self.answered()) >= done + SOME)
        for process in others:
            process.send_signal(signal.SIGSTOP)
        pid = self.store.value("SELECT pid FROM runs ORDER BY started_at DESC LIMIT 1")
        os.kill(pid, signal.SIGKILL)
        for process in others:
            os.killpg(process.pid, signal.SIGKILL)
        wait_for("the end of the process", lambda: not is_running(pid))
        return Kill(response_ids(self.store), self.answered(), reading.runs(self.store))


def deploy(victim: Victim) -> UUID:
    """A deployment of the wheel by its module path on a process pool; the id of a flow run of it."""
    with get_client(sync_client=True) as client:
        client.create_work_pool(WorkPoolCreate(name="here", type="process"))
        made: Any = flywheel.to_deployment("wheel", work_pool_name="here", entrypoint_type=EntrypointType.MODULE_PATH)
        parameters = {"config": load_config(victim.path).model_dump(mode="json")}
        return client.create_flow_run_from_deployment(made.apply(), parameters=parameters).id


def reach(flow_run: UUID, name: str) -> None:
    """Wait until a flow run is in the state of this name."""
    with get_client(sync_client=True) as client:
        wait_for(f"state {name}", lambda: client.read_flow_run(flow_run).state_name == name)


def repeat_heartbeat(flow_run: UUID, place: Place) -> None:
    """Send the last heartbeat of a flow run once more: as if it had been killed right after that one."""
    wanted = {"event": {"name": ["prefect.flow-run.heartbeat"]}, "resource": {"id": [f"prefect.flow-run.{flow_run}"]}}
    with httpx.Client(base_url=place.url) as client:
        found = client.post("/events/filter", json={"filter": wanted}).raise_for_status().json()["events"]
        last = max(found, key=lambda event: event["occurred"])
        kept = {name: last[name] for name in ("event", "resource", "related", "payload")}
        again = kept | {"id": str(uuid4()), "occurred": datetime.now(UTC).isoformat()}
        client.post("/events", json=[again]).raise_for_status()


@dataclass(frozen=True)
class Remembered:
    """What Prefect knew of a flow run before it forgot everything."""

    states: list[State]
    tasks: dict[str, list[State]]
    children: list[FlowRun]
    automations: list[Automation]
    limits: list[Any]
    results: list[str]

    @classmethod
    def of(cls, flow_run: UUID, folder: Path) -> Remembered:
        parent = FlowRunFilterParentFlowRunId(any_=[flow_run])
        with get_client(sync_client=True) as client:
            children = client.read_flow_runs(flow_run_filter=FlowRunFilter(parent_flow_run_id=parent))
            family = FlowRunFilter(id=FlowRunFilterId(any_=[flow_run, *(one.id for one in children)]))
            runs = client.read_task_runs(flow_run_filter=family, limit=200)
            states = client.read_flow_run_states(flow_run)
            automations, limits = client.read_automations(), client.read_global_concurrency_limits()
        tasks: dict[str, list[State]] = {}
        for one in sorted(runs, key=lambda one: one.created):
            if one.state is not None:
                tasks.setdefault(one.name.split()[0].rstrip(","), []).append(one.state)
        results = [path.read_text() for path in sorted((folder / "storage").rglob("*")) if path.is_file()]
        states.sort(key=lambda one: one.timestamp)
        return cls(states, tasks, children, automations, list(limits), results)


@dataclass(frozen=True)
class Story:
    """A run that was killed three times and how it went on, and one that went on after Prefect was deleted."""

    victim: Victim
    kills: list[Kill]
    retried: str
    healed: list[str]
    healed_again: Said
    prefect: Remembered
    alone: Victim
    killed_alone: Kill
    resumed: Ran
    logs: str


@pytest.fixture(scope="module")
def story(prefect_server: str, model: Path, tmp_path_factory: pytest.TempPathFactory) -> Story:
    """Resumed by hand; by the automation; by the automation once heartbeats stopped; by a fresh run without Prefect's memory."""
    folder = tmp_path_factory.mktemp("prefect")
    victim, alone = Victim.of(model, folder / "worker"), Victim.of(model, folder / "alone")
    with opened(folder) as place:
        flow_run, worker = deploy(victim), place.worker(**victim.slow)
        kills = [victim.kill()]
        reach(flow_run, "Crashed")
        retried = place.says(PREFECT, "flow-run", "retry", str(flow_run))
        reach(flow_run, "Running")
        healed = healing.install_healing(pause=PAUSE)
        kills += [victim.kill(), victim.kill(worker)]
        healing.install_healing(SILENCE, PAUSE)
        repeat_heartbeat(flow_run, place)
        place.start(RLRF, "run", alone.path, **alone.slow)
        killed_alone = alone.kill()
        reach(flow_run, "AwaitingRetry")
        healed_again = builders.rlrf("heal")
        place.worker(**victim.slow | {SECONDS: "0"})
        reach(flow_run, "Failed")
        known = Remembered.of(flow_run, place.folder)
    assert not place.folder.exists()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(SECONDS, "0")
        patch.setenv(ASKED, str(alone.asked))
        resumed = builders.run(alone.path)
    logs = "".join(path.read_text() for path in sorted(folder.glob("*.log")) if path.name != "0.log")
    return Story(victim, kills, retried, healed, healed_again, known, alone, killed_alone, resumed, logs)


def test_every_kill_fell_into_the_middle(story: Story) -> None:
    kept = [len(kill.kept) for kill in (*story.kills, story.killed_alone)]
    assert builders.HELD_OUT < kept[0] < kept[1] < kept[2] < builders.HELD_OUT + PLANNED
    assert builders.HELD_OUT < kept[3] < builders.HELD_OUT + PLANNED


def test_a_kill_costs_at_most_one_batch(story: Story) -> None:
    assert all(len(kill.lost) <= BATCH for kill in (*story.kills, story.killed_alone))
    for victim, kills in ((story.victim, story.kills), (story.alone, [story.killed_alone])):
        asked = Counter(victim.answered())
        assert sum(times - 1 for times in asked.values()) == sum(len(kill.lost) for kill in kills)
        assert len(asked) == builders.HELD_OUT + PLANNED + REFINED, "every request was answered, and no other"


def test_every_way_leads_to_what_there_is_without_kills(story: Story, unkilled: Ran) -> None:
    assert contents(story.victim.store) == contents(unkilled.store)
    assert contents(story.resumed.store) == contents(unkilled.store)


def test_prefect_tells_the_same_story(story: Story) -> None:
    names = Counter(state.name for state in story.prefect.states)
    assert (names["Running"], names["Failed"]) == (4, 1)
    assert names["AwaitingRetry"] >= 2
    said = [state.message or "" for state in story.prefect.states]
    assert sum("SIGKILL" in message for message in said) >= 2
    assert said.count("no heartbeat for 10 s") == 1, "worker and process were gone"
    assert story.prefect.states[-1].name == "Failed", "a stop on purpose, which is not run again"
    assert "min_pairs" in said[-1]
    assert [child.name for child in story.prefect.children] == ["wheel, iteration 1"], "which went on, too"
    assert "has been scheduled for retry" in story.retried.replace("\n", " ")


def test_stages_of_a_resumed_run_are_cached(story: Story) -> None:
    tasks = {name: [state.name for state in states] for name, states in story.prefect.tasks.items()}
    assert tasks["ingest"] == tasks["evaluate"] == ["Completed", "Cached", "Cached", "Cached"]
    assert tasks["sample_prompts"] == ["Completed", "Cached", "Cached", "Cached"]
    assert tasks["explore"][-1] == "Completed"
    assert "Completed" not in tasks["explore"][:-1], "those that were killed"


def test_the_store_tells_of_every_attempt(story: Story) -> None:
    for number, kill in enumerate(story.kills):
        assert [run["status"] for run in kill.runs] == ["running", *(["killed"] * number)]
    status = builders.rlrf("status", story.victim.store.path).out
    assert [run["status"] for run in reading.runs(story.victim.store)] == ["stopped", "killed", "killed", "killed"]
    assert status.count("its process ended without a word") == 3


def test_healing_is_there_once_however_often_it_is_installed(story: Story) -> None:
    assert story.healed == [f"{name}: created" for name in (healing.NOTICE, healing.RUN_AGAIN)]
    told = [alert.name for alert in alerts(healing.usual_silence())]
    assert story.healed_again.out.splitlines() == [
        *(f"{name}: up to date" for name in (healing.NOTICE, healing.RUN_AGAIN)),
        *(f"{name}: created, told to the event feed" for name in told),
    ]
    assert sorted(one.name for one in story.prefect.automations) == sorted([healing.NOTICE, healing.RUN_AGAIN, *told])
    silences = [getattr(one.trigger, "within", None) for one in story.prefect.automations]
    assert timedelta(minutes=9) in silences, "three times Prefect's own frequency"


def test_without_prefects_memory_nothing_is_lost(story: Story) -> None:
    assert "was killed: its rows are kept" in story.resumed.said.out
    kept = len(story.killed_alone.kept) - builders.HELD_OUT
    assert story.resumed.made("responses") == PLANNED + REFINED - kept
    assert story.resumed.made("held_out.responses") == 0


def test_prefect_keeps_no_result_but_the_reason_of_a_stop(story: Story) -> None:
    for text in story.prefect.results:
        json.loads(text)
        assert "pickle" not in text


def test_worker_and_commands_report_no_trouble(story: Story) -> None:
    assert "Traceback" not in story.logs


def test_nothing_holds_a_slot_of_prefects(story: Story) -> None:
    assert story.prefect.limits == []


def test_without_a_server_nothing_can_be_healed() -> None:
    with temporary_settings(restore_defaults={PREFECT_API_URL}):
        said = builders.rlrf("heal")
    assert said.code == 1
    assert "PREFECT_API_URL isn't set" in said.err


def test_a_server_that_does_not_answer_is_named() -> None:
    with temporary_settings({PREFECT_API_URL: "http://127.0.0.1:9/api"}):
        said = builders.rlrf("heal")
    assert said.code == 1
    assert "127.0.0.1" in said.err
    assert "rlrf doctor" in said.err
