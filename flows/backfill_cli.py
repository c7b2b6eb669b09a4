"""`rlrf backfill`: the past anew, or missed dates; each with --dry-run."""

from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from flows.arguments import Changes, ConfigPath, StorePath

if TYPE_CHECKING:
    from flows.backfill_work import Work

backfill_app = typer.Typer(
    no_args_is_help=True, help="The past judged, explored, refined, evaluated anew; missed dates."
)

Numbers = Annotated[str | None, typer.Option(metavar="N|N-M", help="Which iterations; all when left out")]
By = Annotated[str, typer.Option(help="'champion', the start of a policy's id or its name, or a model's folder")]
Dry = Annotated[bool, typer.Option("--dry-run", help="Count rows, tokens and hours; start nothing")]
NoJudge = Annotated[bool, typer.Option("--no-judge", help="Don't judge what is made")]


@backfill_app.command()
def judge(config: ConfigPath, iterations: Numbers = None, dry_run: Dry = False, changes: Changes = None) -> None:
    """Let CONFIG's judge rate the responses of past iterations; no response is made. Old ratings stay beside the new ones."""
    from flows.backfill_work import Rejudge

    _run(config, Rejudge(iterations=iterations), dry_run, changes)


@backfill_app.command()
def explore(
    config: ConfigPath,
    policy: By,
    iterations: Numbers = None,
    no_judge: NoJudge = False,
    dry_run: Dry = False,
    changes: Changes = None,
) -> None:
    """Explore the prompts of past iterations with another policy, older or newer."""
    from flows.backfill_work import Reexplore

    _run(config, Reexplore(policy=policy, iterations=iterations, judge=not no_judge), dry_run, changes)


@backfill_app.command()
def refine(
    config: ConfigPath,
    policy: By,
    iterations: Numbers = None,
    no_judge: NoJudge = False,
    dry_run: Dry = False,
    changes: Changes = None,
) -> None:
    """Let another policy rewrite the promising responses of past iterations."""
    from flows.backfill_work import Rerefine

    _run(config, Rerefine(policy=policy, iterations=iterations, judge=not no_judge), dry_run, changes)


@backfill_app.command()
def evaluate(
    config: ConfigPath,
    policy: Annotated[list[str] | None, typer.Option(help="One policy, or several; all when left out")] = None,
    dry_run: Dry = False,
    changes: Changes = None,
) -> None:
    """Let past policies answer CONFIG's held-out prompts, which may be a new benchmark."""
    from flows.backfill_work import Reevaluate

    _run(config, Reevaluate(policies=tuple(policy or ())), dry_run, changes)


@backfill_app.command()
def dates(
    config: ConfigPath,
    first: Annotated[str, typer.Option("--from", metavar="DATE", help="The earliest date, UTC")],
    last: Annotated[str | None, typer.Option("--to", metavar="DATE", help="The latest one; now when left out")] = None,
    cron: Annotated[str, typer.Option(help="The schedule, in UTC")] = "0 2 * * *",
    at_most: Annotated[int | None, typer.Option(min=1, help="The earliest so many; the rest another time")] = None,
    deployment: Annotated[
        str | None, typer.Option(help="As runs of this deployment, behind its limit: flywheel/nightly")
    ] = None,
    dry_run: Dry = False,
    changes: Changes = None,
) -> None:
    """Run the dates of a schedule that no run has finished, each with its own as_of, in order."""
    from flows.backfill_work import Dates
    from flows.dates import read_as_of

    end: datetime | None = read_as_of(last) if last else None
    work = Dates(first=read_as_of(first), last=end, cron=cron, at_most=at_most, deployment=deployment)
    _run(config, work, dry_run, changes)


@backfill_app.command()
def disagreements(
    home: StorePath,
    judge: Annotated[str | None, typer.Option(help="Start of a judge's key; the newest when left out")] = None,
    other: Annotated[str | None, typer.Option(help="Start of another's; the one before when left out")] = None,
    limit: Annotated[int, typer.Option(min=1, help="How many of the largest")] = 20,
) -> None:
    """Show where two judges disagree: per aspect, on which pairs, and the largest differences with both critiques."""
    from flows.backfill_tables import show_disagreements
    from flows.homes import open_home

    show_disagreements(open_home(home), judge, other, limit, Console())


def _run(path: Path, work: "Work", dry_run: bool, changes: list[str] | None) -> None:
    from flows import backfill_counts, backfill_tables
    from flows.backfill import backfill
    from flows.preflight import preflight
    from flows.temporary_server import start_temporary_server
    from rlrf.config import load_config
    from storage.store import open_store

    out, config = Console(), load_config(path, changes or ())
    if dry_run:
        settled = preflight(config)
        backfill_tables.show_counted(backfill_counts.count(settled, open_store(settled.store_path), work), out)
        return
    start_temporary_server()
    done = backfill(config, work)
    backfill_tables.show_done(done, out)
    if work.kind == "judge":
        backfill_tables.show_disagreements(open_store(config.store_path), None, None, 5, out)
