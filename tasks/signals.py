"""Events that Prefect's automations can act on: what a run found that a person should know of. Numbers only, no model's text."""

from __future__ import annotations

from prefect.events import emit_event

from rlrf.config import RunConfig
from tasks.outbox import is_watched

JUDGE_HEALTH = "rlrf.judge-health.over-limit"
ACCURACY_DOWN = "rlrf.accuracy.down"
AWAITS_APPROVAL = "rlrf.promotion.awaits-approval"


def signal(event: str, config: RunConfig, **numbers: float | int | str) -> None:
    """Emit an event about a configuration's wheel; Prefect adds the flow run. Nothing without a server, and no wait for it."""
    if is_watched():
        resource = {"prefect.resource.id": f"rlrf.wheel.{config.name}", "prefect.resource.name": config.name}
        emit_event(event, resource=resource, payload={"configuration": config.name, **numbers})
