"""What the terminal shows of plans and of reasons. Ingredients are foreign text: never markup, never steering."""

from collections.abc import Iterator, Sequence
from typing import Any

from rich.box import SIMPLE
from rich.console import Group
from rich.table import Table
from rich.text import Text

from flows.savings import Saving, total
from flows.steps import FINISHED, Step
from flows.why import Why
from rlrf.explaining import Change, is_text, roots, said, text_difference, value
from rlrf.terminal import visible

_COLOURS = {"finished": "green", "partly reusable": "yellow", "stale": "red", "fresh": "cyan"}


def plan_table(steps: Sequence[Step], found: Sequence[Saving]) -> Group:
    """Stages with their states, rows kept and to do, what reuse saves, and why; a closing line with the sums."""
    table = Table(title="Plan", title_justify="left", box=SIMPLE)
    for name in ("iteration", "stage", "state", "rows", "kept", "to do", "tokens", "saves", "why"):
        table.add_column(
            name, justify="left" if name in {"stage", "state", "saves", "why"} else "right", no_wrap=name != "why"
        )
    for step, saving in zip(steps, found, strict=True):
        left = None if step.rows is None else step.rows - step.kept
        cells = [
            str(step.iteration or "-"),
            step.title,
            step.state,
            *map(_count, (step.rows, step.kept, left, step.tokens)),
        ]
        table.add_row(*map(_text, [*cells, _saves(saving), step.why]))
    return Group(table, _text(_closing(steps, total(found))))


def _closing(steps: Sequence[Step], saved: Saving) -> str:
    done, tokens = sum(step.state == FINISHED for step in steps), sum(step.tokens for step in steps)
    to_do = f"at most about {tokens:,} tokens to generate" if tokens else "no tokens to generate"
    line = f"{done} of {len(steps)} stages finished, {saved.rows:,} rows kept, {to_do}"
    if saved.rows:
        line += f"; reuse saves {saved.rows:,} rows" + (f", {_saves(saved)}" if _saves(saved) else "")
    if saved.left and done < len(steps):
        line += f"; {_seconds(saved.left)} left (an estimate from what stages took so far)"
    return line


def why_group(reasons: Sequence[Why]) -> Group:
    """One block per iteration: state, key, when and by whom, what reuse saves, and the ingredients."""
    return Group(*(part for one in reasons for part in _block(one)))


def _block(one: Why) -> Iterator[Text | Table]:
    step = one.step
    where = f"iteration {step.iteration}" if step.iteration else "before the iterations"
    yield _text(f"{step.title}, {where}: {step.state}", style=f"bold {_COLOURS.get(step.state, '')}".strip())
    for line in _facts(one):
        yield _text(f"  {line}")
    if step.key is not None:
        yield _ingredients(one)
        yield from _behind(one.changes)
    yield Text("")


def _facts(one: Why) -> Iterator[str]:
    step, saving, when = one.step, one.saving, one.when
    yield f"key      {step.key.key}" if step.key else "key      not known yet: earlier stages decide it"
    if when is not None:
        by = f" by run {when.run_id[:8]} ({when.run})" if when.run_id else ""
        yield f"{when.what:<8} {when.at:%Y-%m-%d %H:%M:%S}{by}"
    if one.waits_for is not None:
        first = one.waits_for
        yield f"waits    for {first.title} of iteration {first.iteration}, which is {first.state}: {first.why}"
    rows = "unknown" if step.rows is None else f"{step.rows:,}"
    yield f"rows     {rows}, {step.kept:,} kept" + (f", {step.tokens:,} tokens to generate" if step.tokens else "")
    if saving.rows:
        yield f"saves    {saving.rows:,} rows" + (f", {_saves(saving)}" if _saves(saving) else "")
    if saving.left:
        yield f"left     {_seconds(saving.left)} (an estimate from what stages took so far)"
    if one.old is not None:
        found = roots(one.changes)
        yield f"nearest  {one.old.key}, {len(found)} root{'s' if len(found) != 1 else ''} of the difference:"
        for root in found:
            yield f"           {_named(root)}"
    elif step.key is not None and step.state != FINISHED:
        yield "nearest  none: this stage never finished in this store"


def _named(root: Change) -> str:
    """A root in one line, with the kind of key that it is an ingredient of."""
    return f"{root.of}: {said(root)}" + (f" ({root.note})" if root.note else "")


def _ingredients(one: Why) -> Table:
    """The key's own ingredients: what is as it was, in short, and what isn't, in full."""
    table = Table(box=SIMPLE)
    for name in ("ingredient", "was", "is"):
        table.add_column(name, overflow="fold", no_wrap=name == "ingredient")
    for name, given in one.unchanged.items():
        table.add_row(_text(name), _text("unchanged" if one.old else ""), _text(value(given, 60)))
    for change in one.changes:
        if is_text(change):
            table.add_row(_text(change.name), _text("see below"), _text("see below"))
        else:
            table.add_row(_text(change.name), _text(value(change.was)), _text(value(change.now)))
    return table


def _behind(changes: Sequence[Change]) -> Iterator[Text]:
    """What lies behind the changes, deeper ones further in; what comes up again is named, not repeated."""
    passed: set[int] = set()

    def lines(given: Sequence[Change], depth: int) -> Iterator[str]:
        for change in given:
            head = f"{change.name} (text):" if is_text(change) else said(change, None)
            yield "  " * depth + head + (f"  [{change.note}]" if change.note else "")
            if is_text(change):
                yield from ("  " * (depth + 1) + line for line in text_difference(change.was, change.now))
            if change.because and id(change.because) in passed:
                yield "  " * (depth + 1) + "because of what is said above"
            elif change.because:
                passed.add(id(change.because))
                yield "  " * depth + f"because, in {change.because[0].of}:"
                yield from lines(change.because, depth + 1)

    yield from map(_text, lines([one for one in changes if one.because or is_text(one)], 1))


def _saves(saving: Saving) -> str:
    parts = [f"{saving.tokens:,} tokens"] if saving.tokens else []
    if saving.rows and saving.seconds and saving.seconds >= 0.05:
        parts.append(_seconds(saving.seconds))
    return ", ".join(parts)


def _seconds(seconds: float) -> str:
    return f"about {seconds:,.0f} s" if seconds >= 10 else f"about {seconds:.1f} s"


def _count(given: int | None) -> str:
    return "" if given is None else f"{given:,}"


def _text(text: Any, style: str = "") -> Text:
    """Text without markup, and without what steers a terminal."""
    return Text(visible(str(text)), style=style)
