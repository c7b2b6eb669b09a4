"""At the end of a stage, its story as a Markdown artifact: what went in, came out, was kept, failed, took; a plot where it helps.

One key per kind of stage, so that Prefect's UI shows how it went each time. Cached stages tell nothing new and get none: their
task run says what was kept. Nor does a run on Prefect's temporary server get any, whose records end with it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from prefect.artifacts import create_markdown_artifact
from prefect.context import FlowRunContext, TaskRunContext

from rlrf import auditing, judging, stages
from rlrf.handles import Corpus, Evaluation, Handle, Policy, Run
from rlrf.markdown import inline, picture, table
from rlrf.stages import Key
from storage import audits, promising, stage_reports
from storage.store import Store
from tasks import plots
from tasks.outbox import is_watched, outbox
from tasks.titles import artifact_key, subject

CURVES = ("loss", "rewards/accuracies", "rewards/margins")


@dataclass(frozen=True)
class Told:
    """A stage that has ended: its name, key and arguments."""

    stage: str
    key: Key
    arguments: Mapping[str, Any]

    @property
    def run(self) -> Run:
        """The run that did it."""
        found: Run = self.arguments["run"]
        return found

    @property
    def store(self) -> Store:
        """Where its rows are; the learning side."""
        return Store(self.run.config.store_path)

    @property
    def judge_key(self) -> str:
        """The judge whose scores decide."""
        return judging.key_of(self.run.config.judge).key


def publish_stage(stage: str, key: Key, arguments: Mapping[str, Any]) -> None:
    """Have the artifact of a stage that has just ended made and sent, without waiting for it."""
    if TaskRunContext.get() is None or not is_watched():
        return
    told = Told(stage, key, arguments)
    outbox.put(("stage", key.key), lambda: _send(told))


def _send(told: Told) -> None:
    receipt = stage_reports.receipt_row(told.store, told.key.key)
    if receipt is None or not receipt["rows"]:
        return  # nothing was asked for, as in `compare` unless it is
    flow = FlowRunContext.get()
    place = flow.flow_run.name if flow and flow.flow_run else told.run.config.name
    about = subject(told.stage, told.arguments)
    if told.stage == "evaluate":
        kind = stage_reports.policy_kind(told.store, told.arguments["policy"].policy_id)
        about = {"control": "evaluate of control", "trained": "evaluate"}.get(kind, "evaluate of base")
    create_markdown_artifact(
        key=artifact_key(about), markdown=stage_markdown(told, f"{about}: {place}", receipt), description=place
    )


def stage_markdown(told: Told, head: str, receipt: Mapping[str, Any]) -> str:
    """The artifact's text, with what the stage counted. Raises StoreError as reading does."""
    rows = [("went in", went_in(told.arguments)), *_counted(receipt)]
    parts = [f"### {inline(head)}", table(("What happened", ""), rows)]
    more = _PARTS.get(told.stage)
    parts += more(told) if more else []
    return "\n\n".join(parts)


def went_in(arguments: Mapping[str, Any]) -> str:
    """What a stage was given, in words."""
    return ", ".join(said for one in arguments.values() for said in _given(one)) or "the configuration's files"


def _given(one: Any) -> Iterable[str]:
    if isinstance(one, tuple):
        for part in one:
            yield from _given(part)
    elif isinstance(one, Handle):
        yield f"{one.rows:,} rows of {inline(one.stage)}"
    elif isinstance(one, Policy):
        yield inline(one.name)
    elif isinstance(one, Evaluation):
        yield f"{inline(one.policy.name)} with {one.accuracy:.1%}"
    elif isinstance(one, Corpus):
        yield f"{one.prompts.rows:,} prompts, {one.held_out.rows:,} held out, {one.external.rows:,} external responses"


def _counted(receipt: Mapping[str, Any]) -> list[tuple[str, str]]:
    seconds = receipt["seconds"]
    rows = [("came out", f"{receipt['rows']:,} rows")]
    rows += [("kept from before", f"{receipt['kept']:,}"), ("made in this run", f"{receipt['produced']:,}")]
    rows += [("failed", f"{receipt['failed']:,}")] if receipt["failed"] else []
    if receipt["tokens"]:
        rows += [("tokens", f"{receipt['tokens']:,}, {receipt['tokens'] / max(seconds, 1e-9):,.0f} a second")]
    return [*rows, ("seconds", f"{seconds:,.1f}")]


def _reasons(title: str, rows: Iterable[Mapping[str, Any]]) -> list[str]:
    """A table of reasons and counts; nothing where there are none."""
    cells = [
        (
            inline(str(row["reason"])) + (f": {inline(row['example'][:300])}" if row.get("example") else ""),
            f"{row['n']:,}",
        )
        for row in rows
    ]
    return [table((title, ""), cells)] if cells else []


