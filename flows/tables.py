"""What the terminal shows: tables of results and stores, and one prompt as a tree. Model text is never markup."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.box import SIMPLE
from rich.console import Group
from rich.table import Table
from rich.text import Text
from rich.tree import Tree

from rlrf import auditing
from rlrf.auditing import Measure
from rlrf.terminal import visible
from storage import ledger
from storage.sizes import Table as TableSize
from storage.store import Store

_LEVELS = {-1: "red", 0: "yellow", 1: "green"}


def results_table(rows: Iterable[dict[str, Any]]) -> Table:
    """One column per arm and iteration: held-out accuracy and aspect means with intervals, pairs, shares, tokens, time."""
    rows = list(rows)
    table = Table(title="Held-out results (95 % intervals)", title_justify="left", box=SIMPLE)
    table.add_column("", no_wrap=True)
    for row in rows:
        table.add_column(_text(arm_name(row)), justify="right", no_wrap=True)
    for name, cell in result_cells(rows).items():
        table.add_row(*map(_text, [name, *cell]))
    return table


def result_cells(rows: list[dict[str, Any]]) -> dict[str, list[str]]:
    """The results as text: from the name of a measure to its value in every row."""
    aspects = [aspect["aspect"] for aspect in rows[0]["aspects"]] if rows else []
    means = [{aspect["aspect"]: _mean(aspect) for aspect in row["aspects"]} for row in rows]
    return {
        "accuracy": [f"{row['accuracy']:.1%}" for row in rows],
        "  interval": [f"{100 * row['low']:.1f} to {100 * row['high']:.1f}" for row in rows],
        "  questions": [f"{row['questions']:,}" for row in rows],
        **{name: [mean.get(name, "") for mean in means] for name in aspects},
        "answer tokens": [f"{row['tokens_mean']:.1f}" for row in rows],
        "pairs": [_count(row["pairs"]) for row in rows],
        "prompts dropped": [_count(row["prompts_dropped"]) for row in rows],
        "chosen refined": [_share(row["refinement_share"]) for row in rows],
        "unrated": [_share(row["unrated_share"]) for row in rows],
        "tokens": [_count(row["tokens"] or None) for row in rows],
        "seconds": [f"{row['seconds']:.0f}" for row in rows],
        "gate": [f"{row['verdict']} {100 * row['gain']:+.1f}" if row["verdict"] else "" for row in rows],
    }


def _mean(aspect: dict[str, Any]) -> str:
    return f"{aspect['mean']:+.2f} ± {(aspect['high'] - aspect['low']) / 2:.2f}"


def reflection_table(rows: list[dict[str, Any]]) -> Table:
    """One column per iteration: refinements against their own parents, and against as many plain responses."""
    table = Table(title="What reflection was worth (95 % intervals over prompts)", title_justify="left", box=SIMPLE)
    table.add_column("", no_wrap=True)
    for row in rows:
        table.add_column(_text(f"iteration {row['iteration']}"), justify="right")
    for name, cells in reflection_cells(rows).items():
        table.add_row(*map(_text, [name, *cells]))
    return table


def reflection_cells(rows: list[dict[str, Any]]) -> dict[str, list[str]]:
    """What reflection was worth as text: from the name of a measure to its value in every iteration."""
    lifts = [{lift["aspect"]: lift for lift in row["lifts"]} for row in rows]
    names = list(dict.fromkeys(name for one in lifts for name in one))
    cells = {"refinements": [f"{row['refinements']:,} of {row['prompts']:,} prompts" for row in rows]}
    cells["  unrated, counted nowhere else"] = [_count(row["unrated"]) for row in rows]
    for name in names:
        there = [one.get(name) for one in lifts]
        cells[f"{name}: win / tie / loss"] = [_outcomes(lift) for lift in there]
        cells["  lift" if len(names) == 1 else f"  {name} lift"] = [_mean(lift) if lift else "" for lift in there]
    cells["broke a fully successful parent"] = [_of(row["positives_broken"], row["parents_positive"]) for row in rows]
    cells["broke an aspect at the top"] = [_of(row["tops_broken"], row["parents_top"]) for row in rows]
    plain = [row["plain"] for row in rows]
    if any(plain):
        cells["against plain responses: prompts"] = [_count(one["prompts"]) if one else "" for one in plain]
        cells["  left out, nothing rated on one side"] = [
            _count(one["prompts_left_out"]) if one else "" for one in plain
        ]
        cells["  plain responses unrated"] = [_count(one["plain_unrated"]) if one else "" for one in plain]
        for name, said in (("score", "mean score"), ("positive", "share positive"), ("best", "best score")):
            cells[f"  {said}"] = [_mean(one[name]) if one and one["prompts"] else "" for one in plain]
    return cells


def _outcomes(lift: dict[str, Any] | None) -> str:
    return f"{lift['win']:,} / {lift['tie']:,} / {lift['loss']:,}" if lift else ""


def _of(part: int, whole: int) -> str:
    return f"{part:,} of {whole:,} ({part / whole:.1%})" if whole else ""


def arm_name(row: dict[str, Any]) -> str:
    """How a row of results is called: base, iteration 1, control."""
    return f"iteration {row['iteration']}" if row["arm"] == "policy" else str(row["arm"])


def audit_table(audits: Mapping[str, Sequence[Measure]]) -> Table:
    """What audits of pairs measured: a row per measure, a column per pair set (an iteration, a rule), and the limit."""
    table = Table(title="Audit of the pairs (95 % intervals)", title_justify="left", box=SIMPLE)
    table.add_column("", no_wrap=True)
    for name in (*audits, "limit"):
        table.add_column(name, justify="right")
    for name, cells in audit_cells(audits).items():
        table.add_row(*map(_text, [name, *cells]))
    return table


def audit_cells(audits: Mapping[str, Sequence[Measure]]) -> dict[str, list[str]]:
    """Audits as text: from the name of a measure to its value and interval in every pair set, and its limit."""
    found = [{one.name: one for one in measures} for measures in audits.values()]
    names = list(dict.fromkeys(name for measures in found for name in measures))
    return {
        name: [
            *(_measured(measures[name]) if name in measures else "" for measures in found),
            next(auditing.limit(measures[name]) for measures in found if name in measures),
        ]
        for name in names
    }


def _measured(one: Measure) -> str:
    within = auditing.interval(one)
    return auditing.number(one.name, one.value) + (f" ({within})" if within else "")


def lengths_table(rows: list[dict[str, Any]]) -> Table:
    """Per policy: responses and how long they are."""
    table = Table(title="Responses per policy (words with a 95 % interval)", title_justify="left", box=SIMPLE)
    for name in ("policy", "responses", "tokens", "words", "characters"):
        table.add_column(name, justify="left" if name == "policy" else "right", no_wrap=True)
    for row in rows:
        tokens = "" if row["tokens"] is None else f"{row['tokens']:,.1f}"
        words = f"{row['words']:,.1f} ± {row['words_half']:.1f}"
        table.add_row(*map(_text, [row["policy"], f"{row['responses']:,}", tokens, words, f"{row['chars']:,.0f}"]))
    return table


def means_table(judge: str, rows: list[dict[str, Any]]) -> Table:
    """Per policy: mean rating of every aspect on the judge's own scale with its interval, and how many are rated."""
    aspects = list(dict.fromkeys(row["aspect"] for row in rows if row["aspect"]))
    table = Table(title=f"Mean ratings by {visible(judge)} (95 % intervals)", title_justify="left", box=SIMPLE)
    for name in ("policy", *aspects, "rated", "unrated"):
        table.add_column(_text(name), justify="left" if name == "policy" else "right", no_wrap=name == "policy")
    for policy in dict.fromkeys(row["policy"] for row in rows):
        own = [row for row in rows if row["policy"] == policy]
        found = {row["aspect"]: f"{row['mean']:.2f} ± {row['half']:.2f}" for row in own if row["mean"] is not None}
        rated, unrated = max(row["rated"] for row in own), max(row["unrated"] for row in own)
        table.add_row(*map(_text, [policy, *(found.get(one, "") for one in aspects), f"{rated:,}", f"{unrated:,}"]))
    return table


