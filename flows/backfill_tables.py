"""What the terminal shows of backfills, and where two judges disagree."""

from typing import Any

from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table

from flows.backfill_counts import Counted
from rlrf.errors import StoreError
from rlrf.terminal import visible
from storage import backfilling, health
from storage.store import Store

SHOWN = 160
"""Characters of a text that a line of the table shows."""


def show_counted(counted: Counted, out: Console) -> None:
    """What a backfill would take."""
    table = Table(title="Backfill: what it would take", title_justify="left", box=SIMPLE)
    for name in ("", "rows", "tokens, about", "hours, about"):
        table.add_column(name, justify="left" if not name else "right")
    for one in counted.parts:
        hours = None if one.seconds is None else f"{one.seconds / 3600:.2f}"
        table.add_row(visible(one.what), _number(one.rows), _number(one.tokens), hours or "?")
    found = counted.plain()
    table.add_section()
    table.add_row("all", f"{found['rows']:,}", f"{found['tokens']:,}", f"{found['hours']:.2f}")
    out.print(table)


def show_done(done: dict[str, Any], out: Console) -> None:
    """What a backfill made, row by row, and what it left out."""
    if done["rows"]:
        table = Table(box=SIMPLE)
        for name in done["rows"][0]:
            table.add_column(name.replace("_", " "))
        for row in done["rows"]:
            table.add_row(*(_shown(value) for value in row.values()))
        out.print(table)
    for one in done["left_out"]:
        out.print(f"left out: {visible(one)}", markup=False, soft_wrap=True)
    made = ", ".join(f"{count:,} {name}" for name, count in done["made"].items() if count)
    out.print(f"made: {made or 'nothing, all of it is there'}", markup=False, soft_wrap=True)


def show_disagreements(store: Store, judge: str | None, other: str | None, limit: int, out: Console) -> None:
    """How far two judges agree, what the newer says of the pairs, and the largest differences."""
    keys = _two(store, judge, other)
    if keys is None:
        out.print("One judge has rated all there is: nothing to compare.")
        return
    first, second = keys
    out.print(f"judge {first}\nother {second}", markup=False, soft_wrap=True)
    table = Table(title="Agreement by aspect (95 % interval)", title_justify="left", box=SIMPLE)
    for name in ("aspect", "both rated", "equal", "other - judge", "alpha"):
        table.add_column(name, justify="left" if name == "aspect" else "right")
    for found in health.agreement(store, first, second):
        one = found.found
        equal = f"{one.share:.1%} ({100 * one.low:.1f} to {100 * one.high:.1f})"
        difference = f"{one.difference:+.3f} ({one.difference_low:+.3f} to {one.difference_high:+.3f})"
        table.add_row(
            visible(found.aspect), f"{one.n:,}", equal, difference, "-" if one.alpha is None else f"{one.alpha:.3f}"
        )
    out.print(table)
    for row in backfilling.pairs_under(store, first):
        said = f"{row['agrees']:,} pairs as they are, {row['flips']:,} the other way round, {row['ties']:,} ties"
        out.print(f"pair set {row['pair_set'][:8]}: {said}, {row['unrated']:,} unrated", markup=False, soft_wrap=True)
    for row in backfilling.disagreements(store, first, second, limit):
        out.print(
            f"\n{row['aspect']}: {row['level']:+.2f} against {row['other_level']:+.2f}, response {row['response_id']}\n"
            f"  {_short(row['text'])}\n  judge: {_short(row['critique'])}\n  other: {_short(row['other_critique'])}",
            markup=False,
            highlight=False,
            soft_wrap=True,
        )
    out.print("\nAll of them: the views judge_disagreements and pairs_by_judge.")


def _two(store: Store, judge: str | None, other: str | None) -> tuple[str, str] | None:
    """The two judges' keys. Raises StoreError for a start that fits none or several."""
    known = backfilling.latest_judges(store)
    first = _key(known, judge) if judge else next(iter(known), None)
    rest = [one for one in known if one != first]
    second = _key(rest, other) if other else next(iter(rest), None)
    return None if first is None or second is None else (first, second)


def _key(known: list[str], start: str) -> str:
    found = [one for one in known if one.startswith(start)]
    if len(found) != 1:
        raise StoreError(f"{start!r} starts the keys of {len(found)} judges, of {known!r}")
    return found[0]


def _short(text: str) -> str:
    text = " ".join(visible(text).split())
    return text if len(text) <= SHOWN else text[:SHOWN] + "…"


def _shown(value: Any) -> str:
    return f"{value:.3f}" if isinstance(value, float) else visible(str(value))


def _number(value: int | None) -> str:
    return "?" if value is None else f"{value:,}"
