"""From configuration to a backend. What a backend imports is imported when it is opened, not before."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path

from rlrf.backends.engine.env import find_engine, has_cuda
from rlrf.backends.protocols import Generator, Scorer
from rlrf.backends.weights import resolve_model
from rlrf.engine_config import AnyEngine, Auto, Endpoint, Engine, Scripted, Vllm
from rlrf.errors import BackendError, ConfigError
from rlrf.judge_config import RewardJudge


@dataclass(frozen=True)
class Opening:
    """What opening an engine takes beside its configuration.

    Attributes:
        logs: folder for the logs of servers that are started.
        lora_rank: the highest rank of the adapters that will be served, None for none.
        say: where a line for people goes.
        secret: reads a named secret of the scheduler's; the backends know nothing of it.
    """

    logs: Path
    lora_rank: int | None
    say: Callable[[str], None]
    secret: Callable[[str], str]


def resolve(engine: AnyEngine) -> Engine | Vllm | Endpoint | Scripted:
    """The engine that `auto` stands for on this machine; any other as it is.

    A vLLM for CPUs beside a GPU is not the best there is: transformers on the GPU is faster. Raises ConfigError where
    vllm is asked for and isn't installed.
    """
    if isinstance(engine, Auto):
        found = find_engine()
        return Vllm(type="vllm") if found and found.for_gpu == has_cuda() else Engine()
    if isinstance(engine, Vllm) and find_engine() is None:
        raise ConfigError('engine.type = "vllm": no vLLM environment; run `rlrf engine install` (or `make engine`)')
    return engine


def described(engine: AnyEngine) -> str:
    """An engine in words, for people."""
    if isinstance(engine, Vllm):
        found = find_engine()
        return f"vLLM {found.version} ({found.package})" if found else "vLLM (not installed)"
    if isinstance(engine, Endpoint):
        return f"{engine.model!r} at {len(engine.base_urls)} endpoint(s)"
    return engine.type


def open_generator(engine: AnyEngine, folder: str | Path, opening: Opening) -> Generator:
    """A generator of the engine's type for the model in `folder`. Raises BackendError when it can't be opened."""
    engine = resolve(engine)
    if isinstance(engine, Endpoint):
        return _open_endpoint(engine, opening)
    if isinstance(engine, Vllm):
        from rlrf.backends.engine.generator import open_vllm
        from rlrf.backends.engine.pool import pool

        return open_vllm(pool, engine, Path(folder), lora_rank=opening.lora_rank, logs=opening.logs, say=opening.say)
    if isinstance(engine, Scripted):
        from rlrf.backends.scripted import ScriptedGenerator

        return ScriptedGenerator(_function(engine.reply), batch_size=engine.batch_size)
    from rlrf.backends.local import LocalGenerator

    return LocalGenerator(folder, device=engine.device, dtype=engine.dtype, batch_size=engine.batch_size)


def open_scorer(judge: RewardJudge, secret: Callable[[str], str]) -> Scorer:
    """The reward model of a judge; `secret` as in `Opening`. Raises BackendError when it can't be opened."""
    if judge.endpoint is not None:
        from rlrf.backends.reward.endpoint import EndpointScorer

        endpoint = judge.endpoint
        return EndpointScorer(endpoint.base_urls, endpoint.model, endpoint, key=_key(endpoint, secret))
    from rlrf.backends.reward.local import LocalScorer

    assert judge.model is not None, "the configuration was validated"
    return LocalScorer(resolve_model(judge.model), device=judge.device, batch_size=judge.batch_size)


def stop_engine(say: Callable[[str], None]) -> None:
    """Stop the server that the stages share, if one runs: training needs its memory, and a run leaves none behind."""
    from rlrf.backends.engine.pool import pool

    pool.stop(say)


def _open_endpoint(engine: Endpoint, opening: Opening) -> Generator:
    from rlrf.backends.endpoint.generator import EndpointGenerator

    return EndpointGenerator(engine.base_urls, engine.model, engine, key=_key(engine, opening.secret))


def _key(engine: Endpoint, secret: Callable[[str], str]) -> str | None:
    """The API key, from where the configuration says."""
    from rlrf.backends.endpoint.settings import read_key

    if engine.api_key_env:
        return read_key(engine.api_key_env, engine.base_urls[0])
    return secret(engine.api_key_secret) if engine.api_key_secret else None


def _function(name: str):  # type: ignore[no-untyped-def]  # the reply's type is ScriptedGenerator's business
    module, _, attribute = name.partition(":")
    try:
        return getattr(import_module(module), attribute)
    except (ImportError, AttributeError, ValueError) as error:
        raise BackendError(f"engine.reply = {name!r}: {error}; write it as `package.module:function`") from error
