"""From configuration to a judge."""

from __future__ import annotations

from rlrf.backends.opening import open_generator
from rlrf.backends.weights import resolve_model, weights_digest
from rlrf.config import Endpoint, Engine, MathJudge, RubricJudge, Scripted
from rlrf.fingerprints import content_id
from rlrf.judges import math, rubric
from rlrf.judges.protocol import Judge
from rlrf.rubric import load_rubric
from rlrf.stages import Key, judge_key


def build_judge(judge: MathJudge | RubricJudge) -> Judge:
    """A judge that is ready to judge; its model is opened by the first case. Raises ConfigError for a bad rubric."""
    if isinstance(judge, MathJudge):
        return math.MathJudge(judge.reveal_values)
    engine, folder = judge.engine, judge.model
    return rubric.RubricJudge(
        lambda: open_generator(engine, resolve_model(folder) if folder else ""),
        load_rubric(judge.rubric),
        _model_identity(judge),
        judge.sampling.sampling(),
    )


def key_of(judge: MathJudge | RubricJudge) -> Key:
    """The judge's identity, without opening its model."""
    return judge_key(build_judge(judge).ingredients())


def _model_identity(judge: RubricJudge) -> str:
    """Weights where we hold them; else what the user calls the thing that answers."""
    if isinstance(judge.engine, Engine) and judge.model is not None:
        return weights_digest(resolve_model(judge.model))
    if isinstance(judge.engine, Endpoint):
        return content_id("endpoint", [judge.engine.base_url, judge.engine.model])
    assert isinstance(judge.engine, Scripted)
    return content_id("scripted", judge.engine.reply)
