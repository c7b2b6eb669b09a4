"""What a vLLM server is started with: its arguments and its environment. Secrets travel in neither argument nor log."""

from __future__ import annotations

import getpass
import os
import re
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from rlrf.backends.engine.env import EngineEnv
from rlrf.engine_config import Vllm
from rlrf.errors import BackendError

ENTRY = "vllm.entrypoints.launchers.api_server.entry"
"""The module behind `vllm serve`; the command itself is broken in the package for CPUs."""
HOST = "127.0.0.1"
DRAIN_SECONDS = 5
"""What requests in flight get when the server is asked to stop; by then nobody waits for them."""
LORA_RANKS = (1, 8, 16, 32, 64, 128, 256, 320, 512)
"""The ranks that vLLM can be started for; an adapter's may be lower."""

OURS = {
    "--api-key": "it would be seen in the process table, and the run makes its own",
    "--host": "the server is the run's own and stays on this machine",
    "--port": "a free one is taken",
    "--uds": "a free port is taken",
    "--model": "it is the policy's or the judge's",
    "--served-model-name": "the run asks for the name that it gave",
    "--trust-remote-code": "no code of a model is run",
    "--config": "give the arguments themselves",
}
"""Arguments that `extra_args` can't change, with the reason."""

OFFLINE = {
    "VLLM_NO_USAGE_STATS": "1",
    "DO_NOT_TRACK": "1",
    "HF_HUB_OFFLINE": "1",
    "TRANSFORMERS_OFFLINE": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "VLLM_HOST_IP": HOST,
}
SECRET_WORDS = {
    "KEY",
    "KEYS",
    "APIKEY",
    "TOKEN",
    "SECRET",
    "SECRETS",
    "PASSWORD",
    "PASSWD",
    "AUTH",
    "CREDENTIALS",
    "COOKIE",
}


def command(
    engine: EngineEnv, settings: Vllm, folder: Path, *, name: str, port: int, lora_rank: int | None
) -> list[str]:
    """The arguments, interpreter first; `extra_args` come last and so win. Raises BackendError for one that can't."""
    arguments = {
        "--model": str(folder),
        "--served-model-name": name,
        "--host": HOST,
        "--port": str(port),
        "--dtype": dtype(engine, settings),
        "--load-format": "safetensors",
        "--generation-config": "vllm",  # else the model's own file changes sampling that no request mentions
        "--max-num-seqs": str(settings.max_num_seqs),
        "--seed": "0",
        # Guided replies without white space, of which a weak model may draw no end. vLLM's own choice, xgrammar, lets
        # control characters and broken UTF-8 into bounded strings.
        "--structured-outputs-config": '{"backend": "guidance", "disable_any_whitespace": true}',
        "--shutdown-timeout": str(DRAIN_SECONDS),
        "--tensor-parallel-size": str(settings.tensor_parallel_size),
    }
    if settings.max_model_len is not None:
        arguments["--max-model-len"] = str(settings.max_model_len)
    if lora_rank is not None:
        arguments["--max-lora-rank"] = str(served_rank(lora_rank))
    if engine.for_gpu:
        arguments["--gpu-memory-utilization"] = str(settings.gpu_memory_utilization)
    else:  # without a size it would take 92 % of a NUMA node
        arguments["--kv-cache-memory-bytes"] = str(round(settings.kv_cache_gib * 2**30))
    switches = ["--disable-uvicorn-access-log"]
    switches += ["--enable-lora"] if lora_rank is not None else []
    # A prompt in parts ends vLLM 0.32 on a CPU: it then rewinds the generator of a seeded request, which a CPU has not.
    switches += [] if engine.for_gpu else ["--enforce-eager", "--no-enable-chunked-prefill"]
    pairs = [word for pair in arguments.items() for word in pair]
    return [str(engine.python), "-m", ENTRY, *pairs, *switches, *_checked(settings.extra_args)]


