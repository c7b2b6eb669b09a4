"""The report's sections about results: accuracy, decisions, aspects, refinements, distributions."""

from typing import Any

from flows.report_figures import Figures, newest
from flows.report_parts import Figure, Section, interval, percent, plural, table
from flows.tables import arm_name, reflection_cells
from rlrf.evaluating import Z95

Rows = list[dict[str, Any]]


def results(figures: Figures, rows: Rows, decided: Rows) -> Section:
    """Accuracy per iteration against base and control, and every decision about a champion."""
    section = Section("results", "Is it better?")
    if rows:
        arms: dict[str, dict[float, tuple[float, float, float]]] = {}
        for row in rows:
            name = "control" if row["arm"] == "control" else "policy"
            arms.setdefault(name, {})[row["iteration"]] = (
                100 * row["accuracy"],
                100 * row["low"],
                100 * row["high"],
            )
        cells = [
            [
                arm_name(row),
                row["policy"],
                percent(row["accuracy"]),
                interval(row["low"], row["high"], 100, 1),
                row["questions"],
                row["tokens_mean"],
                row["verdict"],
                None if row["gain"] is None else f"{100 * row['gain']:+.1f}",
                interval(row["gain_low"], row["gain_high"], 100, 1),
            ]
            for row in rows
        ]
        columns = [
            "arm",
            "policy",
            "accuracy",
            "95 % interval",
            "questions",
            "answer tokens",
            "gate",
            "gain",
            "interval",
        ]
        section.figures.append(
            Figure(
                figures.lines(arms, "iteration (0 is the base)", "held-out accuracy, %"),
                "Held-out accuracy with 95 % intervals (Wilson).",
                "iteration_summary",
                table("Held-out accuracy", columns, cells),
            )
        )
    else:
        section.text = "No policy was evaluated in this run."
    if decided:
        section.tables.append(_decisions(decided))
    return section


def _decisions(decided: Rows) -> Any:
    cells = [
        [
            f"{row['number']:,}",
            f"{row['created_at']:%Y-%m-%d %H:%M}",
            row["iteration"],
            row["verdict"],
            row["policy"],
            row["champion"],
            row["decided_by"],
            row["reason"],
        ]
        for row in decided
    ]
    columns = ["number", "when (UTC)", "iteration", "verdict", "about", "champion then", "decided by", "why"]
    return table("Decisions: start, promotions, rollbacks", columns, cells, "table decisions")


def aspects(figures: Figures, evaluated: Rows, learned: Rows) -> Section:
    """Aspects of held-out answers per iteration, then of the responses that were learned from."""
    section = Section("aspects", "Aspects")
    exams = {
        arm_name(row): {one["aspect"]: (one["mean"], one["low"], one["high"]) for one in row["aspects"]}
        for row in evaluated
        if row["aspects"]
    }
    if exams:
        cells = [[arm, name, *map(_fixed, point)] for arm, one in exams.items() for name, point in one.items()]
        section.figures.append(
            Figure(
                figures.dots(newest(exams), "mean level of held-out answers"),
                f"Aspects of held-out answers with 95 % intervals{_left_out(exams)}.",
                "table evaluation_aspects",
                table("Aspects of held-out answers", ["arm", "aspect", "mean", "low", "high"], cells),
            )
        )
    series: dict[str, dict[str, tuple[float, float, float]]] = {}
    for row in sorted(learned, key=lambda row: (row["iteration"], row["refinement"])):
        if row["mean"] is not None:
            half = Z95 * (row["standard_error"] or 0.0)
            point = (row["mean"], row["mean"] - half, row["mean"] + half)
            series.setdefault(_group(row), {})[row["aspect"]] = point
    if series:
        cells = [
            [
                _group(row),
                row["aspect"],
                _fixed(row["mean"]),
                _fixed(row["standard_error"]),
                row["rated"],
                row["unrated"],
            ]
            for row in learned
        ]
        columns = ["of", "aspect", "mean", "standard error", "rated", "unrated"]
        section.figures.append(
            Figure(
                figures.dots(newest(series), "mean level of responses"),
                "Aspects of what was learned from, refinements apart. Intervals take responses as independent, "
                f"though those to one prompt are alike: read them as too narrow{_left_out(series)}.",
                "report_responses and ratings",
                table("Aspects of responses", columns, cells),
            )
        )
    return section


