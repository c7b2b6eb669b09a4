"""From configuration to a judge."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any

from rlrf import judge_config
from rlrf.backends.opening import open_scorer
from rlrf.backends.protocols import Generator
from rlrf.backends.weights import resolve_model
from rlrf.engine_config import AnyEngine, Auto, Endpoint
from rlrf.errors import ConfigError
from rlrf.fingerprints import content_id
from rlrf.identities import model_part
from rlrf.judge_config import JudgeConfig
from rlrf.judges import math, reward, rubric
from rlrf.judges.choice import ChoiceJudge
from rlrf.judges.function import FunctionJudge
from rlrf.judges.match import MatchJudge
from rlrf.judges.panel import PanelJudge
from rlrf.judges.protocol import Judge
from rlrf.judges.recorded import RecordedJudge
from rlrf.rubric import Rubric, load_rubric
from rlrf.stages import Key, judge_key, make_key

OpenEngine = Callable[[AnyEngine, str | Path], Generator]
"""Opens an engine for a model folder."""

Secret = Callable[[str], str]
"""Reads a named secret of the scheduler's."""


def no_secret(name: str) -> str:
    """For callers without a scheduler. Raises ConfigError."""
    raise ConfigError(f"api_key_secret = {name!r}: no secrets can be read here; use api_key_env")


def build_judge(judge: JudgeConfig, open_engine: OpenEngine, secret: Secret = no_secret) -> Judge:
    """A judge that is ready to judge; its model is opened by the first case. Raises ConfigError for a bad rubric.

    `secret` reads the API key of a reward model's endpoint; `open_engine` knows its own.
    """
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
        return PanelJudge([build_judge(one, open_engine, secret) for one in judge.judges], judge.merge, judge.quorum)
    if isinstance(judge, judge_config.RubricJudge):
        return _rubric_judge(judge, open_engine)
    return reward.RewardJudge(lambda: open_scorer(judge, secret), _model(judge).key, judge.max_length)


def key_of(judge: JudgeConfig) -> Key:
    """The judge's identity, without opening its model."""
    return judge_key(described(judge).ingredients())._replace(parts=_models(judge))


def chooser_key(judge: JudgeConfig) -> Key | None:
    """The identity of its choice of aspects, for a judge that names them once per prompt; None for every other one."""
    if not isinstance(judge, judge_config.RubricJudge) or judge.aspects != "prompt":
        return None
    chooser: Any = described(judge)
    return make_key("aspects", **chooser.choice_ingredients())


def described(judge: JudgeConfig) -> Judge:
    """A judge to ask for its aspects and identity, which can't judge."""

    def refuse(engine: AnyEngine, folder: str | Path) -> Generator:
        raise AssertionError(f"a judge that is only described opens no engine ({engine.type}, {folder})")

    return build_judge(judge, refuse)


def _rubric_judge(judge: judge_config.RubricJudge, open_engine: OpenEngine) -> Judge:
    engine, folder = judge.engine, judge.model
    manner = rubric.Manner(**{field.name: getattr(judge, field.name) for field in fields(rubric.Manner)})
    found = load_rubric(judge.rubric)
    _check_aspects(manner, found)
    return rubric.RubricJudge(
        lambda: open_engine(engine, resolve_model(folder) if folder else ""),
        found,
        _model(judge).key,
        judge.sampling.sampling(),
        manner,
    )


def _check_aspects(manner: rubric.Manner, found: Rubric) -> None:
    """Raises ConfigError where settings name aspects that the rubric hasn't, or more than it has."""
    for task, names in manner.tasks.items():
        if not names or (strange := sorted(set(names) - set(found.names))):
            wrong = f"{strange!r} are" if names else "nothing is"
            raise ConfigError(
                f"judge.tasks.{task} = {list(names)!r}: {wrong} in rubric {found.name!r}; name some of {list(found.names)!r}"
            )
    if manner.aspects in ("prompt", "call") and manner.choose > len(found.names):
        raise ConfigError(
            f"judge.choose = {manner.choose!r}: rubric {found.name!r} has {len(found.names)} aspects; lower it"
        )


def _models(judge: JudgeConfig, path: str = "") -> dict[str, Key]:
    """The models that judge, by where a judge's ingredients name them."""
    if isinstance(judge, judge_config.PanelJudge):
        found = [_models(one, f"{path}judges.{place}.") for place, one in enumerate(judge.judges)]
        return {name: part for models in found for name, part in models.items()}
    if isinstance(judge, judge_config.RubricJudge | judge_config.RewardJudge):
        return {f"{path}model": _model(judge)}
    return {}


def _model(judge: judge_config.RubricJudge | judge_config.RewardJudge) -> Key:
    """Weights where we hold them; else what the user calls the thing that answers."""
    if isinstance(judge, judge_config.RewardJudge):
        return model_part(judge.endpoint or Auto(), judge.model)
    if judge.policy is not None and judge.model is None and not isinstance(judge.engine, Endpoint):
        named = {"policy": judge.policy}  # of a description only: a run settles it first
        return Key("policy as judge", content_id("policy as judge", judge.policy), named)
    return model_part(judge.engine, judge.model)
