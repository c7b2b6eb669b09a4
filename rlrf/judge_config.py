"""The configuration's judges: who rates responses, on which aspects, and how several verdicts become one."""

from __future__ import annotations

from collections.abc import Callable, Collection
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from rlrf.engine_config import AnyEngine, Auto, Endpoint, Engine, Vllm
from rlrf.records import Sampling
from rlrf.sections import Section

Name = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]{0,39}$")]


class Sampled(Section):
    """How text is drawn."""

    temperature: float = Field(1.0, ge=0.0, le=5.0, description="0 is greedy")
    top_p: float = Field(1.0, gt=0.0, le=1.0, description="Share of the likeliest tokens to draw from")
    max_tokens: int = Field(512, ge=1, description="Longer responses are cut off, counted, and in no pair")
    stop: tuple[str, ...] = Field((), description="Texts at which a response ends")

    def sampling(self) -> Sampling:
        """The same values as the record that backends take."""
        return Sampling(self.temperature, self.top_p, self.max_tokens, self.stop)


class MathJudge(Section):
    """The verifier: final answer, arithmetic of each step, completeness, conciseness. Needs references."""

    type: Literal["math"] = "math"
    reveal_values: bool = Field(True, description="Critiques state the right value of a wrong step")


class ChoiceJudge(Section):
    """Multiple choice: the letter that the response settles on against the reference's."""

    type: Literal["multiple_choice"]
    letters: str = Field("ABCDE", pattern=r"^[A-Z]{2,26}$", description="The letters that an answer may be")


class MatchJudge(Section):
    """The whole response (or its last line) against a text, a regular expression or a JSON schema."""

    type: Literal["match"]
    rule: Literal["exact", "regex", "json_schema"] = Field(
        "exact", description="What a right answer does to the reference"
    )
    pattern: str | None = Field(None, description="What to match, for all prompts; each prompt's reference when unset")
    ignore_case: bool = Field(False, description="Case makes no difference; exact and regex")
    part: Literal["all", "last_line"] = Field("all", description="What of the response is matched")

    @model_validator(mode="after")
    def _case(self) -> MatchJudge:
        if self.ignore_case and self.rule == "json_schema":
            raise ValueError("ignore_case: a JSON schema has no use for it; remove it")
        return self


class FunctionJudge(Section):
    """A Python function that a user writes: `rate(messages, response, reference, metadata) -> {aspect: rating}`."""

    type: Literal["python"]
    function: str = Field(description="`package.module:function`, or `folder/file.py:function`")
    aspects: tuple[Name, ...] = Field(min_length=1, description="The aspects that it rates, in this order")
    low: float = Field(-1, allow_inf_nan=False, description="The lowest rating")
    high: float = Field(1, allow_inf_nan=False, description="The highest rating, which counts as success")

    @model_validator(mode="after")
    def _ordered(self) -> FunctionJudge:
        if self.low >= self.high:
            raise ValueError(f"low = {self.low!r} must be below high = {self.high!r}")
        if len(set(self.aspects)) < len(self.aspects):
            raise ValueError(f"aspects {list(self.aspects)!r}: give every aspect its own name")
        return self


class RewardJudge(Section):
    """A sequence-classification model with one output, in this process or behind vLLM's pooling API. It writes no critique."""

    type: Literal["reward"]
    model: str | None = Field(None, description="Folder or hub name of the reward model, to be loaded here")
    endpoint: Endpoint | None = Field(None, description="A server that has it; ends in /v1 like every other")
    device: Literal["auto", "cpu", "cuda"] = Field(
        "auto", description="Where it computes; auto: a GPU where there is one"
    )
    batch_size: int = Field(32, ge=1, description="Responses scored together")
    max_length: int | None = Field(None, ge=16, description="Tokens of chat and response; the model's own when unset")

    @model_validator(mode="after")
    def _one_place(self) -> RewardJudge:
        if (self.model is None) == (self.endpoint is None):
            raise ValueError("give exactly one of `model` (a folder or hub name) and `endpoint` (a table)")
        return self


class RubricJudge(Section):
    """A model that rates by a rubric file, comment first."""

    type: Literal["rubric"]
    rubric: str = Field("general", description="A shipped rubric's name, or a path to a TOML file")
    model: str | None = Field(None, description="Folder of the judge's weights, where an engine here is to load them")
    policy: Literal["first", "current"] | None = Field(
        None, description="The policy is its own judge: as the run found it (the paper), or as each iteration finds it"
    )
    engine: AnyEngine = Field(Auto(), description="Who generates its replies")
    sampling: Sampled = Sampled(temperature=0.0, max_tokens=1024)
    guided: bool = Field(False, description="The server enforces the reply's JSON schema; engines vllm and endpoint")
    calls: Literal["together", "each"] = Field("together", description="One call for all aspects, or one per aspect")
    aspects: Literal["all", "task", "prompt", "call"] = Field(
        "all",
        description="Which aspects count: all of the rubric; those of the prompt's task; those that the judge names once "
        "per prompt; those that it names in every call (the paper)",
    )
    choose: int = Field(3, ge=1, description="How many aspects the judge names")
    task: str = Field("task", description="The metadata column that holds a prompt's task")
    tasks: dict[str, tuple[Name, ...]] = Field({}, description="Aspects per task; a task that isn't named takes all")
    retries: int = Field(
        2, ge=0, le=10, description="Times that an unreadable reply is asked for again, with more tokens"
    )
    comment_chars: int = Field(400, ge=20, description="The longest comment that an enforced schema allows")
    repeat: int = Field(0, ge=0, description="Which of several independent verdicts")
    reverse: bool = Field(False, description="Ask for the aspects in reverse order")

    @model_validator(mode="after")
    def _consistent(self) -> RubricJudge:
        if self.policy is not None and self.model is not None:
            raise ValueError("give one of `model` and `policy`")
        if isinstance(self.engine, Engine | Vllm) and self.model is None and self.policy is None:
            raise ValueError(
                f"engine `{self.engine.type}` needs `model`, the folder of the judge's weights, or `policy`"
            )
        if isinstance(self.engine, Auto) and self.model is None and self.policy is None:
            raise ValueError("give `model`, the folder of the judge's weights, or `policy`, or an engine that has them")
        if self.guided and not isinstance(self.engine, Vllm | Endpoint):
            raise ValueError(f"guided: engine `{self.engine.type}` can't enforce a schema; use vllm or endpoint")
        if (self.aspects == "task") != bool(self.tasks):
            raise ValueError('aspects = "task" and the table `tasks` belong together: give both or neither')
        if self.calls == "each" and self.aspects == "call":
            raise ValueError(
                'calls = "each" asks about one aspect, aspects = "call" lets the judge name several: choose one'
            )
        return self


