"""The date of a run: which one is due, what it works on, and what `plan` and others look at."""

from datetime import UTC, datetime, timedelta

from rlrf.config import RunConfig
from rlrf.errors import ConfigError
from rlrf.handles import Interval
from rlrf.times import moment
from storage import intervals, ledger
from storage.store import Store

AHEAD = timedelta(minutes=1)
"""By how much the clocks of a server and of this machine may differ."""


def read_as_of(text: str) -> datetime:
    """A date or moment as people write it; without a zone it is UTC. Raises ConfigError."""
    try:
        return moment(text, "--as-of")
    except ValueError as error:
        raise ConfigError(str(error)) from error


def due(config: RunConfig, store: Store, as_of: datetime | None, scheduled: datetime | None = None) -> datetime | None:
    """The date that a run is of; None for a configuration that needs none and is given none.

    `as_of` where it is given; else the moment for which Prefect `scheduled` the run; else the newest date that no run has
    finished; else now. Raises ConfigError for a date to come.
    """
    now = datetime.now(UTC)
    if as_of is None:
        if not config.dated:
            return None
        as_of = scheduled or intervals.unfinished(store, config.name) or now.replace(microsecond=0)
    as_of = as_of.replace(tzinfo=UTC) if as_of.tzinfo is None else as_of.astimezone(UTC)
    if as_of > now + AHEAD:
        raise ConfigError(
            f"as_of = {as_of.isoformat()!r} is yet to come: what arrives until then isn't known; give a date that has been"
        )
    return as_of


def settled(config: RunConfig, store: Store, as_of: datetime | None) -> Interval | None:
    """What a run of this date works on, settled for good by the first one; None without a date."""
    return None if as_of is None else intervals.settle(store, config.name, as_of, _start(config, store))


def expected(config: RunConfig, store: Store, as_of: datetime | None = None) -> Interval | None:
    """What a run would work on that is started now; settles nothing."""
    when = due(config, store, as_of)
    return None if when is None else intervals.proposed(store, config.name, when, _start(config, store))


def latest(config: RunConfig, store: Store) -> Interval | None:
    """What the newest date worked on, or what a run that is started now would."""
    when = intervals.newest(store, config.name) if config.dated else None
    return intervals.interval(store, config.name, when) if when else expected(config, store)


def date_again(config: RunConfig, store: Store, as_of: datetime | None) -> datetime | None:
    """The date whose stages are done again: the newest. Raises ConfigError for another one."""
    newest = latest(config, store)
    if as_of is not None and (newest is None or newest.as_of != as_of):
        known = newest.as_of.isoformat() if newest else "none"
        raise ConfigError(
            f"--as-of {as_of.isoformat()!r} with --from or --only: only the newest date is done again, which is {known!r}; leave "
            "--as-of out"
        )
    return newest.as_of if newest else None


def _start(config: RunConfig, store: Store) -> str | None:
    champion = ledger.champion(store) if config.policy.start == "champion" else None
    return champion.policy_id if champion else None
