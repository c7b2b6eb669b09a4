"""`rlrf invalidate`, `rlrf gc`, and the options of `rlrf run` that do stages again."""

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from flows.arguments import Changes, ConfigPath

if TYPE_CHECKING:
    from flows.rerunning import Again

_STAGE = "a stage as `rlrf plan` names it, or its start; judge:refine names one of several"

From = Annotated[str | None, typer.Option("--from", metavar="STAGE", help=f"Do this and all after it again: {_STAGE}")]
Only = Annotated[str | None, typer.Option(metavar="STAGE", help=f"Do this alone again, and stop after it: {_STAGE}")]
Iterations = Annotated[
    str | None,
    typer.Option(metavar="N|N-M", help="With a stage: where it is meant, 0 before and after all. Alone: how many"),
]
Dry = Annotated[bool, typer.Option("--dry-run", help="Say what would go; change nothing")]


@dataclass(frozen=True)
class Options:
    """What the options of `rlrf run` come to: changes of the configuration, and what is to be done again."""

    changes: tuple[str, ...] = ()
    again: "Again | None" = None


def rerun_options(from_stage: str | None, only: str | None, iterations: str | None) -> Options:
    """Read --from, --only and --iterations. Raises BadParameter for what can't be meant."""
    if from_stage is not None and only is not None:
        raise typer.BadParameter("give --from or --only, not both")
    stage = from_stage if from_stage is not None else only
    if stage is not None:
        return Options(again=_again(stage, iterations, onward=only is None))
    if iterations is None:
        return Options()
    if not iterations.isdecimal() or int(iterations) < 1:
        raise typer.BadParameter(f"--iterations {iterations!r} alone is a number from 1 on; a range goes with --from")
    return Options(changes=(f"iterations={int(iterations)}",))


def invalidate(
    config: ConfigPath,
    stage: Annotated[str, typer.Argument(help=_STAGE[0].upper() + _STAGE[1:])],
    onward: Annotated[bool, typer.Option("--from", help="This stage and every stage after it")] = False,
    iterations: Iterations = None,
    dry_run: Dry = False,
    yes: Annotated[bool, typer.Option("--yes", help="Don't ask")] = False,
    changes: Changes = None,
) -> None:
    """Remove the results of a stage, after a copy of the store, so that the next run does it again."""
    from flows import rerun_tables, rerunning
    from flows.preflight import preflight
    from rlrf.config import load_config
    from storage.store import open_store

    out, again = Console(), _again(stage, iterations, onward=onward)
    settled = preflight(load_config(config, changes or ()))
    store = open_store(settled.store_path)
    counted = rerunning.count(settled, store, again)
    rerun_tables.show_invalidated(counted, out, done=False)
    if dry_run or not counted.any:
        return
    if not yes:
        if not sys.stdin.isatty():
            raise typer.BadParameter("without a terminal to ask on, give --yes to do it or --dry-run to look")
        typer.confirm("Remove all of this?", abort=True)
    rerun_tables.show_invalidated(rerunning.invalidate(settled, store, again), out, done=True)


def gc(
    home: Annotated[Path, typer.Argument(help="A run's `home`, or its TOML file", metavar="HOME|CONFIG")],
    dry_run: Dry = False,
) -> None:
    """Remove what nothing needs: leftovers of killed runs, old checkpoints, logs and copies, models of no policy."""
    from flows import housekeeping, rerun_tables

    found = housekeeping.look(*housekeeping.home_of(home))
    if not dry_run:
        housekeeping.remove(found)
    rerun_tables.show_litter(found, Console(), done=not dry_run)


def _again(stage: str, iterations: str | None, *, onward: bool) -> "Again":
    from flows.rerunning import Again, iterations_named, stage_named

    try:
        return Again(stage_named(stage), iterations_named(iterations) if iterations else None, onward)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from error
