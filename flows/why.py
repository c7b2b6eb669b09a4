"""Why a stage is done, to be done or to be done again: its state in every iteration, and the ingredients behind it."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from flows.plan import Planner
from flows.savings import Saving, savings, total
from flows.steps import FINISHED, Step
from rlrf.errors import ConfigError
from rlrf.explaining import Change, Mark, roots
from rlrf.stages import Key
from storage import planning


@dataclass(frozen=True)
class When:
    """A stage that finished, or was started: which, when, and by which run (its id and name)."""

    what: str
    at: datetime
    run_id: str | None
    run: str | None


@dataclass(frozen=True)
class Why:
    """One stage of one iteration.

    Attributes:
        step: the stage as the plan sees it.
        saving: what reuse saves of it, and what is left.
        when: the last that happened to it under its key; None where nothing did.
        old: the nearest earlier key that finished; None where there is none.
        changes: what differs from it, each followed to its roots.
        waits_for: the first stage of its iteration that isn't finished, where that comes before this one.
    """

    step: Step
    saving: Saving
    when: When | None
    old: Key | None
    changes: tuple[Change, ...]
    waits_for: Step | None

    @property
    def unchanged(self) -> dict[str, Any]:
        """The ingredients of the key that are as they were; all of them where nothing was."""
        moved = {change.path[0] for change in self.changes}
        ingredients = self.step.key.ingredients if self.step.key else {}
        return {name: value for name, value in ingredients.items() if name not in moved}


def why(planner: Planner, stage: str, iteration: int | None = None) -> list[Why]:
    """The stage in every iteration of the plan, or in one. `judge of refine` is one of several stages that are called `judge`.

    Raises ConfigError with what there is, for an unknown stage or an iteration without it.
    """
    steps = list(planner.steps())
    named = [step for step in steps if stage in (step.stage, step.title)]
    wanted = [step for step in named if iteration in (None, step.iteration)]
    if not named:
        titles = list(dict.fromkeys(name for step in steps for name in (step.stage, step.title)))
        raise ConfigError(f"no stage {stage!r} in this run; there are {', '.join(titles)}")
    if not wanted:
        there = ", ".join(str(number) for number in sorted({step.iteration for step in named}))
        raise ConfigError(f"--iteration {iteration!r}: {stage} is planned for {there}")
    found = savings(planner, wanted)
    return [_why(planner, step, saving, steps) for step, saving in zip(wanted, found, strict=True)]


def _why(planner: Planner, step: Step, saving: Saving, steps: Sequence[Step]) -> Why:
    old, changes = None, step.changes
    if step.key is not None:
        planner.past.know([step.key])
        old = planner.tracer.nearest(step.stage, step.key, step.iteration)
        changes = planner.tracer.explain(old, step.key) if old else ()
    return Why(step, saving, _when(planner, step), old, changes, _waits_for(step, steps))


def _waits_for(step: Step, steps: Sequence[Step]) -> Step | None:
    """The first unfinished stage before it; ingestion, the policy and its exam come before every iteration."""
    if step.key is not None:
        return None
    return next((one for one in steps if one.state != FINISHED and one.key is not None), None)


def _when(planner: Planner, step: Step) -> When | None:
    key, past = step.key.key if step.key else "", planner.past
    if key in past.receipts:
        done = past.receipts[key]
        return When("finished", done.finished_at, done.run_id, _run(planner, done.run_id))
    if key in past.starts:
        start = past.starts[key]
        return When("started", start.started_at, start.run_id, _run(planner, start.run_id))
    return None


def _run(planner: Planner, run_id: str | None) -> str | None:
    return planning.run_name(planner.store, run_id) if run_id else None


def step_as_json(step: Step, saving: Saving) -> dict[str, Any]:
    """One stage of a plan as plain JSON."""
    return {
        "iteration": step.iteration,
        "stage": step.stage,
        "of": step.of or None,
        "state": step.state,
        "key": step.key.key if step.key else None,
        "rows": step.rows,
        "kept": step.kept,
        "to_do": None if step.rows is None else step.rows - step.kept,
        "tokens_to_generate": step.tokens,
        "saves": {"rows": saving.rows, "tokens": saving.tokens, "seconds": saving.seconds},
        "seconds_left": saving.left,
        "why": step.why,
        "roots": [_root(change) for change in roots(step.changes)],
    }


def plan_as_json(steps: Sequence[Step], found: Sequence[Saving]) -> dict[str, Any]:
    """A whole plan as plain JSON, with its sums."""
    all_of_it = total(found)
    return {
        "steps": [step_as_json(step, saving) for step, saving in zip(steps, found, strict=True)],
        "finished": sum(step.state == FINISHED for step in steps),
        "tokens_to_generate": sum(step.tokens for step in steps),
        "saves": {"rows": all_of_it.rows, "tokens": all_of_it.tokens, "seconds": all_of_it.seconds},
        "seconds_left": all_of_it.left,
    }


def why_as_json(one: Why) -> dict[str, Any]:
    """One answer as plain JSON. `changes` hold what lies behind them in `because`, the first time that it comes up."""
    when = one.when
    return step_as_json(one.step, one.saving) | {
        "when": {"what": when.what, "at": when.at.isoformat(), "run_id": when.run_id, "run": when.run}
        if when
        else None,
        "nearest": one.old.key if one.old else None,
        "unchanged": one.unchanged,
        "roots": [_root(change) for change in roots(one.changes)],
        "changes": _tree(one.changes, set()),
        "waits_for": {"iteration": one.waits_for.iteration, "stage": one.waits_for.title} if one.waits_for else None,
    }


def _root(change: Change) -> dict[str, Any]:
    values = {"was": change.was, "now": change.now}
    known = {name: value for name, value in values.items() if not isinstance(value, Mark)}
    note = {"note": change.note} if change.note else {}
    return {"of": change.of, "ingredient": change.name} | known | note


def _tree(changes: tuple[Change, ...], passed: set[int]) -> list[dict[str, Any]]:
    found = []
    for change in changes:
        node, first = _root(change), id(change.because) not in passed
        if change.because and first:
            passed.add(id(change.because))
            node["because"] = _tree(change.because, passed)
        found.append(node)
    return found
