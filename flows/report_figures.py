"""The report's figures: matplotlib's SVG, made fit for one page under a strict Content-Security-Policy.

Text stays text, colours become the page's own variables (so that they follow dark mode), ids are unique on the page, and
style attributes, which such a policy forbids, become classes.
"""

import io
import re
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from rlrf.terminal import visible

WIDTH = 5.8
"""Inches, so about 418 units: text is as large as the page's on a column of 540 pixels, and still legible on one of 360."""

MOST_SERIES = 6
_INK, _GRID, _PAPER = "#010101", "#020202", "#030303"
_SERIES = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")
"""Okabe and Ito's colours, which the colour-blind tell apart; each series has a marker or a hatch of its own too."""
_MARKERS, _HATCHES = "osD^vP", ("", "///", "\\\\\\", "xx", "||", "--")
_COLOURS = {_INK: "--ink", _GRID: "--line", _PAPER: "--paper"} | {
    colour: f"--series-{number}" for number, colour in enumerate(_SERIES, 1)
}

Point = tuple[float, float, float]
"""A value with the ends of its interval."""


@dataclass
class Figures:
    """Draws the figures of one page; `css` is what they need of its stylesheet."""

    _classes: dict[str, str] = field(default_factory=dict)
    _count: int = 0

    @property
    def css(self) -> str:
        """Rules for the classes that the figures use."""
        return "\n".join(f".{name} {{ {rule} }}" for rule, name in self._classes.items())

    def lines(self, series: Mapping[str, Mapping[float, Point]], x: str, y: str) -> str:
        """Values over iterations with their intervals, a line per series."""

        def draw(axes: Any) -> None:
            for number, (name, points) in enumerate(series.items()):
                places = [place + 0.06 * (number - (len(series) - 1) / 2) for place in points]
                values, errors = _errors(list(points.values()))
                axes.errorbar(places, values, yerr=errors, label=_short(name), capsize=3, **_look(number))
                for place, value in zip(places, values, strict=True) if len(points) <= 8 else ():
                    axes.annotate(f"{value:.4g}", (place, value), (7, 5), textcoords="offset points", color=_INK)
            axes.margins(x=0.12, y=0.1)
            axes.set_xticks(sorted({place for points in series.values() for place in points}))
            axes.set_xlabel(x)
            axes.set_ylabel(y)
            axes.grid(axis="y", color=_GRID)

        return self._draw(draw, 3.2, legend=len(series) > 1)

    def dots(self, series: Mapping[str, Mapping[str, Point]], x: str) -> str:
        """One row per name, one marker per series, with intervals; a line at 0."""
        names = list(dict.fromkeys(name for points in series.values() for name in points))

        def draw(axes: Any) -> None:
            for number, (said, points) in enumerate(series.items()):
                shift = 0.6 * (number + 0.5) / len(series) - 0.3
                values, errors = _errors(list(points.values()))
                places = [names.index(name) + shift for name in points]
                axes.errorbar(
                    values, places, xerr=errors, label=_short(said), capsize=2, **_look(number) | {"linestyle": "none"}
                )
            axes.axvline(0, color=_INK, linewidth=0.7)
            axes.set_yticks(range(len(names)), [_short(name) for name in names])
            axes.set_ylim(len(names) - 0.4, -0.6)
            axes.set_xlabel(x)
            axes.grid(axis="x", color=_GRID)

        return self._draw(draw, 1.1 + len(names) * (0.2 + 0.13 * len(series)), legend=len(series) > 1)

    def bars(self, series: Mapping[str, Mapping[str, float]], x: str) -> str:
        """One group of bars per name, one bar per series."""
        names = list(dict.fromkeys(name for values in series.values() for name in values))
        height = 0.8 / max(1, len(series))

        def draw(axes: Any) -> None:
            for number, (said, values) in enumerate(series.items()):
                places = [names.index(name) - 0.4 + height * (number + 0.5) for name in values]
                bars = axes.barh(places, list(values.values()), height * 0.92, label=_short(said), **_fill(number))
                if len(names) * len(series) <= 30:
                    axes.bar_label(bars, [f"{value:,.4g}" for value in values.values()], padding=3, color=_INK)
            axes.set_yticks(range(len(names)), [_short(name) for name in names])
            axes.set_ylim(len(names) - 0.4, -0.6)
            axes.margins(x=0.14)
            axes.set_xlabel(x)
            axes.grid(axis="x", color=_GRID)

        return self._draw(draw, 1.1 + len(names) * (0.16 + 0.17 * len(series)), legend=len(series) > 1)

    def histogram(self, counts: Mapping[str, Mapping[float, int]], x: str, y: str) -> str:
        """How often values occur, in at most 24 bins or one bar per value where there are few; a colour per series."""
        import numpy as np

        values = np.array(sorted({value for one in counts.values() for value in one}))
        discrete = len(values) <= 12
        edges = np.linspace(values[0], values[-1], min(24, len(values)) + 1) if not discrete else None

        def draw(axes: Any) -> None:
            for number, (name, found) in enumerate(counts.items()):
                width = 0.8 / len(counts)
                if edges is None:
                    places = [float(np.searchsorted(values, one)) - 0.4 + width * (number + 0.5) for one in found]
                    axes.bar(places, list(found.values()), width * 0.92, label=name, **_fill(number))
                    continue
                heights, _ = np.histogram(list(found), bins=edges, weights=list(found.values()))
                step = edges[1] - edges[0]
                places = list(edges[:-1] + step * (0.1 + width * (number + 0.5)))
                axes.bar(places, heights, width * step, label=name, **_fill(number))
            if edges is None:
                axes.set_xticks(range(len(values)), [f"{value:.4g}" for value in values])
            axes.set_xlabel(x)
            axes.set_ylabel(y)
            axes.grid(axis="y", color=_GRID)

        return self._draw(draw, 2.8, legend=len(counts) > 1)

    def _draw(self, draw: Callable[[Any], None], height: float, *, legend: bool) -> str:
        import matplotlib
        from matplotlib.figure import Figure

        self._count += 1
        with matplotlib.rc_context(_STYLE), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # a glyph that its own font lacks: the browser's fonts show it
            figure = Figure(figsize=(WIDTH, height + 0.3 * legend), layout="constrained")
            axes = figure.subplots()
            axes.set_axisbelow(True)
            draw(axes)
            if legend:
                figure.legend(loc="outside upper left", ncols=3, frameon=False, handlelength=1.4, columnspacing=1.2)
            file = io.StringIO()
            figure.savefig(file, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
        return self._fit(file.getvalue(), f"f{self._count}-")

    def _fit(self, svg: str, prefix: str) -> str:
        """An SVG document as an element of the page."""
        svg = svg[svg.index("<svg") :]
        svg = re.sub(r"<metadata>.*?</metadata>|<style.*?</style>|<!--.*?-->", "", svg, flags=re.DOTALL)
        svg = re.sub(r"\b(id=\"|href=\"#|url\(#)", lambda found: found[0] + prefix, svg)
        svg = re.sub(r'style="([^"]*)"', lambda found: f'class="{self._class_of(found[1])}"', svg)
        svg = re.sub(r'(fill|stroke)="(#\w{6})"', lambda found: f'{found[1]}="{_themed(found[2])}"', svg)  # of hatches
        svg = re.sub(r'<svg ([^>]*?)width="[^"]*"', r"<svg \1", svg, count=1)
        svg = re.sub(r'<svg ([^>]*?)height="[^"]*"', r'<svg role="group" focusable="false" \1', svg, count=1)
        return re.sub(r"\s*\n\s*", "\n", svg)

    def _class_of(self, rule: str) -> str:
        rule = _themed(rule)
        rule = re.sub(r"font: ([\d.]+px)[^;]*", r"font-size: \1", rule)
        rule = re.sub(r"font-family:[^;]*;?", "", rule).strip()
        return self._classes.setdefault(rule, f"m{len(self._classes)}")


_STYLE: Any = {
    "svg.fonttype": "none",
    "svg.hashsalt": "rlrf",
    "text.parse_math": False,
    "font.size": 10.5,
    "text.color": _INK,
    "axes.labelcolor": _INK,
    "axes.edgecolor": _GRID,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "xtick.color": _INK,
    "ytick.color": _INK,
    "xtick.major.size": 0,
    "ytick.major.size": 0,
    "grid.linewidth": 0.7,
    "hatch.linewidth": 0.6,
}


def _themed(text: str) -> str:
    """A rule or a colour with the page's variables for the colours that were drawn with."""
    for colour, name in _COLOURS.items():
        text = text.replace(colour, f"var({name})")
    return text


def newest(series: Mapping[str, Any]) -> dict[str, Any]:
    """As many series as a figure can hold: the first, and the newest."""
    names = list(series)
    kept = names if len(names) <= MOST_SERIES else [names[0], *names[1 - MOST_SERIES :]]
    return {name: series[name] for name in kept}


def _errors(points: Sequence[Point]) -> tuple[list[float], list[list[float]]]:
    # A bound can miss its value by a rounding error, and a bar can't be negative.
    below = [max(0.0, value - low) for value, low, _ in points]
    above = [max(0.0, high - value) for value, _, high in points]
    return [value for value, _, _ in points], [below, above]


def _look(number: int) -> dict[str, Any]:
    colour, marker = _SERIES[number % len(_SERIES)], _MARKERS[number % len(_MARKERS)]
    return {"color": colour, "marker": marker, "markersize": 5.5, "linewidth": 1.4, "elinewidth": 1.2}


def _fill(number: int) -> dict[str, Any]:
    return {
        "color": _SERIES[number % len(_SERIES)],
        "hatch": _HATCHES[number % len(_HATCHES)],
        "edgecolor": _PAPER,
        "linewidth": 0,
    }


def _short(name: str) -> str:
    name = visible(" ".join(name.split()))
    return name if len(name) <= 26 else name[:25] + "…"
