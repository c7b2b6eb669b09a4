"""What the terminal shows of judges: a check against labels, and the health of a store's judges. No text is ever markup."""

from collections.abc import Iterable, Sequence
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Group
from rich.table import Table
from rich.text import Text

from rlrf.terminal import visible

SHOWN_REASONS = 5
_LEFT = {"judge", "aspect", "reason", "stage", "kind", "set", "reasons", "label", "other", "data", ""}


def check_tables(result: dict[str, Any]) -> Group:
    """A check's numbers and its confusion per aspect, and what it cost."""
    head = Text(visible(f"judge {result['judge']} ({result['judge_key'][:8]}), {result['rows']:,} labelled responses"))
    tokens = sum(result["tokens"].values())
    cost = f"{result['seconds']:,.1f} s, {result['responses_per_second'] or 0:,.1f} responses/s, {tokens:,} tokens"
    parts = [part for one in result["aspects"].values() for part in (_numbers(one), _confusion(one))]
    return Group(head, *parts, Text(cost))


def health_tables(found: dict[str, list[dict[str, Any]]]) -> Group:
    """The report of storage.health_report as one table per question; those without rows are left out."""
    names = {judge["judge_key"]: _name(judge) for judge in found["judges"]}
    tables = [
        _sets(found, names),
        _aspects(found["aspects"], names),
        _variants(found["variants"], names),
        _panels(found["panels"], names),
        _drift(found["drift"], names),
        _critiques(found["critiques"], names),
        _checks(found["checks"], names),
    ]
    return Group(*(table for table in tables if table.row_count))


def _numbers(check: dict[str, Any]) -> Table:
    what = "at the top or not" if check["labels"] == "binary" else "the rating"
    low, high = check["interval"]
    return _table(
        f"{check['aspect']}: {what} against the label",
        ["agreement", "95 % interval", "alpha", "rated", "unrated", "if unrated disagreed"],
        [
            [
                _share(check["agreement"]),
                f"{100 * low:.1f} to {100 * high:.1f}",
                _number(check["alpha"]),
                f"{check['n']:,}",
                f"{check['unrated']:,}" + (f" ({_reasons(check['reasons'].items())})" if check["unrated"] else ""),
                _share(check["agreement_of_all"]),
            ]
        ],
    )


def _confusion(check: dict[str, Any]) -> Table:
    rows = check["confusion"]
    ratings = sorted({rating for row in rows.values() for rating in row}, key=_as_number)
    cells = [[label, *(f"{row.get(rating, 0):,}" for rating in ratings)] for label, row in rows.items()]
    return _table("", ["label", *(f"rated {rating}" if rating != "unrated" else rating for rating in ratings)], cells)


def _sets(found: dict[str, list[dict[str, Any]]], names: dict[str, str]) -> Table:
    columns = ["judge", "stage", "set", "judged", "unrated", "ties", "at the top", "attempts", "tokens", "reasons"]
    reasons: dict[tuple[str, str], list[tuple[str, int]]] = {}
    for row in found["unrated"]:
        reasons.setdefault((row["judge_key"], row["set_key"]), []).append((row["reason"], row["responses"]))
    cells = [
        [
            names[row["judge_key"]],
            row["stage"] or "",
            row["set_key"][:8],
            f"{row['judged']:,}",
            _share(row["unrated_share"]),
            _share(row["tie_share"]),
            _share(row["positive_share"]),
            f"{row['attempts_mean']:.2f}",
            f"{row['tokens_mean']:,.0f}",
            _reasons(reasons.get((row["judge_key"], row["set_key"]), [])),
        ]
        for row in found["sets"]
    ]
    return _table("Judgements", columns, cells)


def _aspects(rows: Iterable[dict[str, Any]], names: dict[str, str]) -> Table:
    cells = [
        [
            names[row["judge_key"]],
            row["set_key"][:8],
            row["aspect"],
            f"{row['rated']:,}",
            _signed(row["level_mean"]),
            _share(row["top_share"]),
        ]
        for row in rows
    ]
    return _table("Aspects", ["judge", "set", "aspect", "rated", "mean level", "at the top"], cells)


