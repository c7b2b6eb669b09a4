"""Logs of real starts that failed, cut short, and what is said of them."""

from __future__ import annotations

from pathlib import Path

import pytest

from rlrf.backends.engine.reasons import LONGEST, explain

LOGS = Path(__file__).parent / "engine_logs"


def log(name: str) -> str:
    return (LOGS / f"{name}.txt").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("kv_cache_too_large", ("10000.0 GiB", "7.44 GiB", "engine.kv_cache_gib")),
        ("no_cache_blocks", ("no memory is left", "engine.kv_cache_gib", "engine.gpu_memory_utilization")),
        ("one_request_too_long", ("1024 tokens", "engine.max_model_len", "engine.kv_cache_gib")),
        ("max_model_len", ("engine.max_model_len = 1000000", "1024")),
        ("head_size", ("head size", '"transformers"')),
        ("unknown_architecture", ("'GrandioseForCausalLM'", '"transformers"')),
        ("unknown_model_type", ("'grandiose'", "RLRF_ENGINE")),
        ("unknown_argument", ("'--no-such-argument'", "engine.extra_args")),
        ("wrong_value", ("--block-size", "'many'", "engine.extra_args")),
        ("tensor_parallel", ("engine.tensor_parallel_size = 3", "4 attention heads")),
    ],
)
def test_a_known_fault_names_the_value_and_the_key_to_change(name: str, words: tuple[str, ...]) -> None:
    said = explain(log(name), 1)
    assert all(word in said for word in words), said


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("missing_file", "The supplied chat template string (/nowhere/x.jinja) appears path-like, but doesn't exist"),
        ("no_tokenizer", "(2) a slow tokenizer instance to convert"),
        ("batched_tokens", "max_num_batched_tokens (8) must be greater than or equal to max_num_seqs (256)."),
    ],
)
def test_an_unknown_fault_is_the_engines_own_last_exception(name: str, words: str) -> None:
    assert words in explain(log(name), 1)


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("OSError: [Errno 98] Address already in use", ("port",)),
        (
            "ValueError: Free memory on device cuda:0 (3.21/139.80 GiB) on startup is less than desired GPU memory "
            "utilization (0.9, 125.82 GiB). Decrease GPU memory utilization or reduce GPU memory used by other processes.",
            ("3.21 of 139.80 GiB", "cuda:0", "engine.gpu_memory_utilization"),
        ),
        (
            "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 8 GiB",
            ("engine.tensor_parallel_size", "engine.max_num_seqs"),
        ),
        (
            "ValueError: World size (4) is larger than the number of available GPUs (1) in this node. If this is",
            ("engine.tensor_parallel_size = 4", "1 GPUs"),
        ),
        ("ValueError: LoRA rank 64 is greater than max_lora_rank 16.", ("rank 64", "16")),
        ("ValueError: MambaForCausalLM does not support LoRA yet.", ("MambaForCausalLM", "[train.lora]")),
        ("torch._inductor.exc.InvalidCxxCompiler: No working C++ compiler found in cpp.cxx", ("g++",)),
        ("RuntimeError: Failed to find C compiler. Please specify via CC environment variable.", ("g++",)),
        ("ModuleNotFoundError: No module named 'vllm'", ("'vllm'", "rlrf engine install")),
        ("RuntimeError: No CUDA GPUs are available", ("rlrf doctor",)),
        ("OSError: [Errno 28] No space left on device", ("disk is full",)),
    ],
)
def test_what_only_other_machines_say(line: str, words: tuple[str, ...]) -> None:
    """Spelt as the sources of vLLM 0.32, torch and Python spell them."""
    said = explain(f"(EngineCore pid=7) ERROR 11-24 01:08:51 [core.py:1510] {line}\n{line}\n", 1)
    assert all(word in said for word in words), said


def test_a_warning_is_no_reason() -> None:
    said = explain("WARNING 11-24 [x.py:1] No module named 'flash_attn'\nValueError: too bad\n", 1)
    assert said == "ValueError: too bad"


def test_an_exception_that_only_points_to_another_is_no_reason() -> None:
    ends = "RuntimeError: Engine core initialization failed. See root cause above. Failed core proc(s): {}\n"
    assert explain("ValueError: the cause\n" + ends, 1) == "ValueError: the cause"


def test_endless_words_are_cut() -> None:
    assert len(explain("ValueError: " + "x" * 10_000, 1)) == LONGEST


@pytest.mark.parametrize(
    ("code", "words"),
    [
        (137, "SIGKILL, by the system where memory ran out"),
        (135, "/dev/shm"),
        (139, "SIGSEGV"),
        (3, "exit code is 3"),
        (None, "names no error"),
    ],
)
def test_a_log_without_an_error_leaves_the_exit_code(code: int | None, words: str) -> None:
    assert words in explain("INFO 11-24 all is well\n", code)
