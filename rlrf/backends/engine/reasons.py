"""Why a vLLM server didn't start or died, from its log: a sentence with the key to change, else its own last words."""

from __future__ import annotations

import re
import signal
from contextlib import suppress
from itertools import takewhile
from pathlib import Path

PORT_TAKEN = "Address already in use"
MOST_BYTES = 2**19
LONGEST_LINE = 2000
LONGEST = 600
"""Characters of the engine's own words that are shown; the log has all of them."""

KNOWN: tuple[tuple[str, str], ...] = (
    (PORT_TAKEN, "its port was taken by another process; run again"),
    (
        r"\((?P<free>[\d.]+)/[\d.]+ GiB\) on kv cache allocation is less than requested memory for kv \((?P<wanted>[\d.]+)",
        "its keys and values would take {wanted} GiB and {free} GiB of memory are free; lower engine.kv_cache_gib",
    ),
    (
        r"max seq len \((?P<length>\d+)\), \((?P<wanted>[\d.]+) GiB KV cache is needed.*?memory \((?P<there>[\d.]+) GiB",
        "one request of {length} tokens takes {wanted} GiB of keys and values and there are {there} GiB; lower "
        "engine.max_model_len, or raise engine.kv_cache_gib (on a CPU) or engine.gpu_memory_utilization (on a GPU)",
    ),
    (
        r"No available memory for the cache blocks",
        "no memory is left for keys and values; raise engine.kv_cache_gib (on a CPU) or engine.gpu_memory_utilization "
        "(on a GPU), or lower engine.max_model_len",
    ),
    (
        r"Free memory on device (?P<device>\S+) \((?P<free>[\d.]+)/(?P<all>[\d.]+) GiB\) on startup is less",
        "{free} of {all} GiB are free on GPU {device}, less than engine.gpu_memory_utilization asks for; end what else "
        "uses the GPU (nvidia-smi shows it), or lower engine.gpu_memory_utilization",
    ),
    (
        r"CUDA out of memory|torch\.OutOfMemoryError",
        "the GPU's memory doesn't suffice; lower engine.max_num_seqs or engine.max_model_len, raise "
        "engine.gpu_memory_utilization if something is free, or split the model with engine.tensor_parallel_size",
    ),
    (
        r"max_model_len \((?P<wanted>\d+)\) is greater than the derived max_model_len \(\w+=(?P<most>\d+)",
        "engine.max_model_len = {wanted} is more than the model's {most} tokens; lower it",
    ),
    (
        r"Model architectures \[(?P<name>.*?)\] are not supported",
        'it doesn\'t know the architecture {name}; use engine.type = "transformers" for this model',
    ),
    (
        r"has model type `(?P<name>.*?)` but Transformers does not recognize",
        "its transformers doesn't know the model type {name!r}; serve a model that it knows, or name an environment with "
        "a newer vllm by RLRF_ENGINE",
    ),
    (
        r"[Hh]ead[_ ]size(?: (?P<size>\d+))?.{0,40}not supported|Unsupported .{0,40}head_dim=\d+",
        'its attention has no kernel for the model\'s head size; use engine.type = "transformers" for this model',
    ),
    (r"error: unrecognized arguments: (?P<words>.*)", "it doesn't know {words!r}; correct engine.extra_args"),
    (r"error: argument (?P<name>\S+): (?P<words>.*)", "argument {name}: {words}; correct engine.extra_args"),
    (
        r"World size \((?P<wanted>\d+)\) is larger than the number of available GPUs \((?P<there>\d+)\)",
        "engine.tensor_parallel_size = {wanted} and there are {there} GPUs; lower it",
    ),
    (
        r"attention heads \((?P<heads>\d+)\) must be divisible by tensor parallel size \((?P<wanted>\d+)\)",
        "engine.tensor_parallel_size = {wanted} doesn't divide the model's {heads} attention heads; choose one that does",
    ),
    (
        r"Not enough allowed NUMA nodes",
        "on a CPU engine.tensor_parallel_size needs as many NUMA nodes; lower it to 1",
    ),
    (
        r"(?P<name>\w+) does not support LoRA yet",
        'it serves no adapters for {name}; take [train.lora] out, or use engine.type = "transformers"',
    ),
    (
        r"LoRA rank (?P<rank>\d+) is greater than max_lora_rank (?P<most>\d+)",
        "the adapter's rank {rank} is more than the {most} that it was started for; set train.lora.r to it",
    ),
    (
        r"InvalidCxxCompiler|No working C\+\+ compiler|Failed to find C compiler|CalledProcessError.*(?:gcc|g\+\+|clang)",
        "it needs a C++ compiler to build kernels and finds none; install g++",
    ),
    (
        r"No CUDA GPUs are available|Failed to infer device type|no CUDA-capable device|driver on your system is too old",
        "it finds no GPU that it can use; see `rlrf doctor`",
    ),
    (
        r"No module named '(?P<name>[^']*)'",
        "its environment lacks the package {name!r}; run `rlrf engine install`",
    ),
    (r"No space left on device", "the disk is full: temporary files, logs and /dev/shm need room"),
)
"""What its log says, and what that means here; the first that is found counts."""

_PREFIX = re.compile(r"^\(\w[^()]* pid=\d+\) (?:[A-Z]+ [\d-]+ [\d:]+ \[[^\]]*\] ?)?", re.MULTILINE)
_RAISED = re.compile(r"(?:[\w.]*(?:Error|Exception|Interrupt|Exit)|(?:\w+\.)+[A-Z]\w*)(?:: .*)?|[\w.]+: error: .*")
_EMPTY = ("Engine core initialization failed", "EngineCore encountered an issue", "WorkerProc initialization failed")
"""Exceptions that only say that there was another one."""


def read_log(path: Path) -> str:
    """The end of a log, as much as can hold a reason."""
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - MOST_BYTES))
        return file.read().decode("utf-8", errors="replace")


def explain(log: str, code: int | None) -> str:
    """A sentence, or the last exception of the log, or how the process ended; `code` is 128 + n for signal n."""
    raised = _exceptions([line[:LONGEST_LINE] for line in _PREFIX.sub("", log).splitlines()])
    for words in reversed(raised):
        for pattern, meaning in KNOWN:
            if found := re.search(pattern, words):
                return meaning.format(**{name: (text or "").strip() for name, text in found.groupdict().items()})
    return raised[-1][:LONGEST] if raised else _ending(code)


def _exceptions(lines: list[str]) -> list[str]:
    """What was raised, in order, each in one line, without those that say nothing."""
    found = []
    for number, line in enumerate(lines):
        if _RAISED.fullmatch(line) and not any(empty in line for empty in _EMPTY):
            rest = [more for more in lines[number + 1 : number + 5] if "For further" not in more]
            if not line.rstrip().endswith(":"):
                rest = list(takewhile(lambda more: more.startswith("  "), rest))
            words = " ".join([line.strip(), *(more.strip() for more in rest)])
            words = re.sub(r" \[type=\w+, input_value=.*", "", words)
            found.append(re.sub(r"^\S+ValidationError: .*? Value error, ", "", words))
    return found


def _ending(code: int | None) -> str:
    if code == 128 + signal.SIGKILL:
        return "it was killed by SIGKILL, by the system where memory ran out, or by somebody"
    if code == 128 + signal.SIGBUS:
        return "it was killed by SIGBUS: /dev/shm is too small; give the container more (--shm-size=8g)"
    if code is not None and code > 128:
        with suppress(ValueError):
            return f"it was killed by {signal.Signals(code - 128).name}"
    return "its log names no error" + ("" if code is None else f", and its exit code is {code}")
