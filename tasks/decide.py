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
    held_out, aspect = stage.store.held_out(), stage.config.evaluate.aspect
    ours, theirs = (answers.answers(held_out, one.key, one.judge_key, aspect) for one in (new, old))
    if [row["prompt_id"] for row in ours] != [row["prompt_id"] for row in theirs]:
        raise StoreError(f"decide: {new.policy.name!r} and {old.policy.name!r} answered different held-out prompts")
    ratio = new.tokens_mean / max(old.tokens_mean, 1e-9)
    verdict = gate([row["correct"] for row in ours], [row["correct"] for row in theirs], ratio, stage.config.gate)
    word = "promote" if verdict.promote else "keep"
    # Keeping leaves the store's champion in office, which a rollback or another run may have put there.
    champion = new.policy if verdict.promote else ledger.champion(stage.store) or old.policy
    ledger.decide(
        stage.store,
        word,
        about=new.policy,
        champion=champion,
        reason=verdict.reason,
        by="gate",
        stage_key=stage.key,
        run_id=run.run_id,
        iteration=iteration,
        gain=verdict.gain,
        low=verdict.low,
        high=verdict.high,
        length_ratio=ratio,
    )
    stage.progress.say(f"{word}: {verdict.reason}")
    return Decision(key=stage.key, verdict=word, champion=champion, reason=verdict.reason)