def _variants(rows: Iterable[dict[str, Any]], names: dict[str, str]) -> Table:
    cells = [
        [
            names[row["judge_key"]],
            row["kind"],
            row["other_key"][:8],
            row["aspect"],
            f"{row['n']:,}",
            _share(row["share"]),
            f"{row['difference']:+.3f} ({row['difference_low']:+.3f} to {row['difference_high']:+.3f})",
            _number(row["alpha"]),
        ]
        for row in rows
    ]
    columns = ["judge", "kind", "other", "aspect", "both rated", "equal", "mean difference", "alpha"]
    return _table("Agreement with itself", columns, cells)


def _panels(rows: Iterable[dict[str, Any]], names: dict[str, str]) -> Table:
    cells = [
        [names[row["judge_key"]], str(row["members"]), row["aspect"], f"{row['n']:,}", _number(row["alpha"])]
        for row in rows
    ]
    return _table("Agreement of panels", ["judge", "members", "aspect", "rated by two or more", "alpha"], cells)


def _drift(rows: Iterable[dict[str, Any]], names: dict[str, str]) -> Table:
    cells = [
        [
            names.get(row["judge_key"], row["judge_key"][:8]),
            names.get(row["other_key"], row["other_key"][:8]),
            row["aspect"],
            f"{row['n']:,}",
            _share(row["equal_share"]),
            _signed(row["mean_difference"]),
        ]
        for row in rows
    ]
    columns = ["judge", "other", "aspect", "both rated", "equal", "mean difference"]
    return _table("Judges of the same responses", columns, cells)


def _critiques(rows: Iterable[dict[str, Any]], names: dict[str, str]) -> Table:
    cells = [
        [
            names[row["judge_key"]],
            row["aspect"],
            f"{row['parent_level']:+.2f}",
            f"{row['refinements']:,}",
            _signed(row["mean_change"])
            + (f" ± {row['standard_error']:.3f}" if row["standard_error"] is not None else ""),
        ]
        for row in rows
    ]
    columns = ["judge", "aspect", "level of the parent", "refinements", "mean change ± s.e."]
    return _table("What critiques are worth", columns, cells)


def _checks(rows: Iterable[dict[str, Any]], names: dict[str, str]) -> Table:
    cells = [
        [
            names[row["judge_key"]],
            row["data"][:8],
            row["aspect"],
            _share(row["agreement"]),
            f"{100 * row['low']:.1f} to {100 * row['high']:.1f}",
            _number(row["alpha"]),
            f"{row['n']:,}",
            f"{row['unrated']:,}",
        ]
        for row in rows
    ]
    columns = ["judge", "data", "aspect", "agreement", "95 % interval", "alpha", "rated", "unrated"]
    return _table("Checks on labelled data", columns, cells)


def _table(title: str, columns: Sequence[str], rows: Iterable[Sequence[str]]) -> Table:
    table = Table(title=title and Text(visible(title)), title_justify="left", box=SIMPLE_HEAD)
    for name in columns:
        table.add_column(Text(visible(name)), justify="left" if name in _LEFT else "right", overflow="fold")
    for row in rows:
        table.add_row(*(Text(visible(cell)) for cell in row))
    return table


def _name(judge: dict[str, Any]) -> str:
    varied = [f"repeat {judge['repeat']}"] if judge["repeat"] else []
    varied += ["reversed"] if judge["reverse"] == "true" else []
    words = [judge["type"], judge["rubric"], judge["judge_key"][:8], *varied]
    return " ".join(word for word in words if word)


def _reasons(reasons: Iterable[tuple[str, int]]) -> str:
    shown = [f"{reason[:60]} {count:,}" for reason, count in reasons]
    more = [f"{len(shown) - SHOWN_REASONS} more"] if len(shown) > SHOWN_REASONS else []
    return ", ".join([*shown[:SHOWN_REASONS], *more])


def _as_number(text: str) -> tuple[bool, float]:
    return (True, 0.0) if text == "unrated" else (False, float(text))


def _share(value: float | None) -> str:
    return "-" if value is None else f"{value:.1%}"


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def _signed(value: float | None) -> str:
    return "-" if value is None else f"{value:+.3f}"
