"""A run's configuration: TOML to frozen pydantic; unknown keys are refused with their dotted path.

What is here decides results or where they are kept. What a value invalidates is stated by the stage keys
(`rlrf/stages.py`): only what a stage reads is part of its key.
"""

from __future__ import annotations

import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from rlrf.errors import ConfigError
from rlrf.external import ExternalSource
from rlrf.records import Sampling
from rlrf.sources import Source

Share = Annotated[float, Field(ge=0.0, le=1.0)]


class Section(BaseModel):
    """Base of every section: frozen; a key that nobody knows is an error, and so is a number that is none."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Bootstrap(Section):
    """Make a tiny policy and its word problems here, where no model can be downloaded (files go to `home`/bootstrap)."""

    seed: int = 0
    prompts: int = Field(3000, ge=1, description="Word problems for the wheel to learn from and be held to")
    held_out: int = Field(1000, ge=1, description="Further word problems, held out for evaluation")
    steps: int = Field(1400, ge=1, description="Optimiser steps of its first training; fewer for a quick look")


class Policy(Section):
    """The policy that iteration 1 starts from: a Hugging Face folder or hub name, or one made here."""

    model: str | None = Field(None, description="Local folder or hub name of a chat model with safetensors weights")
    bootstrap: Bootstrap | None = None

    @model_validator(mode="after")
    def _one_origin(self) -> Policy:
        if (self.model is None) == (self.bootstrap is None):
            raise ValueError("give exactly one of `model` (a folder or hub name) and `bootstrap` (a table)")
        return self


class HeldOut(Section):
    """What evaluation asks and nothing else may read: files of its own, or a share of the prompts by content hash."""

    sources: tuple[Source, ...] = ()
    fraction: Share = 0.0
    limit: int | None = Field(None, ge=1, description="Evaluate on the first this many (in seeded order)")


class Prompts(Section):
    """Where prompts come from and how many an iteration takes."""

    sources: tuple[Source, ...] = ()
    system: str | None = Field(None, description="System prompt put before every chat that has none")
    held_out: HeldOut = HeldOut()
    near_duplicate: float = Field(
        0.9, gt=0, le=1, description="Word-shingle Jaccard similarity from which a prompt is a duplicate"
    )
    per_iteration: int | None = Field(None, ge=1, description="Prompts per iteration; all that are left when unset")
    reuse: bool = Field(False, description="Take the same prompts in every iteration instead of fresh ones")


class Sampled(Section):
    """How responses are drawn."""

    temperature: float = Field(1.0, ge=0.0, le=5.0)
    top_p: float = Field(1.0, gt=0.0, le=1.0)
    max_tokens: int = Field(512, ge=1)
    stop: tuple[str, ...] = ()

    def sampling(self) -> Sampling:
        """The same values as the record that backends take."""
        return Sampling(self.temperature, self.top_p, self.max_tokens, self.stop)


class Explore(Sampled):
    """n responses per prompt from the policy; 0 to use external responses alone."""

    n: int = Field(8, ge=0)


class Refine(Sampled):
    """m rewrites per promising response, from its feedback; 0 to go without reflection."""

    m: int = Field(4, ge=0)
    promising: Literal["best", "best_imperfect"] = Field(
        "best", description="The response to refine: highest score (the paper), or highest that isn't at the top"
    )


Dtype = Literal["auto", "float32", "bfloat16", "float16"]


class Auto(Section):
    """The best there is on this machine: vLLM where its environment is installed, transformers elsewhere."""

    type: Literal["auto"] = "auto"


class Engine(Section):
    """transformers in this process."""

    type: Literal["transformers"] = "transformers"
    device: Literal["auto", "cpu", "cuda"] = "auto"
    dtype: Dtype = "auto"
    batch_size: int = Field(256, ge=1, description="Responses generated together")


class Client(Section):
    """How a server is asked, our own or another's."""

    concurrency: int = Field(64, ge=1, description="Requests in flight per server at most; fewer while it pushes back")
    choices_per_request: int = Field(8, ge=1, description="Responses to one prompt that are asked for together")
    request_timeout: float = Field(600.0, gt=0, description="Seconds for one request, all retries excluded")
    stage_timeout: float | None = Field(None, gt=0, description="Seconds after which a stage's requests are given up")
    retries: int = Field(5, ge=0, description="Tries after the first for a request that went wrong")


