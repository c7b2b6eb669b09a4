"""Missed dates of a schedule: those without a finished run, each run with its own date, here or by a deployment."""

from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from cronsim import CronSim
from prefect.deployments import run_deployment

from flows.backfill_work import Dates
from flows.flywheel import flywheel
from rlrf.config import RunConfig
from rlrf.errors import StoppedError
from storage import intervals
from storage.store import Store

_MINUTE = timedelta(minutes=1)


@dataclass
class Ran:
    """What became of each date."""

    rows: list[dict[str, Any]] = field(default_factory=list)
    left: int = 0

    def plain(self) -> dict[str, Any]:
        """The same as plain JSON."""
        return {
            "made": {"runs": len(self.rows)},
            "rows": self.rows,
            "left_out": [f"{self.left} more"] if self.left else [],
        }


def missed(config: RunConfig, store: Store, work: Dates) -> list[datetime]:
    """The schedule's dates in the range of which no run has finished, in order."""
    first, last = _utc(work.first), _utc(work.last) if work.last else datetime.now(UTC)
    last, done, found = min(last, datetime.now(UTC)), intervals.finished(store, config.name), list[datetime]()
    # The first date itself counts, and CronSim begins after what it is given.
    for when in CronSim(work.cron, first.replace(second=0, microsecond=0).astimezone(UTC) - _MINUTE):
        if when > last:
            return found
        if when >= first and when not in done:
            found.append(when)
    return found


def run_dates(config: RunConfig, store: Store, work: Dates) -> Ran:
    """Run them one after the other; a date that stops on purpose is said and the next one goes on."""
    dates = missed(config, store, work)
    ran = Ran(left=len(dates) - len(dates[: work.at_most]))
    for when in dates[: work.at_most]:
        said = _queued(work.deployment, when) if work.deployment else _here(config, when)
        ran.rows.append({"as_of": when.isoformat(), "run": said})
    return ran


def _here(config: RunConfig, when: datetime) -> str:
    try:
        return f"completed: {flywheel(config, when)}"
    except StoppedError as stop:
        return f"stopped: {stop}"


def _queued(deployment: str, when: datetime) -> str:
    """A run of the deployment; the one that there is, unless it has come to a bad end."""
    for attempt in range(100):
        run: Any = run_deployment(
            deployment,
            parameters={"as_of": when.isoformat()},
            idempotency_key=f"rlrf backfill {deployment} {when.isoformat()} {attempt}",
            tags=["backfill"],
            timeout=0,
            as_subflow=False,
        )
        if run.state is None or not run.state.is_final() or run.state.is_completed():
            return f"{run.state.name if run.state else 'Scheduled'}: {run.name}"
    raise StoppedError(f"{deployment} of {when.isoformat()} failed a hundred times; look at its runs in Prefect's UI")


def _utc(when: datetime) -> datetime:
    return when.replace(tzinfo=UTC) if when.tzinfo is None else when.astimezone(UTC)
