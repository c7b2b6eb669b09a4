"""Decide: the gate over two evaluations; the champion is the last decision's row."""

from __future__ import annotations

from rlrf import stages
from rlrf.errors import StoppedError, StoreError
from rlrf.evaluating import Verdict, gate
from rlrf.handles import Decision, Evaluation, Run
from storage import answers, approvals, ledger
from storage.approvals import Answer
from storage.store import Store
from tasks.signals import ACCURACY_DOWN, signal
from tasks.stage import Stage, stage


def _key(run: Run, iteration: int, new: Evaluation, old: Evaluation) -> stages.Key:
    return stages.decide_key(run.config, new, old)


@stage("decide", _key, found=ledger.decision)
def decide(stage: Stage, run: Run, iteration: int, new: Evaluation, old: Evaluation) -> Decision:
    """Promote the new policy or keep the old one, on answers to the same prompts.

    Where a person has to approve, nothing is promoted without their answer: raises StoppedError as long as there is none.
    """
    verdict, reason = weigh(run, new, old)
    if verdict.high < 0:
        numbers = {"gain": verdict.gain, "low": verdict.low, "high": verdict.high, "accuracy": new.accuracy}
        signal(ACCURACY_DOWN, stage.config, iteration=iteration, **numbers)
    answer = _answer(stage, iteration, new, old, reason) if verdict.promote else None
    word = "promote" if verdict.promote and (answer is None or answer.approved) else "keep"
    # Keeping leaves the store's champion in office, which a rollback or another run may have put there.
    champion = new.policy if word == "promote" else ledger.champion(stage.store) or old.policy
    ledger.decide(
        stage.store,
        word,
        about=new.policy,
        champion=champion,
        reason=answer.reason if answer else reason,
        by=answer.decided_by if answer else "gate",
        stage_key=stage.key,
        run_id=run.run_id,
        iteration=iteration,
        gain=verdict.gain,
        low=verdict.low,
        high=verdict.high,
        length_ratio=verdict.length_ratio,
    )
    said = f"{reason}; {answer.decided_by}: {answer.reason}" if answer else reason
    stage.progress.say(f"{word}: {said}")
    return Decision(key=stage.key, verdict=word, champion=champion, reason=answer.reason if answer else reason)


def weigh(run: Run, new: Evaluation, old: Evaluation) -> tuple[Verdict, str]:
    """What the gate says, and why in words. Raises StoreError where the two have no answered prompt in common."""
    store = Store(run.config.store_path)
    ours, theirs = (_correct(store, run, one) for one in (new, old))
    both = sorted(ours.keys() & theirs.keys())
    if not both:
        raise StoreError(
            f"decide: {new.policy.name!r} and {old.policy.name!r} have no answered held-out prompt in common"
        )
    ratio = new.tokens_mean / max(old.tokens_mean, 1e-9)
    verdict = gate([ours[one] for one in both], [theirs[one] for one in both], ratio, run.config.gate)
    apart = len(ours.keys() | theirs.keys()) - len(both)
    left_out = f"; {apart:,} prompts that only one of the two answered are left out" if apart else ""
    return verdict, verdict.reason + left_out


def _answer(stage: Stage, iteration: int, new: Evaluation, old: Evaluation, reason: str) -> Answer | None:
    """What a person said of this promotion; None where nobody is asked. Raises StoppedError where nobody has answered yet."""
    hours = stage.config.gate.approval
    if hours is None:
        return None
    approvals.propose(stage.store, stage.key, stage.run.run_id, iteration, new, old, hours, reason)
    answer = approvals.settle(stage.store, stage.key)
    if answer is None:
        home = stage.config.home
        raise StoppedError(
            f"awaits approval: {new.policy.name!r} would be promoted, {reason}. Look at it with `rlrf status {home}`; "
            f"`rlrf approve {home} --reason …` or `rlrf reject {home} --reason …` decides, and the same command goes on. "
            f"After {hours:g} hours without an answer it is kept out (gate.approval)"
        )
    return answer


def _correct(store: Store, run: Run, evaluation: Evaluation) -> dict[str, bool]:
    """Per answered held-out prompt whether the answer was correct; a request that failed has no answer."""
    aspect = run.config.evaluate.aspect
    rows = answers.answers(store.held_out(), evaluation.key, evaluation.judge_key, aspect)
    return {row["prompt_id"]: row["correct"] for row in rows}
