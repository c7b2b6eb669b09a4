"""`rlrf up` and `rlrf down`."""

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

Home = Annotated[Path | None, typer.Option(help="Prefect's folder: database, logs; PREFECT_HOME when left out")]


def up(
    port: Annotated[int | None, typer.Option(min=1, max=65535, help="The server's; 4200 when left out")] = None,
    home: Home = None,
    deployments: Annotated[Path, typer.Option(help="The deployments")] = Path("deployments/prefect.yaml"),
) -> None:
    """Start a Prefect server and a worker on this machine, with the deployments and automations; again to mend or update."""
    from flows.up import place_of
    from flows.up import up as start

    place, out = place_of(home, port, deployments), Console()
    start(place, lambda line: out.print(line, markup=False, soft_wrap=True))
    out.print(
        f"\nopen         {place.ui}\n"
        f"run          prefect deployment run flywheel/ad-hoc      (with PREFECT_API_URL={place.url})\n"
        "stop         rlrf down",
        markup=False,
        soft_wrap=True,
    )


def down(home: Home = None) -> None:
    """Stop what `rlrf up` started, and nothing else."""
    from flows.up import down as stop
    from flows.up import place_of

    out = Console()
    stop(place_of(home, None, Path()).home, lambda line: out.print(line, markup=False, soft_wrap=True))