class Vllm(Client):
    """A vLLM server that the run starts, shares between its stages and stops before training (`rlrf engine install`)."""

    type: Literal["vllm"]
    dtype: Dtype = Field("auto", description="auto: float32 on a CPU, vLLM's own choice on a GPU")
    max_model_len: int | None = Field(None, ge=16, description="Context in tokens; the model's own when unset")
    max_num_seqs: int = Field(256, ge=1, description="Responses generated together")
    gpu_memory_utilization: float = Field(0.9, gt=0, le=1, description="Share of each GPU's memory that it may take")
    kv_cache_gib: float = Field(0.5, gt=0, description="GiB of keys and values on a CPU; a GPU takes what is left")
    tensor_parallel_size: int = Field(1, ge=1, description="GPUs that one model is split over")
    start_timeout: float = Field(900.0, gt=0, description="Seconds until it must answer")
    stop_timeout: float = Field(60.0, gt=0, description="Seconds until what still runs is killed")
    restarts: int = Field(3, ge=0, description="Times that a server which died is started again, per stage")
    keep: bool | None = Field(
        None, description="Let it run while LoRA trains, which takes memory for both; on a CPU unless set"
    )
    extra_args: tuple[str, ...] = Field((), description="Further arguments of `vllm serve`, as they are")


class Endpoint(Client):
    """Servers of the starting policy that run elsewhere; any OpenAI-compatible API. A key is never stored."""

    type: Literal["endpoint"]
    base_url: str | tuple[str, ...] = Field(description="One address that ends in /v1, or those of several replicas")
    model: str = Field(description="The served model's name, checked before the first request")
    api_key_env: str | None = Field(None, description="Name of the environment variable that holds the key")
    api_key_secret: str | None = Field(None, description="Name of the Prefect Secret block that holds the key")
    local: Annotated[Auto | Engine | Vllm, Field(discriminator="type")] = Field(
        Auto(), description="The engine of policies that were trained here, and of every evaluation"
    )

    @property
    def base_urls(self) -> tuple[str, ...]:
        """All addresses."""
        return (self.base_url,) if isinstance(self.base_url, str) else self.base_url

    @model_validator(mode="after")
    def _plain(self) -> Endpoint:
        if not self.base_urls:
            raise ValueError("base_url: give at least one address")
        if self.api_key_env and self.api_key_secret:
            raise ValueError("give one of `api_key_env` and `api_key_secret`")
        return self


class Scripted(Section):
    """The shipped fake: replies come from a Python function `module:function`; for tests and dry runs."""

    type: Literal["scripted"]
    reply: str
    batch_size: int = Field(64, ge=1)


AnyEngine = Annotated[Auto | Engine | Vllm | Endpoint | Scripted, Field(discriminator="type")]


class MathJudge(Section):
    """The verifier: final answer, arithmetic of each step, completeness, conciseness. Needs references."""

    type: Literal["math"] = "math"
    reveal_values: bool = Field(True, description="Critiques state the right value of a wrong step")


class RubricJudge(Section):
    """A model that rates by a rubric file, comment first."""

    type: Literal["rubric"]
    rubric: str = Field("general", description="A shipped rubric's name, or a path to a TOML file")
    model: str | None = Field(None, description="Folder of the judge's weights for engine `transformers`")
    engine: AnyEngine
    sampling: Sampled = Sampled(temperature=0.0, max_tokens=1024)
    guided: bool = Field(False, description="The server enforces the reply's JSON schema; engines vllm and endpoint")

    @model_validator(mode="after")
    def _model_where_needed(self) -> RubricJudge:
        if isinstance(self.engine, Auto | Engine | Vllm) and self.model is None:
            raise ValueError(f"engine `{self.engine.type}` needs `model`, the folder of the judge's weights")
        if self.guided and not isinstance(self.engine, Vllm | Endpoint):
            raise ValueError(f"guided: engine `{self.engine.type}` can't enforce a schema; use vllm or endpoint")
        return self


AnyJudge = Annotated[MathJudge | RubricJudge, Field(discriminator="type")]


class Pairs(Section):
    """The paper's rule: chosen from the fully successful by score, rejected at random from the rest."""

    k: int = Field(1, ge=1, description="Pairs per prompt at most")
    min_pairs: int = Field(32, ge=1, description="Fewer pairs than this stop the run before any training")


