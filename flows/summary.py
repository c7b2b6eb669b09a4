"""An iteration's summary, and the evidence for a promotion, as Markdown for Prefect's UI."""

from collections.abc import Sequence
from typing import Any

from prefect.artifacts import create_markdown_artifact

from flows.tables import arm_name, audit_cells, result_cells
from rlrf import judging
from rlrf.auditing import Measure
from rlrf.config import RunConfig
from rlrf.errors import StoreError
from rlrf.handles import Evaluation, Outcome, Run
from rlrf.markdown import block, inline, picture, table
from storage import approvals, audits, ledger, reading, runs, stage_reports
from storage.approvals import Proposal
from storage.store import Store
from tasks import plots
from tasks.outbox import is_watched, outbox


def summarise(run: Run, outcome: Outcome, judge_key: str) -> None:
    """Have the summary after an iteration, the first evaluation or the control made and sent, where somebody can see it."""
    if is_watched():
        outbox.put(("summary", outcome.evaluation.key), lambda: _send(run, outcome, judge_key))


def _send(run: Run, outcome: Outcome, judge_key: str) -> None:
    said = f"{run.config.name} after iteration {outcome.iteration}"
    create_markdown_artifact(key="iteration-summary", markdown=summary(run, outcome, judge_key), description=said)


def summary(run: Run, outcome: Outcome, judge_key: str) -> str:
    """The run so far: results with plots, the last iteration's pair audit and examples, and where things are."""
    store = Store(run.config.store_path)
    rows = reading.results(store, run.run_id)
    parts = [f"## {inline(run.config.name)}: results so far", *_results(rows)]
    measures = audits.measures_of(store, outcome.stages.get("audit_pairs", outcome.evaluation.key))
    parts += audit_part(measures)
    if "select_pairs" in outcome.stages:
        parts += example_parts(store, outcome.stages["select_pairs"], judge_key)
    return "\n\n".join([*parts, places(run, outcome.evaluation)])


def evidence(run: Run, pair_set: str | None, new: Evaluation, old: Evaluation, said: str, *, pictures: bool) -> str:
    """What a person needs to decide on a promotion: accuracies, aspects, lengths, the pair audit, examples."""
    store = Store(run.config.store_path)
    judge_key = judging.key_of(run.config.judge).key
    head = f"**{inline(new.policy.name)}** would replace **{inline(old.policy.name)}**: {inline(said)}."
    rows = [
        ("accuracy", *(f"{one.accuracy:.1%} ({100 * one.low:.1f} to {100 * one.high:.1f})" for one in (new, old))),
        ("questions", *(f"{one.questions:,}" for one in (new, old))),
        ("answer tokens", *(f"{one.tokens_mean:.1f}" for one in (new, old))),
        ("length ratio", f"{new.tokens_mean / max(old.tokens_mean, 1e-9):.2f} x", ""),
    ]
    aspects = [{row["aspect"]: row for row in stage_reports.evaluation_aspects(store, one.key)} for one in (new, old)]
    rows += [(inline(name), *(_mean(one.get(name)) for one in aspects)) for name in aspects[0]]
    parts = [head, table(("95 % intervals", "new", "old"), rows)]
    if pictures:
        parts.append(_aspect_picture({new.policy.name: aspects[0], old.policy.name: aspects[1]}))
    if pair_set is not None:
        parts += [*audit_part(audits.audit_of(store, pair_set)), *example_parts(store, pair_set, judge_key)]
    return "\n\n".join([*parts, places(run, new)])


def waiting_evidence(store: Store, proposal: Proposal) -> str:
    """The evidence for a promotion that waits. Raises StoreError where its evaluations aren't there any more."""
    new, old = (ledger.evaluation(store, key) for key in (proposal.evaluation, proposal.against))
    if new is None or old is None:
        raise StoreError(f"{proposal.policy!r} waits for approval, but its evaluation was taken away: run it again")
    config = RunConfig.model_validate_json(runs.config_of(store, proposal.run_id))
    run = Run(run_id=proposal.run_id, store_id=store.store_id, config=config).judged_by(old.policy)
    return evidence(run, approvals.pairs_behind(store, new.policy.policy_id), new, old, proposal.reason, pictures=False)