def _group(row: dict[str, Any]) -> str:
    return f"{row['iteration']}: {'refinements' if row['refinement'] else 'responses'}"


def refinements(figures: Figures, rows: Rows) -> Section:
    """What reflection was worth, as storage.reflecting says it."""
    section = Section("refinements", "What reflection was worth")
    if not rows:
        section.text = "No finished iteration has refinements."
        return section
    section.text = (
        "Lift: a refinement's score less that of the response that it rewrote. Each prompt counts once, by its mean. "
        "Plain responses: as many as refinements, from the policy itself, to the same prompts."
    )
    series: dict[str, dict[str, tuple[float, float, float]]] = {}
    for row in rows:
        lines = {one["aspect"]: one for one in row["lifts"]}
        if row["plain"] and row["plain"]["prompts"]:
            lines |= {"mean against plain": row["plain"]["score"], "best against plain": row["plain"]["best"]}
        series[f"iteration {row['iteration']}"] = {
            name: (one["mean"], one["low"], one["high"]) for name, one in lines.items()
        }
    cells = [[name, *values] for name, values in reflection_cells(rows).items()]
    head = table("Refinements", ["", *(f"iteration {row['iteration']}" for row in rows)], cells)
    if any(series.values()):
        view = "reflection_lifts, reflection_aspects, reflection_against_plain"
        caption = f"Mean lift with 95 % intervals over prompts{_left_out(series)}."
        section.figures.append(Figure(figures.dots(newest(series), "lift of refinements"), caption, view, head))
    else:
        section.tables.append(head)
    return section


def distributions(figures: Figures, scores: Rows, lengths: Rows) -> Section:
    """Scores and lengths: responses and refinements, chosen and rejected sides of pairs."""
    section = Section("distributions", "Scores and lengths")
    for rows, what, view in (
        (scores, "score", "report_responses.score"),
        (lengths, "tokens", "report_responses.completion_tokens"),
    ):
        for names in (("responses", "refinements"), ("chosen", "rejected")):
            counts = {name: {row[what]: row[name] for row in rows if row[name]} for name in names}
            counts = {name: found for name, found in counts.items() if found}
            if not counts:
                continue
            means = ", ".join(f"{name} {_mean(found):,.4g}" for name, found in counts.items())
            sides = "Chosen against rejected sides of pairs" if "chosen" in names else "Responses and refinements"
            said = "score" if what == "score" else "length in tokens"
            shown = rows if len(rows) <= 200 else _binned(rows, what, names)
            section.figures.append(
                Figure(
                    figures.histogram(counts, said, "pairs" if "chosen" in names else "responses"),
                    f"{sides}: {said}. Mean: {means}.",
                    view,
                    table(
                        f"{sides} by {said}",
                        [what, *names],
                        ([row[what], *(row[name] for name in names)] for row in shown),
                    ),
                )
            )
    if not section.figures:
        section.text = "No response was rated."
    return section


def _binned(rows: Rows, what: str, names: tuple[str, str]) -> Rows:
    """Rows summed up into a hundred ranges, each called by its bounds."""
    low, high = rows[0][what], rows[-1][what]
    step = (high - low) / 100
    bins: dict[int, dict[str, Any]] = {}
    for row in rows:
        number = min(99, int((row[what] - low) / step))
        one = bins.setdefault(
            number, {what: f"{low + number * step:,.4g} to {low + (number + 1) * step:,.4g}"} | dict.fromkeys(names, 0)
        )
        for name in names:
            one[name] += row[name]
    return list(bins.values())


def _mean(counts: dict[float, int]) -> float:
    return sum(value * count for value, count in counts.items()) / sum(counts.values())


def _fixed(value: float | None) -> str:
    return "" if value is None else f"{value:+.3f}"


def _left_out(series: dict[str, Any]) -> str:
    left = len(series) - len(newest(series))
    return f"; {plural(left, 'older one')} in the table alone" if left else ""
