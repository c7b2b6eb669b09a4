"""`rlrf engine` and `rlrf doctor`: what this machine has, and what to do about what is missing."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from rlrf.backends.doctor import Finding
from rlrf.terminal import visible

engine_app = typer.Typer(no_args_is_help=True, help="The vLLM environment: install, status.")
_STYLES = {"ok": "green", "warn": "yellow", "missing": "cyan"}


@engine_app.command()
def install(
    reinstall: Annotated[bool, typer.Option("--reinstall", help="Build it anew even where it is whole")] = False,
) -> None:
    """Build the environment that engine `vllm` is started from; does nothing where it is there."""
    from rlrf.backends.engine.install import install_engine

    install_engine(_say, reinstall=reinstall)


@engine_app.command("status")
def engine_status() -> None:
    """Say which vLLM environment there is, and whether it is what would be installed. Exit code 1 where none is."""
    from rlrf.backends.doctor import check_engine
    from rlrf.backends.engine.env import has_cuda

    finding = check_engine(has_cuda())
    _say(f"{finding.found}; {finding.remedy}" if finding.remedy else finding.found)
    if finding.state == "missing":
        raise typer.Exit(1)


def doctor(
    home: Annotated[Path, typer.Argument(help="A run's `home`, or a folder of several", metavar="HOME")] = Path("runs"),
    as_json: Annotated[bool, typer.Option("--json", help="The same for programs")] = False,
) -> None:
    """Say what this machine has and what to do about what is missing. Exit code 1 where runs would fail."""
    findings = _findings(home)
    if as_json:
        rows = [{**asdict(finding), "broken": finding.broken} for finding in findings]
        typer.echo(json.dumps(rows, indent=1))
    else:
        Console().print(findings_table(findings))
    if any(finding.broken for finding in findings):
        raise typer.Exit(1)


def findings_table(findings: list[Finding]) -> Table:
    """One row per finding, what to do about it below; what makes runs fail is red."""
    table = Table(box=SIMPLE_HEAD, show_header=False, pad_edge=False)
    for name in ("state", "what", "found"):
        table.add_column(name, no_wrap=name != "found", overflow="fold")
    for finding in findings:
        style = "bold red" if finding.broken else _STYLES[finding.state]
        said = Text(visible(finding.found))
        if finding.remedy:
            said.append(f"\n-> {visible(finding.remedy)}", style=style)
        table.add_row(Text("broken" if finding.broken else finding.state, style=style), Text(finding.what), said)
    return table


def _findings(home: Path) -> list[Finding]:
    from flows.prefect_check import check_prefect
    from rlrf.backends.doctor import examine
    from storage.checking import check_store

    *others, disk = examine(home)
    return [*others, check_prefect(), check_store(home), disk]


def _say(text: str) -> None:
    Console().print(f"engine: {visible(text)}", markup=False, highlight=False, soft_wrap=True)
