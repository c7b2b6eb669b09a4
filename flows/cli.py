"""The command line. Exit codes: 0 done, 1 an error that is explained, 2 wrong usage, 3 stopped on purpose."""

import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from flows.arguments import AsOf, Changes, ConfigPath, StorePath
from flows.backfill_cli import backfill_app
from flows.engine_cli import doctor, engine_app
from flows.homes import open_home as _store
from flows.judge_cli import judge_app
from flows.report_cli import report
from flows.rerun_cli import From, Iterations, Only, gc, invalidate, rerun_options
from flows.store_cli import restore, snapshot
from flows.up_cli import down, up
from rlrf.errors import RlrfError, StoppedError
from rlrf.terminal import visible

if TYPE_CHECKING:
    from datetime import datetime

# Set before prefect is imported: no telemetry, and the terminal belongs to rlrf's own progress lines.
for _name, _value in {
    "PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL": "CRITICAL",
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "PREFECT_CLI_PROMPT": "false",
    "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "120",
    "DO_NOT_TRACK": "1",
    "TOKENIZERS_PARALLELISM": "false",
}.items():
    os.environ.setdefault(_name, _value)

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, help=__doc__)
out = Console()
err = Console(stderr=True)

app.add_typer(engine_app, name="engine")
app.add_typer(judge_app, name="judge")
app.add_typer(backfill_app, name="backfill")
app.command()(doctor)
app.command()(invalidate)
app.command()(gc)
app.command()(report)
app.command()(snapshot)
app.command()(restore)
app.command()(up)
app.command()(down)

AsJson = Annotated[bool, typer.Option("--json", help="Plain JSON on stdout")]
Yes = Annotated[str, typer.Option(help="Why; kept with the decision")]
Waiting = Annotated[str, typer.Option(help="Start of the policy's id, where several wait")]
By = Annotated[str | None, typer.Option(help="Who decides; you, when left out")]


@app.command()
def run(
    config: ConfigPath,
    changes: Changes = None,
    from_stage: From = None,
    only: Only = None,
    iterations: Iterations = None,
    as_of: AsOf = None,
) -> None:
    """Turn the wheel as CONFIG says; what is already there is not done again, unless --from or --only says so."""
    from flows.running import run_flywheel

    options = rerun_options(from_stage, only, iterations)
    whole, date = [*(changes or ()), *options.changes], _date(as_of)
    run_flywheel(config, out, whole, options.again, only=only is not None, as_of=date)


@app.command()
def plan(config: ConfigPath, changes: Changes = None, as_of: AsOf = None, as_json: AsJson = False) -> None:
    """Say what `run` would do, what it would reuse, what that saves and why; start nothing."""
    from flows.plan import planner
    from flows.plan_tables import plan_table
    from flows.savings import savings
    from flows.why import plan_as_json
    from rlrf.config import load_config

    asked = planner(load_config(config, changes or ()), _date(as_of))
    steps = list(asked.steps())
    saved = savings(asked, steps)
    if as_json:
        typer.echo(json.dumps(plan_as_json(steps, saved), indent=2))
    else:
        out.print(plan_table(steps, saved))


@app.command()
def why(
    stage: Annotated[str, typer.Argument(help="A stage of the plan: explore, judge, 'judge of refine'")],
    config: ConfigPath,
    iteration: Annotated[int | None, typer.Option(min=0, help="One iteration; every one when left out")] = None,
    changes: Changes = None,
    as_of: AsOf = None,
    as_json: AsJson = False,
) -> None:
    """Say why a stage is finished or has to run: its key, and which ingredients changed, from what to what."""
    from flows.plan import planner
    from flows.plan_tables import why_group
    from flows.why import why as explain
    from flows.why import why_as_json
    from rlrf.config import load_config

    reasons = explain(planner(load_config(config, changes or ()), _date(as_of)), stage, iteration)
    if as_json:
        typer.echo(json.dumps([why_as_json(one) for one in reasons], indent=2))
    else:
        out.print(why_group(reasons), soft_wrap=True)


@app.command()
def pairs(
    config: ConfigPath,
    rule: Annotated[list[str], typer.Option(help="A pair rule; give several to compare them")] = ["paper"],  # noqa: B006
    changes: Changes = None,
) -> None:
    """Explore, judge and pair by each RULE as CONFIG says, audit the pairs, and train nothing."""
    from typing import cast, get_args

    from flows.pairing import compare_rules
    from rlrf.config import load_config
    from rlrf.pair_config import Rule

    unknown = [one for one in rule if one not in get_args(Rule)]
    if unknown:
        raise typer.BadParameter(f"--rule {unknown[0]!r}: give one of {', '.join(get_args(Rule))}")
    compare_rules(load_config(config, changes or ()), cast(list[Rule], rule), out)


