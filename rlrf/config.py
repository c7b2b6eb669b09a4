"""A run's configuration: TOML to frozen pydantic; unknown keys are refused with their dotted path.

What is here decides results or where they are kept. What a value invalidates is stated by the stage keys
(`rlrf/stages.py`): only what a stage reads is part of its key.
"""

from __future__ import annotations

import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError, model_validator

from rlrf.engine_config import AnyEngine, Auto, Endpoint, Engine, Vllm
from rlrf.errors import ConfigError
from rlrf.external import ExternalSource
from rlrf.judge_config import AnyJudge, JudgeHealth, MathJudge, PanelJudge, RewardJudge, Sampled
from rlrf.pair_config import Audit, Pairs
from rlrf.retention import Retention
from rlrf.sections import Off, Section, Share
from rlrf.sources import Source
from rlrf.train_config import Train


class Bootstrap(Section):
    """Make a tiny policy and its word problems here, where no model can be downloaded (files go to `home`/bootstrap)."""

    seed: int = Field(0, description="Of its word problems, weights and training")
    prompts: int = Field(3000, ge=1, description="Word problems for the wheel to learn from and be held to")
    held_out: int = Field(1000, ge=1, description="Further word problems, held out for evaluation")
    steps: int = Field(1400, ge=1, description="Optimiser steps of its first training; fewer for a quick look")


class Policy(Section):
    """The policy that iteration 1 starts from: a Hugging Face folder or hub name, or one made here."""

    model: str | None = Field(None, description="Local folder or hub name of a chat model with safetensors weights")
    bootstrap: Bootstrap | None = Field(None, description="Make a tiny policy here instead of loading one")
    start: Literal["model", "champion"] = Field(
        "model", description="Start from this policy, or from the store's champion as soon as there is one"
    )

    @model_validator(mode="after")
    def _one_origin(self) -> Policy:
        if (self.model is None) == (self.bootstrap is None):
            raise ValueError("give exactly one of `model` (a folder or hub name) and `bootstrap` (a table)")
        return self


class HeldOut(Section):
    """What evaluation asks and nothing else may read: files of its own, or a share of the prompts by content hash."""

    sources: tuple[Source, ...] = Field((), description="Files or datasets of their own")
    fraction: Share = Field(0.0, description="Share of the prompts, by content hash")
    limit: int | None = Field(None, ge=1, description="Evaluate on the first this many (in seeded order)")


class Prompts(Section):
    """Where prompts come from and how many an iteration takes."""

    sources: tuple[Source, ...] = Field((), description="Files, datasets, logs and tables of prompts")
    system: str | None = Field(None, description="System prompt put before every chat that has none")
    held_out: HeldOut = HeldOut()
    near_duplicate: float = Field(
        0.9, gt=0, le=1, description="Word-shingle Jaccard similarity from which a prompt is a duplicate"
    )
    per_iteration: int | None = Field(None, ge=1, description="Prompts per iteration; all that are left when unset")
    window: Literal["all", "since_last"] = Field(
        "all", description="Learn from all prompts, or from those that arrived since the last finished run of this name"
    )
    redact: str | None = Field(
        None,
        description="`package.module:function` or `folder/file.py:function`, text to text: called on every text before it "
        "is stored",
    )
    reuse: bool = Field(False, description="Take the same prompts in every iteration instead of fresh ones")


class Explore(Sampled):
    """n responses per prompt from the policy; 0 to use external responses alone."""

    n: int = Field(8, ge=0, description="Responses per prompt")


class Teacher(Section):
    """Another model that rewrites in the policy's place."""

    model: str | None = Field(
        None, description="Folder or hub name of its weights, where an engine here is to load them"
    )
    engine: AnyEngine = Field(Auto(), description="Who generates for it")

    @model_validator(mode="after")
    def _model_where_needed(self) -> Teacher:
        if isinstance(self.engine, Auto | Engine | Vllm) and self.model is None:
            raise ValueError(f"engine `{self.engine.type}` needs `model`, the folder of the teacher's weights")
        return self


