"""How flow runs are called in Prefect."""

from datetime import datetime
from typing import Any

from prefect.runtime import flow_run


def wheel_name() -> str:
    """Of the parameters of the flow run under way."""
    given: dict[str, Any] = flow_run.parameters
    config = given["config"]
    return named(config["name"] if isinstance(config, dict) else config.name, given.get("as_of"))


def named(configuration: str, as_of: datetime | str | None) -> str:
    """`support`, or `support as of 2026-03-01` where a run has a logical date (with the time where that isn't midnight)."""
    if as_of is None:
        return configuration
    when = datetime.fromisoformat(as_of) if isinstance(as_of, str) else as_of
    midnight = (when.hour, when.minute, when.second) == (0, 0, 0)
    return f"{configuration} as of {when:{'%Y-%m-%d' if midnight else '%Y-%m-%d %H:%M'}}"