def sizes_table(tables: Iterable[TableSize], home: Mapping[str, int], path: Path) -> Group:
    """Rows and bytes per table of a store, the empty ones left out, and what lies beside it."""
    table = Table(title="Store", title_justify="left")
    for name in ("table", "rows", "MB"):
        table.add_column(name, justify="left" if name == "table" else "right")
    for one in tables:
        if one.rows:
            table.add_row(one.name, f"{one.rows:,}", f"{one.bytes / 1e6:,.1f}")
    beside = ", ".join(f"{kind} {size / 1e6:,.1f} MB" for kind, size in home.items() if size)
    return Group(table, _text(f"{path}; {beside}"))


def runs_table(runs: list[dict[str, Any]]) -> Table:
    """The latest runs."""
    table = Table(title="Runs", title_justify="left")
    for name in ("run", "name", "status", "started", "reason"):
        table.add_column(name)
    for run in runs:
        started = f"{run['started_at']:%Y-%m-%d %H:%M}"
        table.add_row(
            *map(_text, [run["run_id"][:8], run["name"], run["status"], started, (run["reason"] or "")[:160]])
        )
    return table


def champion_line(store: Store) -> Text:
    """Who is in office."""
    champion = ledger.champion(store)
    if champion is None:
        return _text("Champion: none yet")
    return _text(f"Champion: {champion.name} ({champion.policy_id}) in {champion.folder}")