class Budget(Section):
    """Where refinements are worth their tokens. Both rules off: everywhere, as in the paper."""

    solved: Annotated[Share | None, Off] = Field(
        1.0, description='Prompts with at least this share of responses at the top get none; "off": they get theirs'
    )
    hopeless: Annotated[Annotated[float, Field(ge=-1, le=1)] | None, Off] = Field(
        -1.0, description='Prompts whose best score is no higher than this get none; "off": they get theirs'
    )


class Refine(Sampled):
    """m rewrites per promising response, from its feedback; 0 to go without reflection."""

    m: int = Field(4, ge=0, description="Rewrites per promising response")
    promising: Literal["reward", "best", "best_imperfect"] = Field(
        "best",
        description="The response to refine: highest reward (the paper), highest score, or highest that isn't at the top",
    )
    teacher: Teacher | None = Field(None, description="Who rewrites; the policy itself (the paper) when unset")
    feedback: Literal["merged", "each"] = Field(
        "merged", description="A panel's feedback as one text, or each judge's by itself, the m rewrites shared out"
    )
    hide_answers: bool = Field(
        False, description="Take the reference's answer out of critiques before the reviser sees them"
    )
    budget: Budget = Budget()
    compare: int = Field(
        0, ge=0, description="Refined prompts per iteration that also get m further plain responses, to compare with"
    )


class Evaluate(Sampled):
    """Greedy answers to the held-out prompts; accuracy is the share at the top level of one aspect."""

    temperature: float = Field(0.0, description="0: evaluation is greedy")
    aspect: str = Field("answer", description="The aspect whose top level counts as accurate")
    control: bool = Field(False, description="Also train on the bootstrap's demonstrations: same steps, same rate")

    @model_validator(mode="after")
    def _greedy(self) -> Evaluate:
        if self.temperature:
            raise ValueError("evaluation is greedy: leave `temperature` out")
        return self


class Gate(Section):
    """When a trained policy becomes the champion, and when the wheel stops."""

    min_gain: float = Field(
        0.0, description="The paired gain's lower bound must exceed this, in accuracy (0.01 = 1 point)"
    )
    max_length_ratio: float = Field(1.5, gt=0, description="Mean answer length against the champion's at most")
    patience: int = Field(1, ge=1, description="Iterations in a row without a promotion after which the wheel stops")
    approval: Annotated[Annotated[float, Field(gt=0, le=8760)] | None, Off] = Field(
        None,
        description='Hours that a promotion waits for a person\'s approval; then the policy is kept out. "off": none is asked',
    )


class Limits(Section):
    """Shares over which a stage stops the run instead of going on with bad data."""

    failed: Share = Field(0.05, description="Requests that yielded no response")
    unrated: Share = Field(0.5, description="Judged responses without a rating, truncated ones included")


