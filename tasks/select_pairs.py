"""Select pairs: chosen against rejected, by the configured rule."""

from __future__ import annotations

from rlrf import judging, stages
from rlrf.errors import StoppedError
from rlrf.handles import Handle, Run
from storage import pairing, sets
from tasks.stage import Stage, stage

_WHY = {
    "no_positive": "without a positive response (at the top of every aspect)",
    "no_negative": "without a negative response",
    "nothing_rated": "without a rated, complete response",
}


def _key(run: Run, prompts: Handle, judged: tuple[Handle, ...]) -> stages.Key:
    return stages.select_pairs_key(run.config, judged)


@stage("select_pairs", _key)
def select_pairs(stage: Stage, run: Run, prompts: Handle, judged: tuple[Handle, ...]) -> Handle:
    """Pairs of these judged sets. Raises StoppedError when there are fewer than `pairs.min_pairs`."""
    rule, judge_key = stage.config.pairs, judging.key_of(stage.config.judge).key
    keys = [part.key for part in judged]
    pairs, dropped = pairing.select_pairs(
        stage.store,
        stage.key,
        prompts=prompts.key,
        responses=keys,
        judge_key=judge_key,
        k=rule.k,
        seed=stage.config.seed,
    )
    said = ", ".join(f"{n:,} {_WHY[reason]}" for reason, n in sorted(dropped.items())) or "none"
    stage.progress.begin(pairs, 0, "pairs")
    stage.progress.advance(pairs)
    stage.progress.say(f"prompts dropped: {said}")
    if pairs < rule.min_pairs:
        raise StoppedError(_too_few(pairs, rule.min_pairs, dropped, prompts.rows))
    return stage.handle(pairs, sets.digest(stage.store, "pairs", stage.key))


def _too_few(pairs: int, wanted: int, dropped: dict[str, int], prompts: int) -> str:
    parts = [f"{n:,} {_WHY[reason]}" for reason, n in sorted(dropped.items())]
    if not pairs and not dropped.get("no_negative"):
        head = (
            f"no prompt has a positive response: none of {prompts:,} prompts got a response at the top of every aspect"
        )
    else:
        head = f"{pairs:,} pairs from {prompts:,} prompts, pairs.min_pairs is {wanted:,}"
    return (
        f"select_pairs: {head}; dropped: {', '.join(parts)}. Nothing was trained and the responses and ratings are kept. "
        "Take an abler policy, easier prompts, a larger explore.n, or bring external responses"
    )
