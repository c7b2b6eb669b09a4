"""Judge: ratings and critiques on every aspect for every response of a set; what can't be rated is unrated."""

from __future__ import annotations

from rlrf import judging, stages
from rlrf.handles import Handle, Run
from storage import sets
from tasks.produce import judge_set
from tasks.stage import Stage, stage


def _key(run: Run, responses: Handle) -> stages.Key:
    return stages.judged_key(judging.key_of(run.config.judge).key, responses)


@stage("judge", _key)
def judge(stage: Stage, run: Run, responses: Handle) -> Handle:
    """Every response of the set has a judgement afterwards; its key names the same members as the responses'."""
    judge_key = judging.key_of(stage.config.judge)
    sets.copy_members(stage.store, responses.key, stage.key)
    judge_set(stage, stage.store, stage.key, judge_key, stage.progress)
    return stage.handle(responses.rows, sets.digest(stage.store, "judgements", stage.key, judge_key.key))