def prompt_tree(prompt: dict[str, Any], responses: list[dict[str, Any]]) -> Tree:
    """A prompt, its responses, and below each its ratings, critiques and refinements."""
    tree = Tree(_text(f"prompt {prompt['prompt_id']} from {prompt['source']}", style="bold"))
    for message in prompt["messages"]:
        tree.add(_text(f"{message['role']}: {message['content']}"))
    if prompt["reference"]:
        tree.add(_text(f"reference: {prompt['reference']}", style="dim"))
    branches: dict[str, Tree] = {}
    for row in responses:
        above = branches.get(row["parent_id"] or "", tree)
        branches[row["response_id"]] = _add_response(above, row)
    return tree


def _add_response(above: Tree, row: dict[str, Any]) -> Tree:
    kind = "refinement" if row["parent_id"] else "response"
    score = "unrated" if row["score"] is None else f"score {row['score']:+.2f}"
    marks = [score, *(["chosen"] if row["chosen"] else []), *(["rejected"] if row["rejected"] else [])]
    marks += ["cut off"] if row["finish_reason"] == "length" else []
    head = f"{kind} {row['response_id'][:8]} by {row['policy']}: {', '.join(marks)}"
    branch = above.add(_text(head, style="bold"))
    branch.add(_text(row["text"]))
    if row["reason"]:
        branch.add(_text(f"unrated because {row['reason']}", style="yellow"))
    for rating in row["ratings"] or []:
        level = "?" if rating["rating"] is None else f"{rating['rating']:+g}"
        branch.add(
            _text(f"{rating['aspect']} {level}  {rating['critique']}", style=_LEVELS.get(rating["rating"], "dim"))
        )
    return branch


def _count(value: int | None) -> str:
    return "" if value is None else f"{value:,}"


def _share(value: float | None) -> str:
    return "" if value is None else f"{value:.1%}"


def _text(text: str, style: str = "") -> Text:
    """Text without markup, and without what steers a terminal."""
    return Text(visible(text), style=style)
