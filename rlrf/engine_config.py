"""The configuration's engines: who computes responses, and how a server is asked."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from rlrf.sections import Section

Dtype = Literal["auto", "float32", "bfloat16", "float16"]


class Auto(Section):
    """The best there is on this machine: vLLM where its environment is installed, transformers elsewhere."""

    type: Literal["auto"] = "auto"


class Engine(Section):
    """transformers in this process."""

    type: Literal["transformers"] = "transformers"
    device: Literal["auto", "cpu", "cuda"] = Field(
        "auto", description="Where it computes; auto: a GPU where there is one"
    )
    dtype: Dtype = Field("auto", description="Of the weights; auto: float32 on a CPU, bfloat16 on a GPU")
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
    reply: str = Field(description="`package.module:function` that answers a request")
    batch_size: int = Field(64, ge=1, description="Responses generated together")


AnyEngine = Annotated[Auto | Engine | Vllm | Endpoint | Scripted, Field(discriminator="type")]
