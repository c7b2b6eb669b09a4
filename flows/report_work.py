"""The report's sections about the work: judges, the funnel, audits, cost, configuration and lineage."""

import json
from collections.abc import Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from flows.report_figures import Figures, newest
from flows.report_parts import Figure, Section, Texts, percent, table
from flows.tables import audit_cells
from rlrf.auditing import Measure

Rows = list[dict[str, Any]]

_STEPS = ("prompts", "responses", "refinements", "judged", "rated", "in_pairs", "prompts_paired", "pairs")
_PACKAGES = ("rlrf", "prefect", "duckdb", "torch", "transformers", "trl", "vllm")
_ORDER = ("sample_prompts", "explore", "judge", "refine", "compare", "judge again", "judge again again", "select_pairs")
_NAMES = {"judge again": "judge of refine", "judge again again": "judge of compare"}


def funnel(figures: Figures, rows: Rows, dropped: Rows) -> Section:
    """Prompts, responses, ratings, pairs: how many, and what fell out where and why."""
    section = Section("funnel", "From prompts to pairs")
    series = {_called(row): {_words(name): float(row[name]) for name in _STEPS} for row in rows}
    if series:
        names = [*_STEPS, "external", "truncated"]
        cells = [[_words(name), *(row[name] for row in rows)] for name in names]
        left = "" if len(newest(series)) == len(series) else " Older iterations are in the table alone."
        section.figures.append(
            Figure(
                figures.bars(newest(series), "rows"),
                f"What each step had. Judged and rated count responses and refinements.{left}",
                "report_funnel",
                table("Counts per iteration", ["", *series], cells),
            )
        )
        losses = [[_called(row), one["step"], one["reason"], one["rows"]] for row in rows for one in row["losses"]]
        if losses:
            columns = ["iteration", "what fell out", "why", "rows"]
            section.tables.append(table("What fell out, and why", columns, losses, "report_losses"))
    else:
        section.text = "No prompt was drawn in this run."
    if dropped:
        cells = [[row["source"], row["reason"], row["rows"]] for row in dropped]
        view = "tables dropped_prompts and dropped_responses, of the whole store"
        section.tables.append(table("Dropped at ingestion", ["source", "why", "rows"], cells, view))
    return section


def judges(found: Mapping[str, Rows], stages: Rows) -> Section:
    """How far the judges can be trusted, over the sets of this run."""
    section = Section("judges", "Can the judges be trusted?")
    if not found:
        section.text = "No judge has rated anything in this run."
        return section
    made = [row for row in stages if row["stage"] in ("explore", "refine", "compare")]
    sets = {row["stage_key"]: f"{row['iteration']}: {row['stage']}" for row in made}
    names = {row["judge_key"]: f"{row['type']} {row['rubric'] or ''} {row['judge_key'][:8]}" for row in found["judges"]}
    health = [
        [
            names[row["judge_key"]],
            sets[row["set_key"]],
            row["judged"],
            percent(row["unrated_share"]),
            percent(row["tie_share"]),
            percent(row["positive_share"]),
            row["attempts_mean"],
            row["tokens_mean"],
        ]
        for row in found["sets"]
        if row["set_key"] in sets
    ]
    columns = ["judge", "set", "judged", "unrated", "ties", "at the top", "attempts", "tokens"]
    if health:
        section.tables.append(table("Judgements", columns, sorted(health, key=lambda row: row[1]), "judge_health"))
    parts = {
        "variants": ("Agreement with itself", ["kind", "aspect", "n", "share", "alpha"], "storage.health.agreement"),
        "panels": ("Agreement within the panel", ["aspect", "n", "alpha"], "storage.health.panel_agreement"),
        "checks": (
            "Against labels",
            ["aspect", "n", "unrated", "agreement", "low", "high", "alpha"],
            "table judge_checks",
        ),
        "critiques": (
            "What critiques were worth: change of an aspect's level from parent to refinement",
            ["aspect", "parent_level", "refinements", "mean_change", "standard_error"],
            "critique_worth, over the whole store",
        ),
    }
    for name, (caption, wanted, view) in parts.items():
        rows = [[names.get(row["judge_key"], ""), *(row[one] for one in wanted)] for row in found[name]]
        if rows:
            section.tables.append(table(caption, ["judge", *map(_words, wanted)], rows, view))
    drift = [
        [names.get(row["judge_key"], row["judge_key"][:8]), row["other_key"][:8], *_drifted(row)]
        for row in found["drift"]
    ]
    if drift:
        columns = ["judge", "other judge", "aspect", "both rated", "equal", "mean difference"]
        section.tables.append(table("Against other judges", columns, drift, "judge_drift"))
    return section


