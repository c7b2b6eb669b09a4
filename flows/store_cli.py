"""`rlrf snapshot` and `rlrf restore`: a copy of the store to read from, and the way back when the store is damaged."""

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

Home = Annotated[Path, typer.Argument(help="A store, or the `home` folder that holds store.duckdb", metavar="HOME")]
out = Console()


def snapshot(home: Home) -> None:
    """Publish a copy of the store, for notebooks and shells to read: HOME/snapshot.duckdb."""
    from flows.homes import open_home
    from rlrf.errors import StoreError
    from storage.snapshots import publish
    from storage.store import age_of, snapshot_path

    store = open_home(home)
    path = snapshot_path(store.path)
    before = f"the one before was {age_of(path)} old" if path.is_file() else "the first one"
    made = publish(store)
    if made is None:
        raise StoreError(f"another process is publishing {str(path)!r}: wait for it")
    _say(f"{made.path}: {made.rows:,} rows, {made.bytes / 1e6:,.1f} MB; {made.seconds:.2f} s, {before}")
    _say(f"writers waited {made.held:.2f} s")


def restore(
    home: Home,
    force: Annotated[bool, typer.Option("--force", help="Go back to the snapshot though the store is sound")] = False,
) -> None:
    """Put the last snapshot in the place of a damaged store; the damaged files are kept under other names."""
    from flows.homes import store_at
    from storage.restoring import restore as put_back

    done = put_back(store_at(home), force=force)
    for file in done.aside:
        _say(f"kept aside  {file}")
    _say(f"restored    {done.path}: {done.rows:,} rows, as they were {done.age} ago")
    _say("Rows written since then are missing; the next run makes them again. Models and training folders stay.")


def _say(text: str) -> None:
    from rlrf.terminal import visible

    out.print(visible(text), markup=False, highlight=False, soft_wrap=True)
