"""Arguments that several commands take."""

from pathlib import Path
from typing import Annotated

import typer

ConfigPath = Annotated[Path, typer.Argument(help="The run's TOML file", metavar="CONFIG")]
StorePath = Annotated[
    Path, typer.Argument(help="A store, or the `home` folder that holds store.duckdb", metavar="HOME")
]
Changes = Annotated[
    list[str] | None, typer.Option("--set", help="Change one value: --set engine.type=vllm", metavar="KEY=VALUE")
]
AsOf = Annotated[
    str | None,
    typer.Option(metavar="DATE", help="The run's date, UTC: 2026-11-24T02:00; what arrived later doesn't count"),
]
