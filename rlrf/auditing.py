"""What an audit says of a pair set: measures with intervals, held against limits, before any training starts."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from rlrf.evaluating import Z95, wilson
from rlrf.terminal import visible

SHOWN = 10
"""Offending rows that are kept and shown per measure."""

RATIO = "length_ratio"
AT_LEAST = frozenset({"top_yield"})

REMEDIES: dict[str, str] = {
    "equal_texts": "pairs whose texts are equal teach nothing: look at the judge, which rates one text in two ways",
    "ties": "the judge can't tell the two apart: name a [reward], or set pairs.type = 'margin'",
    RATIO: "training would teach length: set pairs.type = 'length_controlled', or shorten what is longer",
    "near_duplicate_prompts": "lower prompts.near_duplicate, so that ingestion leaves them out, or bring other prompts",
    "evaluation_overlap": "take the prompts that share text with the held-out ones out of the files of one side",
    "largest_source": "bring more prompts of other sources, or fewer of this one",
    "refinements": "lower refine.m or raise explore.n, so that more chosen responses are the policy's own",
    "top_yield": "take an abler policy, easier prompts, or a judge whose top is within reach",
    "label_noise": "take a more accurate judge; where none was checked, run `rlrf judge check` first",
}


@dataclass(frozen=True, slots=True)
class Offence:
    """One row that counts against a pair set: its prompt, its pair where it is one, and what offends."""

    prompt_id: str
    said: str
    chosen_id: str | None = None
    rejected_id: str | None = None


@dataclass(frozen=True, slots=True)
class Measure:
    """One number of an audit: a share in [0, 1], or the length ratio; None where nothing could be measured.

    `low` and `high` are its 95 % interval, `n` what it was taken over, `bound` the limit that the configuration sets.
    `said` is one sentence for people; `offences` the worst rows, worst first.
    """

    name: str
    value: float | None
    low: float | None
    high: float | None
    n: int
    bound: float | None
    passed: bool
    said: str
    offences: tuple[Offence, ...] = ()


def measure(
    name: str,
    value: tuple[float, float, float] | None,
    n: int,
    bound: float | None,
    said: str,
    offences: Sequence[Offence] = (),
) -> Measure:
    """A measure held against its limit; what couldn't be measured keeps no limit that is set."""
    number, low, high = value or (None, None, None)
    return Measure(name, number, low, high, n, bound, passes(name, number, bound), said, tuple(offences[:SHOWN]))


def share(name: str, count: int, n: int, bound: float | None, said: str, offences: Sequence[Offence] = ()) -> Measure:
    """`count` of `n` as a measure with its Wilson interval; `said` goes on from "3 of 10"."""
    if not n:
        return measure(name, None, 0, bound, f"not measured: 0 of 0 {said}")
    value = (count / n, *wilson(count, n))
    return measure(name, value, n, bound, f"{count:,} of {n:,} {said}", offences if count or name in AT_LEAST else ())


def passes(name: str, value: float | None, bound: float | None) -> bool:
    """Whether a value keeps a limit: at most it, for some measures at least it, for the ratio within it both ways."""
    if bound is None:
        return True
    if value is None:
        return False
    if name == RATIO:
        return 1 / bound <= value <= bound
    return value >= bound if name in AT_LEAST else value <= bound


def ratio_of_means(above: Sequence[float], below: Sequence[float]) -> tuple[float, float, float]:
    """Ratio of two means with its 95 % interval, from one total of each per prompt; needs at least one prompt.

    The interval is the delta method's on the logarithm, over prompts, because pairs of one prompt resemble each other. For
    fewer than two prompts, or where one mean is 0, it is the point itself.
    """
    a, b = np.asarray(above, dtype=float), np.asarray(below, dtype=float)
    if not a.sum() or not b.sum():
        value = 1.0 if a.sum() == b.sum() else math.inf if a.sum() else 0.0
        return value, value, value
    value = float(a.sum() / b.sum())
    if len(a) < 2:
        return value, value, value
    error = float(np.std(a / a.mean() - b / b.mean(), ddof=1)) / math.sqrt(len(a))
    return value, value * math.exp(-Z95 * error), value * math.exp(Z95 * error)


def number(name: str, value: float | None) -> str:
    """A value as people read it: 12.3 %, or 1.08 x for the length ratio."""
    if value is None:
        return "-"
    return f"{value:.2f} x" if name == RATIO else f"{value:.1%}"


def interval(one: Measure) -> str:
    """A measure's interval as people read it; empty where it has none."""
    if one.low is None or one.high is None:
        return ""
    if one.name == RATIO:
        return f"{one.low:.2f} to {one.high:.2f}"
    return f"{100 * one.low:.1f} to {100 * one.high:.1f}"


def limit(one: Measure) -> str:
    """A measure's limit as people read it; empty where none is set."""
    if one.bound is None:
        return ""
    if one.name == RATIO:
        return f"1/{one.bound:g} to {one.bound:g}"
    return f"at {'least' if one.name in AT_LEAST else 'most'} {one.bound:.1%}"


def verdict(one: Measure) -> str:
    """ok, OVER or NOT MEASURED against a limit; empty where none is set."""
    if one.bound is None:
        return ""
    if one.passed:
        return "ok"
    return "NOT MEASURED" if one.value is None else "UNDER" if one.name in AT_LEAST else "OVER"


def lines(measures: Sequence[Measure]) -> list[str]:
    """The measures as a table of plain text, a line each, of one width."""
    cells = [("", "value", "95 % interval", "limit", "")]
    cells += [(one.name, number(one.name, one.value), interval(one), limit(one), verdict(one)) for one in measures]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    return [
        "  ".join([row[0].ljust(widths[0]), *map(str.rjust, row[1:4], widths[1:4]), row[4]]).rstrip() for row in cells
    ]


def stop_message(measures: Sequence[Measure], rows: Mapping[str, Sequence[Mapping[str, Any]]]) -> str:
    """Which limits a pair set doesn't keep, by how much, what to do, and the worst rows; safe to show.

    `rows`: from the name of a measure to its offences, each with place, said, prompt_id, prompt, chosen and rejected (texts
    or None).
    """
    failing = [one for one in measures if not one.passed]
    parts = [
        f"audit_pairs: the pairs don't keep {len(failing)} limit(s); nothing was trained, the numbers are in the store"
    ]
    for one in failing:
        parts.append(f"audit.{one.name} is {limit(one)}, found {number(one.name, one.value)}: {one.said}")
        moved = "lower" if one.name in AT_LEAST else "raise"
        parts.append(f"  remedy: {REMEDIES[one.name]}; or {moved} the limit, if this is meant")
        parts += [f"  {row['place'] + 1}. {_row(row)}" for row in rows.get(one.name, ())]
    return "\n".join(visible(part) for part in parts)


def _row(row: Mapping[str, Any]) -> str:
    texts = [f"{name} {short(row[name])}" for name in ("chosen", "rejected") if row[name] is not None]
    return " | ".join([f"prompt {row['prompt_id'][:8]} {short(row['prompt'])}", *texts, " ".join(row["said"].split())])


def short(text: str | None, most: int = 80) -> str:
    """A text on one line, in quotes, safe to show, cut after `most` characters."""
    safe = visible(" ".join((text or "").split()))
    return f'"{safe if len(safe) <= most else safe[: most - 1] + "…"}"'