def environment(
    engine: EngineEnv, settings: Vllm, *, key: str, scratch: Path, lora_rank: int | None, ours: Mapping[str, str]
) -> dict[str, str]:
    """The variables of `ours`, a process's environment, that a server may see, and those that it needs."""
    variables = {name: value for name, value in ours.items() if not _is_secret(name, value) and _is_kept(name)}
    variables |= OFFLINE
    variables |= {
        "VLLM_API_KEY": key,
        "TMPDIR": str(scratch),  # its sockets and stores go with it, even when it is killed
        "PYTHONSAFEPATH": "1",  # a folder `tokenizers` where the run was started is none of its business
        "PYTHONUNBUFFERED": "1",
    }
    variables.setdefault("TORCHINDUCTOR_CACHE_DIR", _compiled())
    if lora_rank is not None:
        variables["VLLM_ALLOW_RUNTIME_LORA_UPDATING"] = "1"
    if not engine.for_gpu:
        # Without TORCHDYNAMO_DISABLE the first log-probs compile for 14 s, and without g++ kill the engine.
        variables |= {"TORCHDYNAMO_DISABLE": "1", "OMP_NUM_THREADS": str(threads(settings, ours))}
        # vLLM would pin its threads to the first cores, whoever else works there.
        variables.setdefault("VLLM_CPU_OMP_THREADS_BIND", "nobind")
        if settings.tensor_parallel_size == 1:
            # The model in the engine's process: a third off the start, and no second process that busily waits for it.
            variables.setdefault("VLLM_ENABLE_V1_MULTIPROCESSING", "0")
    return variables


def facts(
    engine: EngineEnv,
    settings: Vllm,
    *,
    device: str,
    lora_rank: int | None,
    adapter: bool,
    ours: Mapping[str, str],
) -> dict[str, Any]:
    """What of a server bears on texts, as plain JSON without places, ports and keys."""
    return {
        "type": "vllm",
        "package": engine.package,
        "version": engine.version,
        "device": device,
        "dtype": dtype(engine, settings),
        "max_model_len": settings.max_model_len,
        "max_num_seqs": settings.max_num_seqs,
        "tensor_parallel_size": settings.tensor_parallel_size,
        "enforce_eager": not engine.for_gpu or "--enforce-eager" in settings.extra_args,
        "lora_rank": lora_rank,
        "adapter": adapter,
        "threads": None if engine.for_gpu else threads(settings, ours),
        "extra_args": list(settings.extra_args),
    }


def dtype(engine: EngineEnv, settings: Vllm) -> str:
    """The weights' type: what is asked for; `auto` is float32 on a CPU, and vLLM's own choice on a GPU."""
    return "float32" if settings.dtype == "auto" and not engine.for_gpu else settings.dtype


def threads(settings: Vllm, variables: Mapping[str, str]) -> int:
    """Compute threads of one worker on a CPU: OMP_NUM_THREADS, else the cores but one, which schedules and answers."""
    wanted = variables.get("OMP_NUM_THREADS", "")
    if wanted.isdigit() and int(wanted):
        return int(wanted)
    return max(1, (_cores() - 1) // settings.tensor_parallel_size)


def served_rank(lora_rank: int) -> int:
    """The lowest rank that vLLM can be started for and that takes this adapter. Raises BackendError beyond the highest."""
    found = next((rank for rank in LORA_RANKS if rank >= lora_rank), None)
    if found is None:
        raise BackendError(f"train.lora.r = {lora_rank!r}: vLLM serves adapters up to rank {LORA_RANKS[-1]}; lower it")
    return found


def _checked(arguments: tuple[str, ...]) -> tuple[str, ...]:
    for argument in arguments:
        name = argument.partition("=")[0].replace("_", "-").lower()
        for refused, why in OURS.items():
            if name.startswith("--") and len(name) > 3 and refused.startswith(name):  # argparse takes abbreviations
                raise BackendError(f"engine.extra_args: {argument!r} can't be changed ({why}); take it out")
    return arguments


def _is_kept(name: str) -> bool:
    """Not what leads its Python elsewhere, keeps it from caching bytecode (a start of 80 s), or is a scheduler's."""
    return not name.startswith(("PYTHON", "PREFECT_", "WANDB_")) and name not in ("VIRTUAL_ENV", "__PYVENV_LAUNCHER__")


def _is_secret(name: str, value: str) -> bool:
    return bool(SECRET_WORDS & set(name.upper().split("_"))) or re.search(r"://[^/\s]*@", value) is not None


def _compiled() -> str:
    """Where torch keeps compiled kernels for the next start, from before TMPDIR was changed."""
    try:
        user = re.sub(r"[^\w.-]", "_", getpass.getuser())
    except (KeyError, OSError):
        user = str(os.getuid())
    return os.path.join(tempfile.gettempdir(), f"torchinductor_{user}")


def _cores() -> int:
    """Physical cores that this process may use."""
    usable = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else range(os.cpu_count() or 1)
    siblings = set()
    for cpu in usable:
        place = f"/sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list"
        with suppress(OSError), open(place, encoding="ascii") as file:
            siblings.add(file.read())
    return len(siblings) or len(usable)
