"""What reuse saves and what is left, per stage of a plan: rows, tokens and, from what stages took so far, seconds."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from flows.plan import Planner
from flows.steps import FINISHED, Step
from rlrf import judging
from rlrf.judge_config import PanelJudge
from storage import planning
from storage.planning import Rate

_GENERATED = ("explore", "refine", "compare", "evaluate")
_JUDGED = ("judge", "evaluate")


@dataclass(frozen=True)
class Saving:
    """Of one stage: the rows that are kept, the tokens that they took, the seconds that they would take about, and about the
    seconds of what is left; None where no receipt says what such rows take."""

    rows: int
    tokens: int
    seconds: float | None
    left: float | None


def savings(planner: Planner, steps: Sequence[Step]) -> list[Saving]:
    """One per step, in order."""
    rates, tokens = planning.rates(planner.past), _tokens(planner, steps)
    return [
        Saving(
            step.kept,
            tokens.get(step.key.key, step.kept_tokens) if step.key else 0,
            _saved(planner, step, rates.get(step.stage)),
            _left(step, rates.get(step.stage)),
        )
        for step in steps
    ]


def total(found: Iterable[Saving]) -> Saving:
    """All of them together; seconds of those that are known."""
    found = list(found)
    saved = [one.seconds for one in found if one.seconds is not None]
    left = [one.left for one in found if one.left is not None]
    rows, tokens = sum(one.rows for one in found), sum(one.tokens for one in found)
    return Saving(rows, tokens, sum(saved) if saved else None, sum(left) if left else None)


def _tokens(planner: Planner, steps: Sequence[Step]) -> dict[str, int]:
    """Tokens of the finished stages' rows, by the stages' keys."""
    found: dict[str, int] = {}
    for store, held_out in ((planner.store, False), (planner.store.held_out(), True)):
        done = [s for s in steps if s.state == FINISHED and s.rows and (s.stage == "evaluate") == held_out]
        made = [step.key.key for step in done if step.key and step.stage in _GENERATED]
        judged = {step.key.key: _judges(planner, step) for step in done if step.key and step.stage in _JUDGED}
        if made or judged:
            found |= planning.tokens_of(store, made, judged)
    return found


def _judges(planner: Planner, step: Step) -> list[str]:
    """Whose verdicts are a judged set's: the judge's, those beside it, and the members' of a panel."""
    assert step.key is not None, "only asked of finished steps"
    made_of, judge = step.key.ingredients, planner.config.judge
    members = [judging.key_of(one).key for one in judge.judges] if isinstance(judge, PanelJudge) else []
    return list(dict.fromkeys([made_of["judge"], *made_of.get("beside", []), *members]))


def _saved(planner: Planner, step: Step, rate: Rate | None) -> float | None:
    receipt = planner.past.receipts.get(step.key.key) if step.key else None
    if receipt is not None and receipt.produced:
        return receipt.seconds * (receipt.kept + receipt.produced) / receipt.produced
    return rate.of(step.kept) if rate and step.kept else 0.0 if step.state == FINISHED else None


def _left(step: Step, rate: Rate | None) -> float | None:
    if step.state == FINISHED:
        return 0.0
    return rate.of(None if step.rows is None else step.rows - step.kept) if rate else None