def _drifted(row: dict[str, Any]) -> list[Any]:
    return [row["aspect"], row["n"], percent(row["equal_share"]), row["mean_difference"]]


def audits(found: Mapping[str, Sequence[Measure]]) -> Section:
    """What the pairs were measured to be before each training."""
    section = Section("audits", "Audit of the pairs")
    if not any(found.values()):
        section.text = "No pair set was audited."
        return section
    last = {one.name: one.said for one in [*found.values()][-1]}
    cells = [[_words(name), *values, last.get(name)] for name, values in audit_cells(found).items()]
    columns = ["measure", *found, "limit", f"in {[*found][-1]}"]
    section.tables.append(table("Measures with 95 % intervals", columns, cells, "table pair_audits"))
    return section


def cost(figures: Figures, stages: Rows) -> Section:
    """Tokens and seconds per stage."""
    section = Section("cost", "Tokens and time")
    done = [row for row in stages if row["done"] and row["arm"] != "control"]
    rows = sorted(stages, key=lambda row: (row["arm"] == "control", row["iteration"], _place(row["stage"])))
    if not rows:
        section.text = "No stage was begun."
        return section
    columns = ["iteration", "stage", "rows", "kept", "new", "failed", "tokens", "seconds", "tokens/s", "state", "key"]
    cells = [
        [
            _arm(row),
            _stage(row),
            row["rows"],
            row["kept"],
            row["produced"],
            row["failed"],
            row["tokens"],
            row["seconds"],
            row["tokens"] / row["seconds"] if row["tokens"] and row["seconds"] else None,
            _state(row),
            row["stage_key"][:8],
        ]
        for row in rows
    ]
    told = table("Stages", columns, cells)
    for what in ("seconds", "tokens"):
        series: dict[str, dict[str, float]] = {}
        for row in sorted(done, key=lambda row: (row["iteration"], _place(row["stage"]))):
            stage, one = _stage(row), series.setdefault(_arm(row), {})
            if row[what]:
                one[stage] = one.get(stage, 0.0) + row[what]
        series = {name: one for name, one in series.items() if one}
        if series:
            caption = (
                f"{what.capitalize()} per stage, where each was done; reused stages count with what they once took."
            )
            section.figures.append(Figure(figures.bars(newest(series), what), caption, "report_stages", told))
    if not section.figures:
        section.tables.append(told)
    return section


def lineage(run: dict[str, Any], policies: Rows, engines: Rows, stages: Rows, store: str, schema: int) -> Section:
    """Weights, keys, versions, configuration."""
    section = Section("lineage", "Configuration and lineage")
    cells = [
        [
            row["name"],
            row["kind"],
            row["policy_id"],
            row["parent"],
            row["rows"],
            row["steps"],
            row["seconds"],
            row["folder"],
        ]
        for row in policies
    ]
    columns = ["policy", "kind", "weights", "trained from", "rows", "steps", "seconds", "folder"]
    if cells:
        section.tables.append(table("Policies", columns, cells, "tables policies and trainings"))
    if engines:
        cells = [[row["engine"][:8], row["responses"], row["settings"]] for row in engines]
        section.tables.append(table("Engines", ["key", "responses", "settings"], cells, "table keys"))
    versions = [[name, _version(name)] for name in _PACKAGES if _version(name)]
    versions += [["store schema", str(schema)], ["store", store], ["host of the run", run["host"]]]
    section.tables.append(table("Versions where this page was written", ["what", "value"], versions, "the environment"))
    keys = "\n".join(f"{_arm(row)}  {_stage(row)}  {row['stage_key']}" for row in stages)
    section.texts.append(Texts("Stage keys (report_stages; `keys` has their ingredients)", keys or "none"))
    section.texts.append(
        Texts("Configuration (table runs)", json.dumps(json.loads(run["config"]), indent=2, ensure_ascii=False))
    )
    return section


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return ""


def _called(row: dict[str, Any]) -> str:
    return f"iteration {row['iteration']}{'' if row['finished'] else ' (unfinished)'}"


def _arm(row: dict[str, Any]) -> str:
    return f"iteration {row['iteration']}" if row["arm"] == "policy" else str(row["arm"])


def _stage(row: dict[str, Any]) -> str:
    return _NAMES.get(row["stage"], str(row["stage"]))


def _state(row: dict[str, Any]) -> str:
    return "not finished" if not row["done"] else "reused" if row["reused"] else "done"


def _place(stage: str) -> tuple[int, str]:
    return (_ORDER.index(stage) if stage in _ORDER else len(_ORDER), stage)


def _words(name: str) -> str:
    return name.replace("_", " ")
