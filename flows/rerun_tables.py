"""What the terminal shows of stages that are invalidated and of what is removed from a home."""

from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table

from flows.housekeeping import Found
from flows.rerunning import Invalidated
from rlrf.files import size_of
from rlrf.terminal import visible


def show_invalidated(found: Invalidated, out: Console, *, done: bool) -> None:
    """Per stage and table the rows that go, with the tokens and seconds that it takes to make them again; and folders."""
    if not found.any:
        out.print("Nothing to invalidate: no result of these stages is there.")
        return
    table = Table(title="Invalidated" if done else "To be invalidated", title_justify="left", box=SIMPLE)
    for name in ("iteration", "stage", "table", "rows", "tokens", "seconds"):
        table.add_column(name, justify="left" if name in ("stage", "table") else "right", no_wrap=True)
    for place, gone in found.gone:
        cost = (f"{gone.tokens:,}" if gone.tokens else "", f"{gone.seconds:.1f}" if gone.seconds else "")
        for number, (name, rows) in enumerate(sorted(gone.rows.items())):
            first = (str(place.iteration), place.name) if not number else ("", "")
            table.add_row(*first, name, f"{rows:,}", *(cost if not number else ("", "")))
    out.print(table)
    tokens, seconds = (sum(getattr(gone, name) for _, gone in found.gone) for name in ("tokens", "seconds"))
    rows = sum(sum(gone.rows.values()) for _, gone in found.gone)
    out.print(f"{rows:,} rows; to make them again took {tokens:,} tokens and {seconds:,.1f} s", soft_wrap=True)
    out.print("Policies and decisions stay in the store as history: they only lose their stage.", soft_wrap=True)
    folders = found.folders | {old: new for _, gone in found.gone for old, new in gone.folders.items()}
    for old, new in folders.items():
        there = size_of(new if done else old)
        _say(out, f"{'set aside' if done else 'to be set aside'}: {old} as {new.name} ({bytes_said(there)})")
    if found.backup is not None:
        _say(out, f"the store as it was before: {found.backup} ({bytes_said(size_of(found.backup))})")


def show_litter(found: Found, out: Console, *, done: bool) -> None:
    """Every file and folder with its size and why it goes."""
    word = "removed" if done else "would go"
    for note in found.notes:
        _say(out, note)
    for one in found.litter:
        _say(out, f"{word}: {one.path} ({bytes_said(one.size)}): {one.why}")
    total = bytes_said(sum(one.size for one in found.litter))
    _say(out, f"{len(found.litter):,} {word}, {total}" if found.litter else "nothing to remove")


def bytes_said(number: int) -> str:
    """Bytes as people read them, in powers of 1000."""
    value, unit = float(number), "B"
    for bigger in ("kB", "MB", "GB", "TB"):
        if value < 1000:
            break
        value, unit = value / 1000, bigger
    return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"


def _say(out: Console, text: str) -> None:
    out.print(visible(text), markup=False, highlight=False, soft_wrap=True)
