"""`rlrf report`: what happened in a run, and its samples, as one HTML page to open from disk."""

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from flows.arguments import StorePath


def report(
    home: StorePath,
    run: Annotated[str | None, typer.Option(help="Start of a run's id; the newest when left out", metavar="ID")] = None,
    to: Annotated[Path | None, typer.Option(help="HOME/report.html when left out", metavar="FILE.html")] = None,
    samples: Annotated[int, typer.Option(min=0, help="Responses to show at most")] = 10_000,
) -> None:
    """Write one self-contained HTML page about a run: results, judges, pairs, cost, and a browser of its samples."""
    from flows.homes import open_home
    from flows.report_page import write_page

    page = write_page(open_home(home), run, to, samples)
    shown = "all" if page.responses == page.of_responses else f"{page.responses:,} of"
    said = f"{page.path}: {page.bytes / 1e6:,.1f} MB, {shown} {page.of_responses:,} responses"
    Console().print(said, markup=False, highlight=False, soft_wrap=True)