@app.command()
def status(home: StorePath) -> None:
    """Say what the store holds, its latest runs, its champion, and the latest run's results."""
    from flows import tables
    from flows.sizes import home_sizes
    from storage import approvals, audits, reading, sizes

    store = _store(home)
    out.print(tables.sizes_table(sizes.tables(store), home_sizes(store.path), store.path))
    out.print(tables.runs_table(reading.runs(store)))
    out.print(tables.champion_line(store))
    for proposal in approvals.proposals(store):
        from rich.markdown import Markdown

        from flows.summary import waiting_evidence

        out.print(
            f"Awaits approval until {proposal.until:%Y-%m-%d %H:%M}: `rlrf approve` or `rlrf reject`", markup=False
        )
        out.print(Markdown(waiting_evidence(store, proposal), hyperlinks=False))
    latest = reading.latest_run(store)
    if latest:
        out.print(tables.results_table(reading.results(store, latest)))
        audited = audits.audits_of(store, latest)
        if audited:
            out.print(tables.audit_table(audited))


@app.command()
def show(
    home: StorePath, prompt: Annotated[str, typer.Argument(help="Start of a prompt's id, or part of its text")]
) -> None:
    """Show one prompt with its responses, ratings, critiques, refinements and pairs."""
    from flows.tables import prompt_tree
    from storage import reading

    store = _store(home)
    found = reading.find_prompt(store, prompt)
    out.print(prompt_tree(found, reading.responses_to(store, found["prompt_id"])))


@app.command()
def export(
    home: StorePath,
    to: Annotated[Path, typer.Argument(help="A .jsonl or .parquet file", metavar="FILE")],
    pair_set: Annotated[str | None, typer.Option(help="Start of a pair set's key; the newest when left out")] = None,
) -> None:
    """Write a pair set in trl's format: prompt, chosen, rejected as message lists."""
    from storage import exports, reading

    store = _store(home)
    key = reading.pair_set(store, pair_set)
    writers = {".jsonl": exports.write_jsonl, ".parquet": exports.write_parquet}
    if to.suffix not in writers:
        raise typer.BadParameter(f"{str(to)!r}: the name must end in .jsonl or .parquet")
    to.parent.mkdir(parents=True, exist_ok=True)
    count = writers[to.suffix](to, exports.trl_rows(store, key))
    out.print(f"{count:,} pairs of set {key} in {to}", markup=False, soft_wrap=True)


@app.command()
def promote(
    home: StorePath, policy: Annotated[str, typer.Argument(help="Start of a policy's id")], reason: Yes
) -> None:
    """Make a policy the champion, by hand."""
    from flows.championing import promote_by_hand

    out.print(promote_by_hand(_store(home), policy, reason), markup=False, soft_wrap=True)


@app.command()
def rollback(home: StorePath, reason: Yes) -> None:
    """Put the champion before the present one back in office."""
    from flows.championing import roll_back

    out.print(roll_back(_store(home), reason), markup=False, soft_wrap=True)


@app.command()
def approve(home: StorePath, reason: Yes, policy: Waiting = "", by: By = None) -> None:
    """Promote the policy that awaits approval; a run that waits goes on, otherwise the same `rlrf run` does."""
    from flows.approval import answer_by_hand

    out.print(answer_by_hand(_store(home), policy, reason, by, approve=True), markup=False, soft_wrap=True)


@app.command()
def reject(home: StorePath, reason: Yes, policy: Waiting = "", by: By = None) -> None:
    """Keep the policy out that awaits approval; a run that waits goes on, otherwise the same `rlrf run` does."""
    from flows.approval import answer_by_hand

    out.print(answer_by_hand(_store(home), policy, reason, by, approve=False), markup=False, soft_wrap=True)


@app.command()
def heal(
    notify: Annotated[
        str | None, typer.Option(metavar="TYPE/NAME", help="Who is told: a notification or webhook block of the server")
    ] = None,
) -> None:
    """Let the Prefect server at PREFECT_API_URL run crashed runs of deployments again, and tell what people should know."""
    from flows.alerts import install_alerts
    from flows.healing import install_healing

    for line in (*install_healing(), *install_alerts(notify)):
        out.print(line, markup=False, soft_wrap=True)


def _date(text: str | None) -> "datetime | None":
    from flows.dates import read_as_of

    return read_as_of(text) if text is not None else None


def main() -> None:
    """Entry point: errors that are explained go to stderr without a traceback, with their own exit code."""
    with _explained():
        app()


@contextmanager
def _explained() -> Iterator[None]:
    try:
        yield
    except StoppedError as stop:
        err.print(f"stopped: {visible(str(stop))}", style="yellow", markup=False, highlight=False, soft_wrap=True)
        sys.exit(3)
    except RlrfError as error:
        err.print(f"error: {visible(str(error))}", style="red", markup=False, highlight=False, soft_wrap=True)
        sys.exit(1)
