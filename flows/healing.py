"""Crashed runs are run again by Prefect itself, through two automations on its server.

Only runs of a deployment can be run again by a server. What a killed run did is in the store, so running it again goes on
from there.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from urllib.parse import urlsplit

import httpx
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.objects import StateType
from prefect.events.actions import ChangeFlowRunState
from prefect.events.schemas.automations import AutomationCore, EventTrigger, Posture
from prefect.settings import get_current_settings

from rlrf.errors import BackendError

RUN_AGAIN = "rlrf: run crashed runs again"
NOTICE = "rlrf: runs without heartbeats have crashed"

ATTEMPTS = 3
"""A run that crashed this often is run once more, and then left to people."""

MISSED = 3
"""Heartbeats that a run may miss before it counts as crashed."""

PAUSE = timedelta(seconds=30)
"""How long a crashed run is left alone: Prefect's worker reports a crash twice, a few seconds apart, and the second report
would be taken for a crash of the next attempt."""

RUN = "prefect.resource.id"


def install_healing(silence: timedelta | None = None, pause: timedelta = PAUSE) -> list[str]:
    """Create both automations on the configured server, or bring them up to date; returns a line on each.

    `silence`: how long a run may send no heartbeat; at least 10 s, more than PREFECT_FLOWS_HEARTBEAT_FREQUENCY of the
    workers; three times this process's when left out. `pause`: between a crash and the next attempt, at least 10 s.
    Raises BackendError where no server is configured or none answers.
    """
    with configured_server() as client:
        return [install(client, wanted) for wanted in (_noticing(silence or usual_silence()), _running_again(pause))]


def usual_silence() -> timedelta:
    """How long a run may send no heartbeat, by this process's settings."""
    return timedelta(seconds=MISSED * (get_current_settings().flows.heartbeat_frequency or 180))


@contextmanager
def configured_server() -> Iterator[SyncPrefectClient]:
    """A client of the server that PREFECT_API_URL names. Raises BackendError where none is named or none answers."""
    settings = get_current_settings()
    if settings.api.url is None:
        raise BackendError(
            "PREFECT_API_URL isn't set: a temporary server ends with its run and can't run it again; start one "
            "(`prefect server start`) and set PREFECT_API_URL to its address"
        )
    try:
        with get_client(sync_client=True) as client:
            yield client
    except httpx.HTTPError as error:
        place = urlsplit(settings.api.url).hostname
        raise BackendError(
            f"the Prefect server on {place!r}: {error} ({type(error).__name__}); `rlrf doctor` says what to do"
        ) from error


def install(client: SyncPrefectClient, wanted: AutomationCore) -> str:
    """Create an automation, or bring the one of its name up to date; returns a line on it."""
    there = client.read_automations_by_name(wanted.name)
    if not there:
        client.create_automation(wanted)
        return f"{wanted.name}: created"
    # Whether it is on is for people to say; they may have switched it off.
    values = wanted.model_dump(mode="json", exclude={"owner_resource"}) | {"enabled": there[0].enabled}
    # Read back, because Prefect's client leaves out of an update what was left to its default, the types of actions too.
    client.update_automation(there[0].id, AutomationCore.model_validate(values))
    return f"{wanted.name}: " + ("up to date" if there[0].enabled else "up to date, but switched off")


def _running_again(pause: timedelta) -> AutomationCore:
    """A run of a deployment that stays crashed waits for a worker again, as long as it has had few attempts."""
    trigger = EventTrigger(
        after={"prefect.flow-run.Crashed"},
        expect=states("Scheduled", "AwaitingRetry", "Pending", "Running", "Completed", "Failed", "Cancelled"),
        match={RUN: "prefect.flow-run.*", "prefect.run-count": [str(count) for count in range(1, ATTEMPTS + 1)]},
        match_related=[flows("flywheel", "evaluate", "backfill"), {"prefect.resource.role": "deployment"}],
        for_each={RUN},
        posture=Posture.Proactive,
        within=pause,
    )
    action = ChangeFlowRunState(
        state=StateType.SCHEDULED, name="AwaitingRetry", message="it crashed; what it did is in the store"
    )
    said = f"A crashed flywheel, backfill or exam of a deployment goes on from its rows, up to {ATTEMPTS} times."
    return AutomationCore(name=RUN_AGAIN, description=said, trigger=trigger, actions=[action])


def _noticing(silence: timedelta) -> AutomationCore:
    """A run whose process and worker are gone stays Running in Prefect until someone notices."""
    message = f"no heartbeat for {silence.total_seconds():.0f} s"
    action = ChangeFlowRunState(state=StateType.CRASHED, message=message)
    said = "A run that sends no heartbeats has crashed. Workers' PREFECT_FLOWS_HEARTBEAT_FREQUENCY has to be shorter."
    return AutomationCore(name=NOTICE, description=said, trigger=silent(silence), actions=[action])


def silent(silence: timedelta) -> EventTrigger:
    """A run has sent no heartbeat for so long, and hasn't ended."""
    return EventTrigger(
        after={"prefect.flow-run.heartbeat"},
        expect=states("heartbeat", "Completed", "Failed", "Crashed", "Cancelled"),
        match={RUN: "prefect.flow-run.*"},
        match_related=flows("flywheel", "iteration", "pairs", "evaluate", "backfill"),
        for_each={RUN},
        posture=Posture.Proactive,
        within=silence,
    )


def states(*names: str) -> set[str]:
    """Events of flow runs that come into these states."""
    return {f"prefect.flow-run.{name}" for name in names}


def flows(*names: str) -> dict[str, str | list[str]]:
    """Events related to flows of these names."""
    return {"prefect.resource.role": "flow", "prefect.resource.name": list(names)}
