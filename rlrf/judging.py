"""From configuration to a judge."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from rlrf import judge_config
from rlrf.backends.protocols import Generator
from rlrf.backends.weights import resolve_model, weights_digest
from rlrf.engine_config import AnyEngine, Endpoint, Scripted
from rlrf.fingerprints import content_id
from rlrf.judge_config import JudgeConfig
from rlrf.judges import math, rubric
from rlrf.judges.choice import ChoiceJudge
from rlrf.judges.function import FunctionJudge
from rlrf.judges.match import MatchJudge
from rlrf.judges.panel import PanelJudge
from rlrf.judges.protocol import Judge
from rlrf.judges.recorded import RecordedJudge
from rlrf.rubric import load_rubric
from rlrf.stages import Key, judge_key

OpenEngine = Callable[[AnyEngine, str | Path], Generator]
"""Opens an engine for a model folder."""


def build_judge(judge: JudgeConfig, open_engine: OpenEngine) -> Judge:
    """A judge that is ready to judge; its model is opened by the first case. Raises ConfigError for bad settings."""
    if isinstance(judge, judge_config.MathJudge):
        return math.MathJudge(judge.reveal_values)
    if isinstance(judge, judge_config.ChoiceJudge):
        return ChoiceJudge(judge.letters)
    if isinstance(judge, judge_config.MatchJudge):
        return MatchJudge(judge.rule, judge.pattern, judge.ignore_case, judge.part)
    if isinstance(judge, judge_config.FunctionJudge):
        return FunctionJudge(judge.function, judge.aspects, judge.low, judge.high)
    if isinstance(judge, judge_config.RecordedJudge):
        return RecordedJudge(judge.path, load_rubric(judge.rubric), judge.prompt, judge.response, judge.reply)
    if isinstance(judge, judge_config.PanelJudge):
        return PanelJudge([build_judge(one, open_engine) for one in judge.judges], judge.merge, judge.quorum)
    if isinstance(judge, judge_config.RubricJudge):
        return _rubric_judge(judge, open_engine)
    raise NotImplementedError(judge.type)


def key_of(judge: JudgeConfig) -> Key:
    """The judge's identity, without opening its model."""
    return judge_key(described(judge).ingredients())


def described(judge: JudgeConfig) -> Judge:
    """A judge to ask for its aspects and identity, which can't judge."""

    def refuse(engine: AnyEngine, folder: str | Path) -> Generator:
        raise AssertionError(f"a judge that is only described opens no engine ({engine.type}, {folder})")

    return build_judge(judge, refuse)


def _rubric_judge(judge: judge_config.RubricJudge, open_engine: OpenEngine) -> Judge:
    engine, folder = judge.engine, judge.model
    return rubric.RubricJudge(
        lambda: open_engine(engine, resolve_model(folder) if folder else ""),
        load_rubric(judge.rubric),
        _model_identity(judge),
        judge.sampling.sampling(),
        guided=judge.guided,
    )


def _model_identity(judge: judge_config.RubricJudge) -> str:
    """Weights where we hold them; else what the user calls the thing that answers."""
    if isinstance(judge.engine, Endpoint):
        return content_id("endpoint", [judge.engine.base_url, judge.engine.model])
    if isinstance(judge.engine, Scripted):
        return content_id("scripted", judge.engine.reply)
    assert judge.model is not None, "the configuration was validated"
    return weights_digest(resolve_model(judge.model))