class Lora(Section):
    """A low-rank adapter (Hu et al. 2021); the result is merged into a full folder, the adapter kept beside it.

    The adapter of a policy that was itself trained with the same r, alpha and target_modules is trained on.
    """

    r: int = Field(16, ge=1)
    alpha: int = Field(32, ge=1)
    dropout: float = Field(0.0, ge=0.0, lt=1.0)
    target_modules: tuple[str, ...] | Literal["all-linear"] = "all-linear"
    quantize: Literal["4bit"] | None = Field(None, description="QLoRA: the frozen weights in 4 bits (rlrf[qlora])")


class Health(Section):
    """Signs of a training that does no good; one of them stops it with the reason. 0 switches a rule off."""

    flat_steps: int = Field(100, ge=0, description="Steps in a row that DPO's loss may stay at ln 2")
    max_chosen_drop: float = Field(
        1.0, ge=0, description="Nats per token that the chosen's log-probability may fall below the reference's"
    )
    max_length_ratio: float = Field(3.0, ge=0, description="Mean tokens of the chosen against the rejected at most")


class Train(Section):
    """One fine-tuning of the policy on the pairs; the reference is the policy it starts from."""

    method: Literal["dpo", "rs"] = Field("dpo", description="dpo, or the paper's RS: SFT on the chosen alone")
    learning_rate: float = Field(2e-6, gt=0)
    epochs: float = Field(1.0, gt=0)
    batch_size: int = Field(16, ge=1, description="Pairs per optimiser step and device")
    gradient_accumulation: int = Field(1, ge=1)
    beta: float = Field(0.1, gt=0)
    sft_weight: float = Field(0.0, ge=0, description="Weight of the NLL of the chosen beside the DPO loss; 0 = paper")
    warmup_ratio: float = Field(0.1, ge=0, le=1)
    max_length: int = Field(
        1024, ge=8, description="Tokens of prompt and response; longer pairs are set aside, counted"
    )
    lora: Lora | None = None
    precision: Literal["auto", "float32", "bfloat16"] = Field("auto", description="auto: bfloat16 on a GPU")
    gradient_checkpointing: bool | None = Field(None, description="Memory for time; on a GPU unless set")
    accelerate_config: Path | None = Field(
        None, description="File of `accelerate config`: several GPUs, FSDP, DeepSpeed; batch_size is then per process"
    )
    report_to: tuple[str, ...] = Field((), description="trl's report_to, such as tensorboard or wandb")
    health: Health = Health()
    save_every: int = Field(50, ge=1, description="Steps between checkpoints: what a kill costs at most")


class Evaluate(Sampled):
    """Greedy answers to the held-out prompts; accuracy is the share at the top level of one aspect."""

    temperature: float = 0.0
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


class Limits(Section):
    """Shares over which a stage stops the run instead of going on with bad data."""

    failed: Share = Field(0.05, description="Requests that yielded no response")
    unrated: Share = Field(0.5, description="Judged responses without a rating, truncated ones included")


class RunConfig(Section):
    """Everything that one flywheel run is told."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$")
    home: Path = Field(description="Folder for the store, models and report")
    seed: int = 0
    iterations: int = Field(2, ge=1, le=100)
    policy: Policy
    prompts: Prompts = Prompts()
    external: tuple[ExternalSource, ...] = ()
    engine: AnyEngine = Auto()
    explore: Explore = Explore()
    judge: AnyJudge = MathJudge()
    refine: Refine = Refine()
    pairs: Pairs = Pairs()
    train: Train = Train()
    evaluate: Evaluate = Evaluate()
    gate: Gate = Gate()
    limits: Limits = Limits()

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
        return self

    @property
    def store_path(self) -> Path:
        """The DuckDB file of this home."""
        return self.home / "store.duckdb"


def load_config(path: Path | str, changes: Sequence[str] = ()) -> RunConfig:
    """Read a TOML file, then apply `changes`, each `dotted.key=value` with the value in TOML or as plain text.

    Raises ConfigError that lists every wrong key by its dotted path.
    """
    try:
        data = tomllib.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"config {str(path)!r}: {error.strerror}; give the path of a run's TOML file") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"config {str(path)!r} is not TOML: {error}") from error
    for change in changes:
        _apply(data, change)
    return parse_config(data, str(path))


def parse_config(data: dict[str, Any], place: str) -> RunConfig:
    """Validate plain data. Raises ConfigError that lists every wrong key by its dotted path."""
    try:
        return RunConfig.model_validate(data)
    except ValidationError as error:
        lines = [_explain(problem) for problem in error.errors()]
        raise ConfigError(f"config {place!r}:\n  " + "\n  ".join(lines)) from error


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
