"""Select pairs: chosen against rejected, by the configured rule."""

from __future__ import annotations

from rlrf import judging, stages
from rlrf.config import RunConfig
from rlrf.errors import StoppedError
from rlrf.handles import Handle, Run
from rlrf.stage_keys import pairs_key, reward_key
from storage import pairing, sets
from tasks.stage import Stage, stage

_WHY = {
    "nothing_rated": "without a rated, complete response",
    "no_positive": "without a positive response (at the top of every aspect)",
    "no_negative": "without a negative response",
    "no_difference": "without responses of different scores",
    "no_margin": "without responses whose scores are pairs.margin apart",
    "no_reward": "without a response that has a reward",
    "no_refinement": "without a rated, complete refinement",
    "no_refinement_better": "without a refinement that scores higher than the response it rewrote",
    "no_dominance": "without a response that is better than another on one aspect and no worse on any",
}
_NEED_POSITIVES = ("paper", "nearest", "length_controlled")


def _key(run: Run, prompts: Handle, judged: tuple[Handle, ...]) -> stages.Key:
    return pairs_key(run.config, judged)


@stage("select_pairs", _key)
def select_pairs(stage: Stage, run: Run, prompts: Handle, judged: tuple[Handle, ...]) -> Handle:
    """Pairs of these judged sets. Raises StoppedError when there are fewer than `pairs.min_pairs`."""
    config, reward = stage.config, reward_key(stage.config)
    pairs, dropped = pairing.select_pairs(
        stage.store,
        stage.key,
        prompts=prompts.key,
        responses=[part.key for part in judged],
        judge_key=judging.key_of(config.judge).key,
        rule=config.pairs,
        seed=config.seed,
        reward_key=reward.key if reward else None,
    )
    stage.progress.begin(pairs, 0, "pairs")
    stage.progress.advance(pairs)
    stage.progress.say(f"prompts dropped: {_said(dropped)}")
    if pairs < config.pairs.min_pairs:
        raise StoppedError(_too_few(config, pairs, dropped, prompts.rows))
    return stage.handle(pairs, sets.digest(stage.store, "pairs", stage.key))


def _said(dropped: dict[str, int]) -> str:
    return ", ".join(f"{n:,} {_WHY[reason]}" for reason, n in sorted(dropped.items())) or "none"


def _too_few(config: RunConfig, pairs: int, dropped: dict[str, int], prompts: int) -> str:
    rule = config.pairs
    if not pairs and rule.type in _NEED_POSITIVES and not dropped.keys() & {"no_negative", "no_difference"}:
        head = (
            f"no prompt has a positive response: none of {prompts:,} prompts got a response at the top of every aspect"
        )
    else:
        head = f"{pairs:,} pairs from {prompts:,} prompts, pairs.min_pairs is {rule.min_pairs:,}"
    return (
        f"select_pairs: {head}; dropped: {_said(dropped)}. Nothing was trained and the responses and ratings are kept. "
        "Take an abler policy, easier prompts, a larger explore.n, or bring external responses"
    )
