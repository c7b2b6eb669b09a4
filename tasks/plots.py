"""Small plots as SVG data URIs, for Markdown artifacts. Drawn without pyplot, so that any thread may draw."""

from __future__ import annotations

import base64
import io
from collections.abc import Callable, Mapping, Sequence
from typing import Any


def bars(steps: Mapping[float, int], width: float, label: str, *, zero: bool = False) -> str:
    """A histogram: from a step's middle to how many there are; `zero` marks the 0."""

    def draw(axes: Any) -> None:
        axes.bar(list(steps), list(steps.values()), width=0.9 * width)
        if zero:
            axes.axvline(0, color="gray", linewidth=0.8)
        axes.set(xlabel=label, ylabel="responses")

    return _svg(draw)


def lengths(unit: str, chosen: Sequence[int], rejected: Sequence[int]) -> str:
    """Two histograms over the same steps: how long chosen and rejected responses are."""

    def draw(axes: Any) -> None:
        steps = min(40, max(5, len(set(chosen) | set(rejected))))
        axes.hist([chosen, rejected], bins=steps, label=["chosen", "rejected"])
        axes.set(xlabel=f"length, {unit}", ylabel="responses")
        axes.legend()

    return _svg(draw)


def curves(found: Mapping[str, Sequence[tuple[int, float]]]) -> str:
    """Metrics of a training by step."""

    def draw(axes: Any) -> None:
        for name, points in found.items():
            axes.plot(*zip(*points, strict=True), label=name, marker="." if len(points) < 3 else "")
        axes.set(xlabel="optimiser step")
        axes.legend()

    return _svg(draw)


def intervals(lines: Mapping[str, Sequence[tuple[float, float, float]]], names: Sequence[str], label: str) -> str:
    """Means with intervals, a place per name; several lines lie side by side. NaN where a line has nothing."""

    def draw(axes: Any) -> None:
        for number, (line, points) in enumerate(lines.items()):
            shift = 0.5 * ((number + 0.5) / len(lines) - 0.5)
            means = [mean for mean, _, _ in points]
            # Wilson's bound of 0 or n right answers misses 0 or 1 by a rounding error, and a bar can't be negative.
            below = [max(0.0, mean - low) for mean, low, _ in points]
            above = [max(0.0, high - mean) for mean, _, high in points]
            places = [place + shift for place in range(len(points))]
            axes.errorbar(places, means, [below, above], fmt="o", capsize=4, label=line)
        axes.set_xticks(range(len(names)), names, rotation=20 if len(names) > 4 else 0)
        axes.set_xlim(-0.6, len(names) - 0.4)
        axes.set(ylabel=label)
        if len(lines) > 1:
            axes.legend()

    return _svg(draw)


def _svg(draw: Callable[[Any], None]) -> str:
    import matplotlib
    from matplotlib.figure import Figure

    # Text stays text, which makes a tenth of the bytes; a name with a dollar sign is no formula.
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": "rlrf", "text.parse_math": False}):
        figure = Figure(figsize=(6, 2.8), layout="constrained")
        axes = figure.subplots()
        draw(axes)
        axes.grid(axis="y", alpha=0.3)
        picture = io.BytesIO()
        figure.savefig(picture, format="svg", metadata={"Date": None})
    return "data:image/svg+xml;base64," + base64.b64encode(picture.getvalue()).decode("ascii")
