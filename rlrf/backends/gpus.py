"""The NVIDIA GPUs of this machine, from the driver's own tool: no CUDA context, which would take memory on each of them."""

from __future__ import annotations

import os
import shutil
import subprocess
from dataclasses import dataclass

from rlrf.errors import BackendError

QUERY_SECONDS = 30.0
"""A driver that has lost a GPU lets its tool hang."""


@dataclass(frozen=True)
class Gpu:
    """One GPU; memory in bytes, None where the driver doesn't say (a part of a GPU that is shared out)."""

    name: str
    driver: str
    memory: int | None
    free: int | None


def gpus() -> tuple[Gpu, ...]:
    """All GPUs; none where nvidia-smi isn't on PATH, finds none, or CUDA_VISIBLE_DEVICES hides them all.

    Raises BackendError where nvidia-smi is there and fails, with its own words.
    """
    if os.environ.get("CUDA_VISIBLE_DEVICES", "all").strip() in {"", "-1"}:
        return ()
    return tuple(map(_gpu, ask_driver("name,driver_version,memory.total,memory.free")))


def ask_driver(fields: str) -> list[str]:
    """A line of comma-separated values per GPU; none where nvidia-smi isn't on PATH or finds none.

    Raises BackendError where nvidia-smi is there and fails, with its own words.
    """
    tool = shutil.which("nvidia-smi")
    if tool is None:
        return []
    query = [tool, f"--query-gpu={fields}", "--format=csv,noheader,nounits"]
    try:
        done = subprocess.run(
            query, capture_output=True, text=True, errors="replace", timeout=QUERY_SECONDS, check=False
        )
    except subprocess.TimeoutExpired as error:
        raise BackendError(
            f"{tool!r} doesn't answer within {QUERY_SECONDS:.0f} s; see what the driver says in the system's log"
        ) from error
    except OSError as error:
        raise BackendError(f"{tool!r}: {error.strerror}; mend the driver, or take it off PATH") from error
    if "No devices were found" in done.stdout:
        return []
    if done.returncode:
        words = (done.stdout + done.stderr).strip().splitlines()[:1] or [f"exit code {done.returncode}"]
        raise BackendError(f"{tool!r} fails: {words[0]!r}; mend the driver, or set CUDA_VISIBLE_DEVICES= to do without")
    return [line for line in done.stdout.splitlines() if line]


def _gpu(line: str) -> Gpu:
    name, driver, memory, free = [*line.rsplit(",", 3), "", "", ""][:4]
    return Gpu(name.strip(), driver.strip(), _bytes(memory), _bytes(free))


def _bytes(mebibytes: str) -> int | None:
    return int(mebibytes) * 2**20 if mebibytes.strip().isdigit() else None