def _results(rows: list[dict[str, Any]]) -> list[str]:
    """Accuracy and aspects of all policies so far, as plots and a table."""
    names = [arm_name(row) for row in rows]
    points = [(100 * row["accuracy"], 100 * row["low"], 100 * row["high"]) for row in rows]
    cells = [(inline(name), *map(inline, values)) for name, values in result_cells(rows).items() if any(values)]
    return [
        picture("Held-out accuracy", plots.intervals({"": points}, names, "held-out accuracy, %")),
        _aspect_picture(
            {name: {one["aspect"]: one for one in row["aspects"]} for name, row in zip(names, rows, strict=True)}
        ),
        table(("95 % intervals", *map(inline, names)), cells),
    ]


def _aspect_picture(policies: dict[str, dict[str, dict[str, Any]]]) -> str:
    """Aspect means with intervals, the policies side by side."""
    aspects = list(dict.fromkeys(name for one in policies.values() for name in one))
    nothing = dict.fromkeys(("mean", "low", "high"), float("nan"))
    lines = {
        name: [tuple(found.get(aspect, nothing)[part] for part in ("mean", "low", "high")) for aspect in aspects]
        for name, found in policies.items()
    }
    return picture("Aspect means", plots.intervals(lines, aspects, "mean, -1 to 1"))


def audit_part(measures: Sequence[Measure]) -> list[str]:
    """The audit of the pairs that a policy learned from; nothing where there was none."""
    if not measures:
        return []
    cells = audit_cells({"pairs": measures})
    return [
        "### Pair audit",
        table(("", "value", "limit"), [(inline(name), *map(inline, row)) for name, row in cells.items()]),
    ]


def example_parts(store: Store, pair_set: str, judge_key: str) -> list[str]:
    """Three pairs, those first whose chosen response is the refinement that gained most."""
    parts = ["### Examples"] if (rows := stage_reports.examples(store, pair_set, judge_key)) else []
    for number, row in enumerate(rows, 1):
        asked = row["messages"][-1]["content"] if row["messages"] else ""
        parts += [f"#### Example {number}: prompt {row['prompt_id'][:8]}", block(asked)]
        if row["parent"] is not None:
            gained = "" if row["lift"] is None else f", score {row['lift']:+.2f}"
            said = "\n".join(f"{_level(one['level'])} {one['aspect']}: {one['critique']}" for one in row["critiques"])
            parts += ["Promising response", block(row["parent"]), "Critique", block(said)]
            parts += [f"Chosen: its refinement{gained}", block(row["chosen"])]
        else:
            parts += ["Chosen", block(row["chosen"])]
        parts += ["Rejected", block(row["rejected"])]
    return parts


def places(run: Run, evaluation: Evaluation) -> str:
    """Where the policy and the store are. As text: browsers follow no link from a server's page to a file."""
    champion = ledger.champion(Store(run.config.store_path))
    found = {"policy": evaluation.policy.folder, "champion": champion.folder if champion else "none"}
    found |= {"store": str(run.config.store_path), "to read": str(run.config.home / "snapshot.duckdb")}
    said = "\n".join(f"{name:<9} {'file://' if path.startswith('/') else ''}{path}" for name, path in found.items())
    return "### Where it is\n\n" + block(said)


def _mean(aspect: dict[str, Any] | None) -> str:
    return "" if aspect is None else f"{aspect['mean']:+.2f} ± {(aspect['high'] - aspect['low']) / 2:.2f}"


def _level(level: float | None) -> str:
    return "?" if level is None else f"{level:+g}"
