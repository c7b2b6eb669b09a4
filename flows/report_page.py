"""The report as one self-contained HTML page: no network, nothing that a text of a model could execute.

The frame is a Jinja2 template with escaping on; texts of prompts, responses and judges never pass through it. They travel as
gzipped JSON Lines in base64, in which nothing can end the element, and enter the page through `textContent`. The page's
policy allows the one script and the one stylesheet, by their hashes, and nothing else.
"""

import base64
import hashlib
import json
import os
import zlib
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

from flows import report_sections, report_work
from flows.report_figures import Figures
from flows.report_parts import Section, cell, percent, plural
from flows.report_words import verdict
from rlrf.errors import StoreError
from rlrf.terminal import visible
from storage import audits, health_report, reading, reflecting, reporting
from storage.schema import VERSION
from storage.store import Store

SAMPLES = 10_000
"""Responses that are shown at most, unless told otherwise."""

MOST_BYTES = 6_900_000
"""Of compressed samples: base64 makes 9.2 MB of them, so that the page stays under 10."""

_FOLDER = Path(__file__).parent / "report"


class Page(NamedTuple):
    """A written page: where, its bytes, and how many prompts and responses it shows of how many there are."""

    path: Path
    bytes: int
    prompts: int
    responses: int
    of_prompts: int
    of_responses: int


def write_page(store: Store, run_id: str | None = None, to: Path | None = None, most: int = SAMPLES) -> Page:
    """Write the page about a run, the newest when left out; `run_id` may be the start of an id.

    `most`: responses shown at most; prompts are drawn by a seeded hash where there are more, and the page says so. It goes to
    `to`, else to report.html beside the store. Raises StoreError where there is no such run or the file can't be written.
    """
    path = to or store.path.with_name("report.html")
    with (
        store.kept_open()
    ):  # one view of the store: rows that another process adds meanwhile are in all of it or in none
        run = reporting.find_run(store, run_id)
        figures = Figures()
        head, sections = _contents(store, run, figures)
        sizes = reporting.sizes(store, run["run_id"])
        data, prompts, responses = _packed(reporting.samples(store, run["run_id"], most) if most else ())
    text = _rendered(head | _sampling(prompts, responses, *sizes), sections, figures, data)
    coded = text.encode("utf-8")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_name(f".{path.name}.{os.getpid()}.partial")  # an open tab never reloads half a page
        partial.write_bytes(coded)
        partial.replace(path)
    except OSError as error:
        raise StoreError(f"report {str(path)!r}: {error.strerror}; choose another place with --to") from error
    return Page(path, len(coded), prompts, responses, *sizes)


def _contents(store: Store, run: dict[str, Any], figures: Figures) -> tuple[dict[str, Any], list[Section]]:
    run_id = run["run_id"]
    rows, decided = reading.results(store, run_id), reporting.decisions(store)
    funnel, stages = reporting.funnel(store, run_id), reporting.stages(store, run_id)
    policies = reporting.policies(store, run_id)
    own = {row["name"] for row in policies}
    keys = reporting.judge_keys(store, run_id)
    health = [health_report.report(store, key) for key in keys]
    found = {name: [row for one in health for row in one[name]] for name in health[0]} if health else {}
    sections = [
        report_sections.results(figures, rows, decided),
        report_sections.aspects(figures, rows, reporting.aspects(store, run_id)),
        report_sections.refinements(figures, reflecting.reflection(store, run_id)),
        report_sections.distributions(figures, reporting.scores(store, run_id), reporting.lengths(store, run_id)),
        report_work.judges(found, stages),
        report_work.funnel(figures, funnel, reporting.dropped_at_ingestion(store)),
        report_work.audits(_audits(store, run_id, funnel)),
        report_work.cost(figures, stages),
        report_work.lineage(run, policies, reporting.engines(store, run_id), stages, str(store.path), VERSION),
    ]
    ours = [row for row in decided if row["run_id"] == run_id or row["policy"] in own]
    head = {
        "name": visible(run["name"]),
        "run": run_id,
        "verdict": _safe(verdict(run, rows, ours)),
        "notes": _notes(funnel),
        "facts": _facts(run, rows, funnel, stages),
        "footer": f"Run {run_id}, written {datetime.now(UTC):%Y-%m-%d %H:%M} UTC by rlrf from {visible(str(store.path))}. "
        "Each figure and table names the view of the store that it was made from.",
    }
    return head, [one for one in sections if not one.empty]


def _audits(store: Store, run_id: str, funnel: list[dict[str, Any]]) -> dict[str, Any]:
    """Audits by iteration, that of an iteration that wasn't finished included."""
    found = audits.audits_of(store, run_id)
    for row in funnel:
        name = f"iteration {row['iteration']}"
        if not row["finished"] and row["pair_set"]:
            found[f"{name} (unfinished)"] = audits.audit_of(store, row["pair_set"])
    return {name: measures for name, measures in found.items() if measures}


def _safe(said: Any) -> Any:
    return said._replace(head=visible(said.head), text=visible(said.text))


