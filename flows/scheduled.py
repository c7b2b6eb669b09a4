"""For which moment Prefect scheduled the flow run that is under way."""

from datetime import datetime

from prefect.client.orchestration import get_client
from prefect.context import FlowRunContext


def scheduled_for() -> datetime | None:
    """The moment for which the run was first scheduled: it stays the same however often a crashed run is run again.

    None outside of a flow run, and in one that no deployment made.
    """
    context = FlowRunContext.get()
    flow_run = context.flow_run if context else None
    if flow_run is None or flow_run.deployment_id is None:
        return None
    with get_client(sync_client=True) as client:
        states = client.read_flow_run_states(flow_run.id)
    times = [one.state_details.scheduled_time for one in sorted(states, key=lambda one: one.timestamp)]
    found = next((one for one in times if one is not None), flow_run.expected_start_time)
    return found.replace(microsecond=0) if found else None
