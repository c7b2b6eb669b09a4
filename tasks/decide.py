"""Decide: the gate over two evaluations; the champion is the last decision's row."""

from __future__ import annotations

from rlrf import stages
from rlrf.errors import StoreError
from rlrf.evaluating import gate
from rlrf.handles import Decision, Evaluation, Run
from storage import answers, ledger
from tasks.stage import Stage, stage


def _key(run: Run, iteration: int, new: Evaluation, old: Evaluation) -> stages.Key:
    return stages.decide_key(run.config, new, old)


@stage("decide", _key, found=ledger.decision)
def decide(stage: Stage, run: Run, iteration: int, new: Evaluation, old: Evaluation) -> Decision:
    """Promote the new policy or keep the old one, on answers to the same prompts."""
    ours, theirs = (_correct(stage, one) for one in (new, old))
    both = sorted(ours.keys() & theirs.keys())
    if not both:
        raise StoreError(
            f"decide: {new.policy.name!r} and {old.policy.name!r} have no answered held-out prompt in common"
        )
    ratio = new.tokens_mean / max(old.tokens_mean, 1e-9)
    verdict = gate([ours[one] for one in both], [theirs[one] for one in both], ratio, stage.config.gate)
    word = "promote" if verdict.promote else "keep"
    apart = len(ours.keys() | theirs.keys()) - len(both)
    reason = verdict.reason + (f"; {apart:,} prompts that only one of the two answered are left out" if apart else "")
    # Keeping leaves the store's champion in office, which a rollback or another run may have put there.
    champion = new.policy if verdict.promote else ledger.champion(stage.store) or old.policy
    ledger.decide(
        stage.store,
        word,
        about=new.policy,
        champion=champion,
        reason=reason,
        by="gate",
        stage_key=stage.key,
        run_id=run.run_id,
        iteration=iteration,
        gain=verdict.gain,
        low=verdict.low,
        high=verdict.high,
        length_ratio=ratio,
    )
    stage.progress.say(f"{word}: {reason}")
    return Decision(key=stage.key, verdict=word, champion=champion, reason=reason)


def _correct(stage: Stage, evaluation: Evaluation) -> dict[str, bool]:
    """Per answered held-out prompt whether the answer was correct; a request that failed has no answer."""
    aspect = stage.config.evaluate.aspect
    rows = answers.answers(stage.store.held_out(), evaluation.key, evaluation.judge_key, aspect)
    return {row["prompt_id"]: row["correct"] for row in rows}
