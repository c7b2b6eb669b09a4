"""How flow runs are called in Prefect."""

from datetime import datetime
from typing import Any

from prefect.runtime import flow_run


def wheel_name() -> str:
    """`support`, or `support as of 2026-03-01` where a run has a logical date: of the parameters of the flow run under way."""
    given: dict[str, Any] = flow_run.parameters
    config, as_of = given["config"], given.get("as_of")
    name = config["name"] if isinstance(config, dict) else config.name
    return f"{name} as of {_said(as_of)}" if as_of is not None else str(name)


def _said(when: Any) -> str:
    """A date, with the time where that isn't midnight."""
    if not isinstance(when, datetime):
        return str(when)
    return f"{when:%Y-%m-%d}" if (when.hour, when.minute, when.second) == (0, 0, 0) else f"{when:%Y-%m-%d %H:%M}"
