"""What can be known to be wrong before an engine environment is built."""

from __future__ import annotations

import importlib.util
import os
import shutil
import sys
from contextlib import suppress
from pathlib import Path

from rlrf.backends.engine.env import LOCK_FILE, TESTED, VARIABLE
from rlrf.errors import BackendError

ELSEWHERE = 'use engine.type = "transformers", or an endpoint on another machine'


def check_host(system: str, machine: str, python: tuple[int, int]) -> None:
    """Raise BackendError where vLLM has no package; as sys.platform, platform.machine() and sys.version_info say."""
    if system != "linux" or machine not in {"x86_64", "aarch64"}:
        raise BackendError(
            f"vLLM {TESTED} is for Linux on x86_64 or aarch64, this is {system} on {machine}; {ELSEWHERE}"
        )
    if not (3, 11) <= python <= (3, 14):
        found = ".".join(map(str, python))
        raise BackendError(f"vLLM {TESTED} takes Python 3.11 to 3.14, this is {found}; run rlrf in one of those")
    if not all(map(importlib.util.find_spec, ("venv", "ensurepip"))):
        raise BackendError(
            f"{sys.executable!r} can't make an environment with pip in it; install the system's python3-venv package, "
            f"or name an environment that has vllm by {VARIABLE}"
        )


def check_place(folder: Path, disk: int) -> None:
    """Raise BackendError where building would delete what wasn't built here, or `disk` bytes aren't free."""
    if folder.exists() and not (folder / LOCK_FILE).exists() and any(folder.iterdir()):
        raise BackendError(f"{str(folder)!r} holds what wasn't built here and would be deleted; remove it first")
    place = next(parent for parent in (folder, *folder.parents) if parent.exists())
    free = shutil.disk_usage(place).free
    if free < disk:
        raise BackendError(
            f"{str(place)!r} has {free / 1e9:.1f} GB free, building the engine takes {disk / 1e9:.0f} GB; free some "
            f"space, or name a folder elsewhere by {VARIABLE}"
        )


def check_unused(folder: Path) -> None:
    """Raise BackendError where a process runs from the environment: a server would lose files that it has yet to read."""
    programs = os.fsencode(folder / "bin") + b"/"
    for process in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(OSError):
            if process.read_bytes().startswith(programs):
                pid = process.parent.name
                raise BackendError(
                    f"process {pid} runs from {str(folder)!r}; wait for its end or stop it, then try again"
                )