def _notes(funnel: list[dict[str, Any]]) -> list[str]:
    unfinished = [row["iteration"] for row in funnel if not row["finished"]]
    if not unfinished:
        return []
    return [
        f"Iteration {unfinished[0]} was not finished: what is shown of it is what was there when this page was written, made "
        "by this run or by an earlier one of the same configuration."
    ]


def _facts(
    run: dict[str, Any], rows: list[dict[str, Any]], funnel: list[dict[str, Any]], stages: list[dict[str, Any]]
) -> list[tuple[str, str]]:
    trained = [row for row in rows if row["arm"] == "policy"]
    best = max(trained, key=lambda row: row["accuracy"], default=None)
    spent = {row["stage_key"]: row for row in stages if row["done"] and not row["reused"]}.values()
    facts = [
        ("status", run["status"]),
        ("started (UTC)", f"{run['started_at']:%Y-%m-%d %H:%M}"),
        (
            "iterations",
            f"{len(trained):,} finished" + (f" of {len(funnel):,} begun" if len(funnel) > len(trained) else ""),
        ),
        ("best accuracy", f"{percent(best['accuracy'])} by {best['policy']}" if best else "none"),
        ("responses", cell(sum(row["responses"] + row["refinements"] for row in funnel))),
        ("pairs", cell(sum(row["pairs"] for row in funnel))),
        ("tokens, this run", cell(sum(row["tokens"] for row in spent))),
        ("stage time, this run", f"{sum(row['seconds'] for row in spent):,.0f} s"),
    ]
    return [(name, visible(value)) for name, value in facts]


def _packed(samples: Iterable[dict[str, Any]]) -> tuple[str, int, int]:
    """Samples as base64 of gzipped JSON Lines, as many as fit; with the numbers of prompts and responses."""
    packer = zlib.compressobj(9, wbits=31)
    parts: list[bytes] = []
    size = prompts = responses = pending = 0
    for row in samples:
        line = json.dumps(_short(row), ensure_ascii=False, separators=(",", ":")).encode("utf-8", "backslashreplace")
        pending += len(line)
        if size + pending > MOST_BYTES:  # what is pending may not shrink: look before going on
            parts.append(packer.flush(zlib.Z_SYNC_FLUSH))
            size, pending = sum(map(len, parts)), len(line)
            if prompts and size + pending > MOST_BYTES:
                break
        parts.append(packer.compress(line + b"\n"))
        prompts, responses = prompts + 1, responses + len(row["answers"])
    parts.append(packer.flush())
    return (base64.b64encode(b"".join(parts)).decode("ascii") if prompts else ""), prompts, responses


def _short(row: dict[str, Any]) -> dict[str, Any]:
    """One prompt as the page's script reads it."""
    return {
        "iteration": row["iteration"],
        "id": row["prompt_id"],
        "source": row["source"],
        "messages": [[str(one.get("role", "")), _as_text(one.get("content"))] for one in row["messages"]],
        "reference": row["reference"],
        "pairs": row["pairs"] or [],
        "unpaired": row["unpaired"],
        "responses": [
            {
                name: one[name]
                for name in ("id", "parent", "policy", "text", "tokens", "finish", "judged", "score", "unrated")
            }
            | {name: int(one[name]) for name in ("chosen", "rejected")}
            | {"ratings": [[it["aspect"], it["rating"], it["critique"]] for it in one["ratings"] or ()]}
            for one in row["answers"]
        ],
    }


def _as_text(content: Any) -> str:
    return content if isinstance(content, str) else json.dumps(content, ensure_ascii=False)


def _sampling(prompts: int, responses: int, of_prompts: int, of_responses: int) -> dict[str, Any]:
    all_of_them = f"{plural(of_prompts, 'prompt')} with {plural(of_responses, 'response')}, refinements included"
    held_out = "Held-out prompts and answers are never among them."
    if not of_prompts:
        said = "This run has no responses to show."
    elif (prompts, responses) == (of_prompts, of_responses):
        said = f"All {all_of_them}. {held_out}"
    else:
        said = (
            f"{prompts:,} of {of_prompts:,} prompts and {responses:,} of {of_responses:,} responses are here, drawn by a seeded "
            f"hash of the prompt, the same each time; `--samples N` changes how many, up to what fits in 10 MB. The figures "
            f"above count all {all_of_them}. {held_out}"
        )
    return {"sampling": said, "shown": prompts}


def _rendered(head: dict[str, Any], sections: list[Section], figures: Figures, data: str) -> str:
    style = (_FOLDER / "page.css").read_text(encoding="utf-8") + figures.css
    script = (_FOLDER / "page.js").read_text(encoding="utf-8")
    allowed = f"default-src 'none'; img-src data:; style-src {_hash(style)}; script-src {_hash(script)}"
    template = Environment(autoescape=True, undefined=StrictUndefined).from_string(
        (_FOLDER / "page.html").read_text(encoding="utf-8")
    )
    trusted = {"style": Markup(style), "script": Markup(script), "data": Markup(data)}  # noqa: S704, our own files and base64
    return template.render(
        policy=f"{allowed}; base-uri 'none'; form-action 'none'", sections=sections, **head, **trusted
    )


def _hash(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode('utf-8')).digest()).decode('ascii')}'"