class RunConfig(Section):
    """Everything that one flywheel run is told."""

    name: str = Field(
        pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$",
        description="Letters, digits, dots, dashes; names runs and policies",
    )
    home: Path = Field(description="Folder for the store, models and report")
    seed: int = Field(0, description="Of every draw in the run; another seed is another run")
    iterations: int = Field(2, ge=1, le=100, description="Turns of the wheel")
    policy: Policy
    prompts: Prompts = Prompts()
    external: tuple[ExternalSource, ...] = Field(
        (), description="Responses that other models wrote, judged like our own"
    )
    engine: AnyEngine = Field(Auto(), description="Who generates: vLLM where it is installed, unless you say otherwise")
    explore: Explore = Explore()
    judge: AnyJudge = Field(MathJudge(), description="Who rates responses on every aspect and says what is wrong")
    judge_health: JudgeHealth = JudgeHealth()
    reward: RewardJudge | None = Field(None, description="Ranks responses: the promising pick and ties (the paper)")
    observers: tuple[AnyJudge, ...] = Field((), description="Judges whose verdicts are kept beside, and decide nothing")
    refine: Refine = Refine()
    pairs: Pairs = Pairs()
    audit: Audit = Audit()
    train: Train = Train()
    evaluate: Evaluate = Evaluate()
    gate: Gate = Gate()
    limits: Limits = Limits()
    retention: Retention = Retention()

    @model_validator(mode="after")
    def _consistent(self) -> RunConfig:
        if self.policy.bootstrap is None:
            if not self.prompts.sources and not self.external:
                raise ValueError("prompts.sources: name at least one file or dataset of prompts")
            if not self.prompts.held_out.sources and not self.prompts.held_out.fraction:
                raise ValueError("prompts.held_out: give `sources` or a `fraction` above 0; nothing could be evaluated")
            if self.evaluate.control:
                raise ValueError("evaluate.control: only a bootstrapped policy has the demonstrations that it needs")
        if self.explore.n == 0 and not self.external:
            raise ValueError("explore.n: 0 leaves nothing to judge; name [[external]] responses or raise n")
        if isinstance(self.engine, Endpoint) and self.policy.bootstrap:
            raise ValueError("engine.type: an endpoint can't serve a policy that is made here; give policy.model")
        if self.refine.promising == "reward" and self.reward is None:
            raise ValueError('refine.promising = "reward": name the reward model in a table [reward]')
        if self.pairs.type == "own_parent" and not self.refine.m:
            raise ValueError('pairs.type = "own_parent": refine.m is 0, so no response has a parent; raise it')
        if self.refine.feedback == "each" and not isinstance(self.judge, PanelJudge):
            raise ValueError('refine.feedback = "each": only a panel has several; use judge.type = "panel"')
        return self

    @property
    def dated(self) -> bool:
        """Whether a run needs a date: what it works on hangs on when it is."""
        return self.prompts.window == "since_last" or self.policy.start == "champion"

    @property
    def store_path(self) -> Path:
        """The DuckDB file of this home."""
        return self.home / "store.duckdb"


def load_config(path: Path | str, changes: Sequence[str] = ()) -> RunConfig:
    """Read a TOML file, then apply `changes`, each `dotted.key=value` with the value in TOML or as plain text.

    Raises ConfigError that lists every wrong key by its dotted path.
    """
    return parse_config(read_toml(path, changes), str(path))


def read_toml(path: Path | str, changes: Sequence[str] = ()) -> dict[str, Any]:
    """A TOML file as plain data, with `changes` applied. Raises ConfigError where it can't be read or changed."""
    try:
        data = tomllib.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"config {str(path)!r}: {error.strerror}; give the path of a run's TOML file") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"config {str(path)!r} is not TOML: {error}") from error
    return changed(data, changes)


def changed(data: dict[str, Any], changes: Sequence[str]) -> dict[str, Any]:
    """The data itself after `changes`, each `dotted.key=value`. Raises ConfigError for one that can't be applied."""
    for change in changes:
        _apply(data, change)
    return data


def parse_config(data: dict[str, Any], place: str) -> RunConfig:
    """Validate plain data. Raises ConfigError that lists every wrong key by its dotted path."""
    try:
        return RunConfig.model_validate(data)
    except ValidationError as error:
        raise explained(error, place) from error


def explained(error: ValidationError, place: str) -> ConfigError:
    """The error that lists every wrong key of a configuration by its dotted path."""
    lines = [_explain(problem) for problem in error.errors()]
    return ConfigError(f"config {place!r}:\n  " + "\n  ".join(lines))


def _apply(data: dict[str, Any], change: str) -> None:
    key, equals, text = change.partition("=")
    *tables, name = key.strip().split(".")
    if not equals or not all([*tables, name]):
        raise ConfigError(f"--set {change!r}: write it as dotted.key=value")
    try:
        value = tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        value = text.strip()
    for table in tables:
        data = data.setdefault(table, {})
        if not isinstance(data, dict):
            raise ConfigError(f"--set {change!r}: {table!r} is no table in this configuration")
    data[name] = value


def _explain(problem: Any) -> str:
    path = ".".join(str(part) for part in problem["loc"]) or "(top level)"
    if problem["type"] == "extra_forbidden":
        return f"{path}: unknown key (value {problem['input']!r}); remove it or check its spelling"
    message = problem["msg"].removeprefix("Value error, ")
    if problem["type"] in {"value_error", "missing"}:
        return f"{path}: {message}"
    return f"{path} = {problem['input']!r}: {message}"