def _ingest(told: Told) -> list[str]:
    return _reasons("Rows of files that could not be used", stage_reports.dropped(told.store))


def _generated(told: Told) -> list[str]:
    """Requests without a response."""
    keys = [one.key for one in told.key.whole() if one.kind in {"response", "refinement"}]
    inputs = [one.key for one in told.arguments.values() if isinstance(one, Handle)]
    rows = stage_reports.failures(told.store, keys, inputs, told.run.run_id)
    return _reasons("Requests without a response", rows)


def _refined(told: Told) -> list[str]:
    """Prompts that got no refinements, and requests without a response."""
    settings = told.run.config.refine
    feedback = told.arguments["feedback"].key
    without = promising.left_out(told.store, feedback, told.judge_key, settings.promising, settings.budget)
    left_out = [{"reason": reason, "n": n} for reason, n in without.items()] if settings.m else []
    return [*_reasons("Prompts without refinements", left_out), *_generated(told)]


def _judged(told: Told) -> list[str]:
    """What is unrated and why, scores, and what refinements gained."""
    of = (told.store, told.key.key, told.judge_key)
    parts = _reasons("Unrated, never scored", stage_reports.unrated(*of))
    scores = stage_reports.scores(*of)
    parts += [picture("Scores", plots.bars(scores, 0.1, "score"))] if scores else []
    outcomes = stage_reports.lifts(*of) if told.arguments["responses"].stage == "refine" else []
    if outcomes:
        lift = {row["outcome"]: "" if row["lift"] is None else f"{row['lift']:+.2f}" for row in outcomes}
        rows = [(row["outcome"], f"{row['n']:,}", lift[row["outcome"]]) for row in outcomes]
        parts += [table(("Refinements against their own parents", "", "mean lift"), rows)]
        steps = stage_reports.lift_steps(*of)
        parts += [picture("Lifts", plots.bars(steps, 0.1, "lift of a refinement", zero=True))] if steps else []
    return parts


def _paired(told: Told) -> list[str]:
    """Prompts without a pair, and lengths of chosen against rejected."""
    parts = _reasons("Prompts without a pair", stage_reports.unpaired(told.store, told.key.key))
    unit, chosen, rejected = stage_reports.pair_lengths(told.store, told.key.key)
    return [*parts, *([picture("Lengths", plots.lengths(unit, chosen, rejected))] if chosen else [])]


def _audited(told: Told) -> list[str]:
    """What the pairs were measured to be, and the limits that they keep."""
    measures = audits.measures_of(told.store, told.key.key)
    rows = [
        (inline(one.name), auditing.number(one.name, one.value), auditing.interval(one), auditing.limit(one))
        for one in measures
    ]
    return [table(("Audit", "value", "95 % interval", "limit"), rows)] if rows else []


def _trained(told: Told) -> list[str]:
    """Pairs left out, and how loss and rewards went."""
    parts = _reasons("Rows that could not be trained on", stage_reports.excluded(told.store, told.key.key))
    found = stage_reports.training_curve(told.store, told.key.key, CURVES)
    return [*parts, *([picture("Training", plots.curves(found))] if found else [])]


def _evaluated(told: Told) -> list[str]:
    """Failures and unrated answers, this accuracy beside those of other policies, and the aspects."""
    run, policy = told.run, told.arguments["policy"]
    answers = stages.response_key(run.config, policy.here(), run.config.evaluate)
    held_out, asked = told.store.held_out(), told.arguments["corpus"].held_out.key
    parts = _reasons(
        "Requests without a response", stage_reports.failures(held_out, [answers.key], [asked], run.run_id)
    )
    parts += _reasons("Unrated, counted as wrong", stage_reports.unrated(held_out, told.key.key, told.judge_key))
    found = stage_reports.evaluations_like(told.store, told.key.key)
    if found:
        points = [(100 * row["accuracy"], 100 * row["low"], 100 * row["high"]) for row in found]
        names = [row["policy"] for row in found]
        parts += [picture("Accuracy", plots.intervals({"": points}, names, "held-out accuracy, %"))]
    aspects = stage_reports.evaluation_aspects(told.store, told.key.key)
    rows = [
        (inline(row["aspect"]), f"{row['mean']:+.2f}", f"{row['low']:+.2f} to {row['high']:+.2f}") for row in aspects
    ]
    return [*parts, *([table(("Aspect, -1 to 1", "mean", "95 % interval"), rows)] if rows else [])]


_PARTS: dict[str, Callable[[Told], list[str]]] = {
    "ingest": _ingest,
    "explore": _generated,
    "refine": _refined,
    "compare": _generated,
    "judge": _judged,
    "select_pairs": _paired,
    "audit_pairs": _audited,
    "train_policy": _trained,
    "train_control": _trained,
    "evaluate": _evaluated,
}
