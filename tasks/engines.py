"""Engines for stages: which one answers for a policy, and when the shared server goes."""

from __future__ import annotations

from pathlib import Path

from rlrf.backends.engine.env import has_cuda
from rlrf.backends.opening import Opening, open_generator, stop_engine
from rlrf.backends.protocols import Generator
from rlrf.engine_config import AnyEngine, Endpoint, Vllm
from rlrf.errors import ConfigError
from rlrf.handles import Policy
from tasks.models import check_digest
from tasks.stage import Stage


def open_policy(stage: Stage, policy: Policy, engine: AnyEngine | None = None) -> Generator:
    """A generator that answers as this policy; `engine` is the policy's own, the run's when left out.

    Endpoints elsewhere hold the starting policy alone: one that was trained here is served here, by `engine.local`.
    Raises BackendError where its folder holds other weights than the policy's.
    """
    engine = engine or stage.config.engine
    if isinstance(engine, Endpoint) and policy.served_as is None:
        engine = engine.local
    if policy.folder and not isinstance(engine, Endpoint):
        check_digest(policy)
    return open_engine(stage, engine, policy.folder)


def open_engine(stage: Stage, engine: AnyEngine, folder: str | Path) -> Generator:
    """A generator for the model in `folder`."""
    lora = stage.config.train.lora
    opening = Opening(
        logs=stage.config.home / "engines",
        lora_rank=lora.r if lora else None,
        say=stage.progress.say,
        secret=read_secret,
    )
    return open_generator(engine, folder, opening)


def give_back(stage: Stage) -> None:
    """Stop the shared server before a training and wait until its memory is free; does nothing where none runs.

    LoRA leaves the weights that it serves as they are, so that it may stay where there is memory for both.
    """
    engine = stage.config.engine
    if (
        stage.config.train.lora
        and isinstance(engine, Vllm)
        and (not has_cuda() if engine.keep is None else engine.keep)
    ):
        return
    stop_engine(stage.progress.say)


def read_secret(name: str) -> str:
    """The value of a Prefect Secret block. Raises ConfigError where there is none."""
    from prefect.blocks.system import Secret

    try:
        return str(Secret.load(name).get())  # type: ignore[union-attr]  # a sync call gives the block itself
    except ValueError as error:
        raise ConfigError(
            f"api_key_secret = {name!r}: no such Prefect Secret block; make it, or use api_key_env"
        ) from error
