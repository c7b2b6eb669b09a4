"""`rlrf run`: the flywheel in this process, with its results and where they are."""

from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from time import monotonic
from uuid import uuid4

from rich.console import Console

from flows import tables
from flows.dates import date_again, due
from flows.preflight import preflight
from flows.reporting import kept_report, write_report
from flows.rerun_tables import show_invalidated
from flows.rerunning import Again, invalidate, up_to
from flows.unchanged import record_unchanged
from rlrf.backends.endpoint.settings import BACKLOG
from rlrf.backends.opening import described
from rlrf.config import RunConfig, load_config
from rlrf.engine_config import Auto, Endpoint, Vllm
from rlrf.handles import Run
from storage import audits, ledger, reading, reflecting, runs
from storage.store import Store, open_store


def run_flywheel(
    config_path: Path,
    out: Console,
    changes: Sequence[str] = (),
    again: Again | None = None,
    *,
    only: bool = False,
    as_of: datetime | None = None,
) -> None:
    """Check, run, report. `changes` are KEY=VALUE, `as_of` is the run's date. Raises RlrfError for what can be explained.

    `again`: stages whose results are invalidated first; with `only` the run ends after that one stage.
    """
    config = preflight(load_config(config_path, changes))
    store, run_id, started = open_store(config.store_path), str(uuid4()), monotonic()
    for killed in runs.mark_killed(store, config.name):
        said = (
            f"was killed: its rows are kept; what was under way, at most {in_flight(config):,} responses, is repeated"
        )
        out.print(f"Run {killed[:8]} {said}", soft_wrap=True)
    out.print(f"Run {run_id[:8]} of {config.name!r}; store {config.store_path}", markup=False, soft_wrap=True)
    out.print(f"engine   {described(config.engine)}", markup=False, soft_wrap=True)
    reached, stop_after = up_to(config, store, again) if again and only else (None, None)
    if again:
        as_of = date_again(config, store, as_of)
        show_invalidated(invalidate(config, store, again), out, done=True)
    _turn(config, run_id, stop_after, due(config, store, as_of))
    if reached is not None:
        said = f"{reached} was done again; the stages after it are left as they were"
        out.print(f"{said}; {monotonic() - started:.1f} s", markup=False, soft_wrap=True)
        return
    if not reading.results(store, run_id):
        out.print(f"{reading.reason(store, run_id)}; {monotonic() - started:.1f} s", markup=False, soft_wrap=True)
        return
    run = Run(run_id=run_id, store_id=store.store_id, config=config)
    with store.kept_open():
        report = kept_report(run)
        news, champion = _show_results(store, run_id, out), ledger.champion(store)
    report = report or write_report(run)
    out.print(f"{news}; {monotonic() - started:.1f} s", markup=False, soft_wrap=True)
    out.print(f"store    {config.store_path}", markup=False, soft_wrap=True)
    out.print(f"champion {champion.folder if champion else 'none'}", markup=False, soft_wrap=True)
    out.print(f"report   {report}", markup=False, soft_wrap=True)


def _show_results(store: Store, run_id: str, out: Console) -> str:
    """Print what came of a run, as tables; returns what is new in it."""
    out.print(tables.results_table(reading.results(store, run_id)))
    reflected = reflecting.reflection(store, run_id)
    if reflected:
        out.print(tables.reflection_table(reflected))
    out.print(tables.audit_table(audits.audits_of(store, run_id)))
    done = reading.produced(store, run_id)
    made = [f"{done['responses']:,} responses ({done['tokens']:,} tokens)", f"{done['judgements']:,} judgements"]
    news = f"new in this run: {', '.join(made)}, {done['trainings']} trainings"
    return news if any(done.values()) else "nothing was regenerated"


def _turn(config: RunConfig, run_id: str, stop_after: str | None, as_of: datetime | None) -> None:
    """Turn the wheel; where nothing is to be done and nobody looks, record that without starting Prefect."""
    from prefect.settings import get_current_settings

    watched = get_current_settings().api.url is not None
    if not watched and record_unchanged(config, run_id, Console(stderr=True, highlight=False), as_of):
        return
    from flows.flywheel import flywheel
    from flows.temporary_server import start_temporary_server

    start_temporary_server()
    flywheel(config, as_of, run_id, stop_after)


def in_flight(config: RunConfig) -> int:
    """Responses that are under way at most: what a kill costs."""
    engine = config.engine
    if isinstance(engine, Endpoint):
        return engine.concurrency * engine.choices_per_request * len(engine.base_urls) + BACKLOG
    if isinstance(engine, Vllm):
        return engine.concurrency * engine.choices_per_request
    return 0 if isinstance(engine, Auto) else engine.batch_size
