"""`rlrf judge`: whether a judge agrees with labels, and how far a store's judges can be trusted."""

import json
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from flows.homes import open_home

judge_app = typer.Typer(no_args_is_help=True, help="Whether a judge can be trusted: check, health.")

AsJson = Annotated[bool, typer.Option("--json", help="The same for programs: one JSON object on stdout, nothing else")]


@judge_app.command()
def check(
    file: Annotated[Path, typer.Argument(help="Labelled responses: .jsonl, .json, .csv or .parquet", metavar="FILE")],
    prompt: Annotated[str, typer.Option(help="Column of the prompts, texts or chats", metavar="COL")],
    response: Annotated[str, typer.Option(help="Column of the responses", metavar="COL")],
    label: Annotated[str, typer.Option(help="Column of the labels: true or false, 0 or 1, or ratings", metavar="COL")],
    judge: Annotated[
        str | None, typer.Option(help="A judge's type, or a TOML file with [judge]", metavar="NAME")
    ] = None,
    reference: Annotated[str | None, typer.Option(help="Column of the references", metavar="COL")] = None,
    metadata: Annotated[list[str] | None, typer.Option(help="Column that the judge may see", metavar="COL")] = None,
    aspect: Annotated[
        str | None, typer.Option(help="What the label is about; the judge's first aspect if unset")
    ] = None,
    config: Annotated[
        Path | None, typer.Option(help="A run's TOML file; its judge and the judge's engine", metavar="RUN.toml")
    ] = None,
    changes: Annotated[
        list[str] | None, typer.Option("--set", help="Change one value: judge.reveal_values=false", metavar="KEY=VALUE")
    ] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Judge a seeded draw of this many rows")] = None,
    seed: Annotated[int, typer.Option(help="Seed of the draw")] = 0,
    store: Annotated[Path | None, typer.Option(help="Keep the result in this store or home", metavar="HOME")] = None,
    as_json: AsJson = False,
) -> None:
    """Judge labelled responses and say how far the judge agrees with the labels."""
    from flows.judge_check import Draw, check_judge
    from flows.judge_tables import check_tables
    from rlrf.judge_checking import Columns
    from rlrf.judge_files import load_judge

    home = open_home(store) if store else None  # before anything is judged for nothing
    chosen = load_judge(judge, config, changes or ())
    columns = Columns(prompt, response, label, reference, tuple(metadata or ()))
    result = check_judge(chosen, file, columns, aspect, Draw(limit, seed), home)
    if as_json:
        typer.echo(json.dumps(result, allow_nan=False))
    else:
        Console().print(check_tables(result))


@judge_app.command()
def health(
    home: Annotated[Path, typer.Argument(help="A store, or the `home` folder that holds it", metavar="HOME")],
    judge: Annotated[str, typer.Option(help="Start of a judge's key; all judges when left out", metavar="PREFIX")] = "",
    as_json: AsJson = False,
) -> None:
    """Say how often a store's judges gave no rating, tied, saturated, and agreed with themselves and each other."""
    from flows.judge_tables import health_tables
    from storage.health_report import report

    found = report(open_home(home), judge)
    if as_json:
        typer.echo(json.dumps(found, allow_nan=False))
    else:
        Console().print(health_tables(found))
