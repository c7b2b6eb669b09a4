"""The report of a run: its results as Markdown, and accuracy with intervals as a picture."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from flows.tables import arm_name, audit_cells, result_cells
from rlrf.auditing import Measure
from rlrf.handles import Run
from rlrf.terminal import visible
from storage import audits, ledger, reading
from storage.store import open_store


def write_report(run: Run) -> Path:
    """Write `report.md` and `accuracy.svg` into the run's home; returns the report's path."""
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
        *_table(rows),
        "",
        *_audit(audits.audits_of(store, run.run_id)),
    ]
    lines += [f"Champion: {champion.name}, weights {champion.policy_id}, in `{champion.folder}`."] if champion else []
    lines += [
        "",
        f"Run {run.run_id}. Every number is a row of the views `iteration_summary` and `evaluation_aspects` or of the table",
        f"`pair_audits` in `{run.config.store_path}`.",
    ]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def _table(rows: list[dict[str, Any]]) -> list[str]:
    lines = ["| | " + " | ".join(map(arm_name, rows)) + " |", "|---" * (len(rows) + 1) + "|"]
    return lines + ["| " + " | ".join([name.strip(), *cells]) + " |" for name, cells in result_cells(rows).items()]


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