class RecordedJudge(Section):
    """Raw replies that a judge gave elsewhere, read by a rubric; a response without a reply is unrated."""

    type: Literal["recorded"]
    path: Path = Field(description="A file of replies: .jsonl, .json, .csv or .parquet")
    rubric: str = Field("general", description="A shipped rubric's name, or a path to a TOML file")
    prompt: str = Field("prompt", description="The column with the prompt's last message")
    response: str = Field("response", description="The column with the response")
    reply: str = Field("judge_reply", description="The column with the judge's raw reply")


SingleJudge = Annotated[
    MathJudge | ChoiceJudge | MatchJudge | FunctionJudge | RewardJudge | RubricJudge | RecordedJudge,
    Field(discriminator="type"),
]


class PanelJudge(Section):
    """Several judges on every response; each verdict is kept, and one is merged from them."""

    type: Literal["panel"]
    judges: tuple[SingleJudge, ...] = Field(min_length=2, description="Its members")
    merge: Literal["mean", "median", "min", "majority"] = Field(
        "median", description="How ratings of one aspect become one"
    )
    quorum: int | None = Field(
        None, ge=1, description="Ratings that an aspect needs; all judges that rate it when unset"
    )

    @model_validator(mode="after")
    def _no_rewards(self) -> PanelJudge:
        if any(isinstance(judge, RewardJudge) for judge in self.judges):
            raise ValueError("judges: a reward has no levels to merge; name the reward model in [reward]")
        return self


AnyJudge = Annotated[
    MathJudge | ChoiceJudge | MatchJudge | FunctionJudge | RewardJudge | RubricJudge | RecordedJudge | PanelJudge,
    Field(discriminator="type"),
]
JudgeConfig = (
    MathJudge | ChoiceJudge | MatchJudge | FunctionJudge | RewardJudge | RubricJudge | RecordedJudge | PanelJudge
)


class JudgeHealth(Section):
    """How far a judge agrees with itself, on a seeded sample of what it judges; verifiers need no such question."""

    sample: int = Field(
        0, ge=0, description="Responses per iteration that are judged once more, and with aspects reversed"
    )


def named(judge: JudgeConfig) -> str:
    """A judge in words, for people."""
    if isinstance(judge, RubricJudge):
        return f"rubric {judge.rubric}"
    if isinstance(judge, RecordedJudge):
        return f"recorded replies in {judge.path.name}"
    if isinstance(judge, FunctionJudge):
        return judge.function.rsplit("/", 1)[-1]
    return f"{judge.merge} of {len(judge.judges)} judges" if isinstance(judge, PanelJudge) else judge.type


def repeats_of(judge: JudgeConfig) -> list[RubricJudge]:
    """The same judges once more, and with the aspects in reverse order; none for judges that can't but agree."""
    parts: tuple[Any, ...] = judge.judges if isinstance(judge, PanelJudge) else (judge,)
    models = [part for part in parts if isinstance(part, RubricJudge)]
    return [
        *(model.model_copy(update={"repeat": model.repeat + 1}) for model in models),
        *(model.model_copy(update={"reverse": not model.reverse}) for model in models if model.calls == "together"),
    ]


def decided_by(judge: JudgeConfig, folder: str, whose: Collection[str]) -> JudgeConfig:
    """The judge with the weights in `folder` where it is the policy itself (`whose`: first, current)."""
    if isinstance(judge, PanelJudge):
        return judge.model_copy(update={"judges": tuple(decided_by(part, folder, whose) for part in judge.judges)})
    if isinstance(judge, RubricJudge) and judge.policy in whose:
        return judge.model_copy(update={"policy": None, "model": folder})
    return judge


def engines_of(judge: JudgeConfig) -> list[AnyEngine]:
    """Every engine that the judge asks."""
    if isinstance(judge, PanelJudge):
        return [engine for part in judge.judges for engine in engines_of(part)]
    if isinstance(judge, RewardJudge):
        return [judge.endpoint] if judge.endpoint else []
    return [judge.engine] if isinstance(judge, RubricJudge) else []


def with_engines(judge: JudgeConfig, resolve: Callable[[AnyEngine], AnyEngine]) -> JudgeConfig:
    """The judge with every engine resolved."""
    if isinstance(judge, PanelJudge):
        return judge.model_copy(update={"judges": tuple(with_engines(part, resolve) for part in judge.judges)})
    return judge.model_copy(update={"engine": resolve(judge.engine)}) if isinstance(judge, RubricJudge) else judge
