"""The report of a run: its results as Markdown, and accuracy with intervals as a picture."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from flows.tables import arm_name, audit_cells, reflection_cells, result_cells
from rlrf.auditing import Measure
from rlrf.handles import Run
from rlrf.terminal import visible
from storage import audits, ledger, reading, reflecting
from storage.store import open_store


def write_report(run: Run) -> Path:
    """Write `report.md` with its pictures into the run's home; returns the report's path."""
    store = open_store(run.config.store_path)
    rows = reading.results(store, run.run_id)
    _draw_accuracy(rows, run.config.home / "accuracy.svg")
    champion = ledger.champion(store)
    path = run.config.home / "report.md"
    lines = [
        f"# {run.config.name}",
        "",
        "![Held-out accuracy with 95 % intervals](accuracy.svg)",
        "",
        *_table(list(map(arm_name, rows)), result_cells(rows)),
        "",
        *_reflection(reflecting.reflection(store, run.run_id), run.config.home / "lifts.svg"),
        *_audit(audits.audits_of(store, run.run_id)),
    ]
    lines += [f"Champion: {champion.name}, weights {champion.policy_id}, in `{champion.folder}`."] if champion else []
    lines += [
        "",
        f"Run {run.run_id}. Every number comes from the views `iteration_summary`, `reflection_lifts`, `reflection_aspects` and",
        "`reflection_against_plain` or the tables `evaluation_aspects` and `pair_audits` in",
        f"`{run.config.store_path}`.",
    ]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def kept_report(run: Run) -> Path | None:
    """The report that is there, where it is of another run with the same results and the same champion; else None."""
    path = run.config.home / "report.md"
    text = path.read_text(encoding="utf-8") if path.is_file() else ""
    found, store = re.search(r"^Run ([0-9a-f-]{36})\.", text, re.MULTILINE), open_store(run.config.store_path)
    champion = ledger.champion(store)
    drawn = (run.config.home / "accuracy.svg").is_file()
    if (
        not found
        or not drawn
        or not text.startswith(f"# {run.config.name}\n")
        or not champion
        or champion.policy_id not in text
    ):
        return None
    return path if reading.same_results(store, run.run_id, found[1]) else None


def _table(columns: list[str], cells: dict[str, list[str]]) -> list[str]:
    lines = ["| | " + " | ".join(columns) + " |", "|---" * (len(columns) + 1) + "|"]
    return lines + ["| " + " | ".join([name.strip(), *values]) + " |" for name, values in cells.items()]


def _reflection(rows: list[dict[str, Any]], picture: Path) -> list[str]:
    """The section about reflection; none where nothing was refined."""
    if not rows:
        return []
    _draw_lifts(rows, picture)
    return [
        "## What reflection was worth",
        "",
        f"![Mean lift of refinements with 95 % intervals]({picture.name})",
        "",
        "Lift: a refinement's score less that of the response that it rewrote. Each prompt counts once, by its mean; unrated",
        "responses are counted and in no mean. Plain responses: as many as refinements, from the policy itself, to the same",
        "prompts; differences are refinements less plain responses.",
        "",
        *_table([f"iteration {row['iteration']}" for row in rows], reflection_cells(rows)),
        "",
    ]


def _audit(found: Mapping[str, Sequence[Measure]]) -> list[str]:
    """What the pairs were measured to be before each training: value in every iteration, and the last one's sentence."""
    if not found:
        return []
    names = list(found)
    last = {one.name: visible(" ".join(one.said.split())) for one in [*found.values()][-1]}
    rows = [
        "| " + " | ".join([name, *cells, last.get(name, "").replace("|", "\\|")]) + " |"
        for name, cells in audit_cells(found).items()
    ]
    head = "| | " + " | ".join([*names, "limit", f"in {names[-1]}"]) + " |"
    return ["## Audit of the pairs", "", head, "|---" * (len(names) + 3) + "|", *rows, ""]


def _draw_accuracy(rows: list[dict[str, Any]], path: Path) -> None:
    """Points with intervals: the arms side by side, the policy's line through its iterations."""
    import matplotlib

    matplotlib.use("svg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(6, 3.4), layout="constrained")
    for number, row in enumerate(rows):
        colour = "tab:gray" if row["arm"] != "policy" else "tab:blue"
        # Wilson's bound of 0 or n right answers misses 0 or 1 by a rounding error, and a bar can't be negative.
        below, above = max(0.0, row["accuracy"] - row["low"]), max(0.0, row["high"] - row["accuracy"])
        axes.errorbar(number, 100 * row["accuracy"], [[100 * below], [100 * above]], fmt="o", capsize=4, color=colour)
        axes.annotate(
            f"{row['accuracy']:.1%}",
            (number, 100 * row["accuracy"]),
            xytext=(8, 0),
            textcoords="offset points",
            va="center",
        )
    axes.set_xticks(range(len(rows)), [arm_name(row) for row in rows])
    axes.set_xlim(-0.4, len(rows) - 0.4 + 0.3)
    axes.set_ylabel("held-out accuracy, %")
    axes.grid(axis="y", alpha=0.3)
    figure.savefig(path, metadata={"Date": None})
    pyplot.close(figure)


def _draw_lifts(rows: list[dict[str, Any]], path: Path) -> None:
    """Mean lifts with intervals: against the parents by aspect, then against plain responses; a colour per iteration."""
    import matplotlib

    matplotlib.use("svg")
    from matplotlib import pyplot

    lines = [_lift_lines(row) for row in rows]
    names = list(dict.fromkeys(name for one in lines for name in one))
    figure, axes = pyplot.subplots(figsize=(6, 1.2 + 0.4 * len(names)), layout="constrained")
    for number, (row, one) in enumerate(zip(rows, lines, strict=True)):
        places = [names.index(name) + 0.6 * (number + 0.5) / len(rows) - 0.3 for name in one]
        means = [found["mean"] for found in one.values()]
        below = [found["mean"] - found["low"] for found in one.values()]
        above = [found["high"] - found["mean"] for found in one.values()]
        said = f"iteration {row['iteration']}"
        axes.errorbar(means, places, xerr=[below, above], fmt="o", capsize=3, label=said)
    axes.axvline(0, color="gray", linewidth=0.8)
    axes.set_yticks(range(len(names)), names)
    axes.invert_yaxis()
    axes.set_xlabel("lift of refinements")
    axes.grid(axis="x", alpha=0.3)
    axes.legend()
    figure.savefig(path, metadata={"Date": None})
    pyplot.close(figure)


def _lift_lines(row: dict[str, Any]) -> dict[str, dict[str, float]]:
    lines = {str(lift["aspect"]): lift for lift in row["lifts"]}
    if row["plain"] and row["plain"]["prompts"]:
        lines |= {"mean score against plain": row["plain"]["score"], "best score against plain": row["plain"]["best"]}
    return lines
