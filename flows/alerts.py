"""What people are told of: automations on the Prefect server, each with a notification or an entry in its event feed."""

import json
from dataclasses import dataclass
from datetime import timedelta

from prefect.client.orchestration import SyncPrefectClient
from prefect.events.actions import ActionTypes, CallWebhook, DoNothing, SendNotification
from prefect.events.schemas.automations import AutomationCore, EventTrigger
from prefect.exceptions import ObjectNotFound

from flows.healing import ATTEMPTS, RUN, configured_server, flows, install, silent, states, usual_silence
from rlrf.errors import ConfigError
from tasks.signals import ACCURACY_DOWN, AWAITS_APPROVAL, JUDGE_HEALTH

FLOWS = ("flywheel", "evaluate", "backfill", "judge-check", "snapshot-and-gc")
"""Flows that deployments run."""

TWICE = timedelta(minutes=1)
"""Within this time the same event about the same run is told once: Prefect's worker reports a crash twice."""

WEBHOOK = "webhook"
"""The type of Prefect's blocks that take a payload as it is; all others that can notify take a subject and a body."""


@dataclass(frozen=True)
class Alert:
    """What is told, when. `body` is a Jinja template that Prefect fills; only numbers and names of ours go in."""

    name: str
    when: EventTrigger
    body: str


def install_alerts(notify: str | None = None, silence: timedelta | None = None) -> list[str]:
    """Create the automations on the configured server, or bring them up to date; returns a line on each.

    `notify`: TYPE/NAME of a block of the server that can notify (slack-webhook/my-block), or of a webhook. None: who is told
    stays as it is, nobody at first; that an automation was triggered stands in the server's event feed. `silence`: how long
    a run may send no heartbeat. Raises ConfigError for a block that isn't there, BackendError where no server answers.
    """
    with configured_server() as client:
        block = _block(client, notify) if notify else None
        return [_install(client, alert, notify, block) for alert in alerts(silence or usual_silence())]


def alerts(silence: timedelta) -> list[Alert]:
    """All that people are told of."""
    run = "{{ flow_run.name }} ({{ flow.name }}): {{ flow_run|ui_url }}"
    numbers = "{{ event.payload.configuration }}, iteration {{ event.payload.iteration }}: "
    interval = "gain {{ event.payload.gain }} (95 % interval {{ event.payload.low }} to {{ event.payload.high }})"
    limit = (
        "{{ event.payload.measure }} is {{ event.payload.value }}, limit {{ event.payload.limit }}; the run has stopped"
    )
    used_up = [str(count) for count in range(ATTEMPTS + 1, ATTEMPTS + 21)]
    waits = f"awaits approval for {{{{ event.payload.hours }}}} hours, {interval}"
    return [
        Alert("rlrf alert: late", _of_runs("Late"), f"late, no worker has taken it: {run}"),
        Alert("rlrf alert: stuck", silent(silence), f"no heartbeat for {silence.total_seconds():.0f} s: {run}"),
        Alert("rlrf alert: crashed for good", _of_runs("Crashed", used_up), f"crashed, and is not run again: {run}"),
        Alert("rlrf alert: failed or stopped", _of_runs("Failed"), f"{{{{ flow_run.state.name }}}}: {run}"),
        Alert(
            "rlrf alert: judge health over its limit",
            _of_wheels(JUDGE_HEALTH),
            "{{ event.payload.configuration }}: " + limit,
        ),
        Alert("rlrf alert: accuracy down", _of_wheels(ACCURACY_DOWN), f"{numbers}accuracy is down, {interval}"),
        Alert("rlrf alert: promotion awaits approval", _of_wheels(AWAITS_APPROVAL), numbers + waits),
    ]


def _of_runs(state: str, counts: list[str] | None = None) -> EventTrigger:
    """A run of ours came into this state; `counts`: at one of these attempts."""
    match: dict[str, str | list[str]] = {RUN: "prefect.flow-run.*"}
    match |= {"prefect.run-count": counts} if counts else {}
    related = flows(*FLOWS)
    return EventTrigger(expect=states(state), match=match, match_related=related, for_each={RUN}, within=TWICE)


def _of_wheels(event: str) -> EventTrigger:
    """A run found something out."""
    return EventTrigger(expect={event}, match={RUN: "rlrf.wheel.*"}, for_each={RUN})


def _install(client: SyncPrefectClient, alert: Alert, notify: str | None, block: str | None) -> str:
    there = client.read_automations_by_name(alert.name)
    actions = [_action(alert, notify, block)] if notify and block else []
    actions = actions or (list(there[0].actions) if there else [DoNothing()])
    wanted = AutomationCore(name=alert.name, description="Told by rlrf.", trigger=alert.when, actions=actions)
    told = notify or ("the event feed" if isinstance(actions[0], DoNothing) else "as before")
    return f"{install(client, wanted)}, told to {told}"


def _action(alert: Alert, notify: str, block: str) -> ActionTypes:
    """Tell the block."""
    if notify.split("/")[0] == WEBHOOK:
        payload = json.dumps({"subject": alert.name, "text": f"{alert.name}: {alert.body}"})
        return CallWebhook(block_document_id=block, payload=payload)
    return SendNotification(block_document_id=block, subject=alert.name, body=alert.body)


def _block(client: SyncPrefectClient, notify: str) -> str:
    """The id of the block TYPE/NAME. Raises ConfigError where the server has none that can be told anything."""
    kind, _, name = notify.partition("/")
    try:
        found = client.read_block_document_by_name(name, kind, include_secrets=False)
    except ObjectNotFound as error:
        raise ConfigError(
            f"--notify {notify!r}: the Prefect server has no such block; make one in its UI under Blocks, and name it as "
            "TYPE/NAME, slack-webhook/my-block for one"
        ) from error
    can = found.block_schema.capabilities if found.block_schema else []
    if kind != WEBHOOK and "notify" not in can:
        raise ConfigError(f"--notify {notify!r}: a block that can do {can!r}; name one that can notify, or a webhook")
    return str(found.id)
