"""What a machine has for rlrf, looked at without importing torch or touching a GPU."""

from __future__ import annotations

import os
import platform
import shutil
import sys
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Literal

from rlrf.backends.engine.env import BUILT_FILE, TESTED, VARIABLE, engine_folder, find_engine
from rlrf.backends.engine.install import built_here, is_current, recipe
from rlrf.backends.gpus import Gpu, gpus
from rlrf.errors import BackendError

PACKAGES = ("transformers", "trl", "peft", "prefect", "duckdb")
LOW_MEMORY, LOW_DISK, NO_DISK = 4 * 2**30, 5 * 2**30, 2**28
"""Bytes: what the demo with an engine takes, what a few small models take, what not even a store can grow in."""

BUSY_SHARE = 0.5
"""A GPU with less of its memory free than this is being used by someone."""

CGROUP = Path("/sys/fs/cgroup")


@dataclass(frozen=True)
class Finding:
    """One thing looked at, what was found, and what to do about it; without the `required` no run can work."""

    state: Literal["ok", "warn", "missing"]
    what: str
    found: str
    remedy: str = ""
    required: bool = False

    @property
    def broken(self) -> bool:
        """Whether runs fail because of this."""
        return self.required and self.state == "missing"


def examine(home: Path) -> list[Finding]:
    """Python, packages, GPUs, cores and memory, the engine environment, and the disk under `home`."""
    try:
        found, trouble = gpus(), ""
    except BackendError as error:
        found, trouble = (), str(error)
    return [
        _python(),
        _torch(bool(found)),
        _packages(),
        _gpus(found, trouble),
        _processor(),
        _memory(),
        check_engine(bool(found)),
        _disk(home),
    ]


def _python() -> Finding:
    said = f"{platform.python_version()} in {sys.prefix}"
    if sys.version_info >= (3, 11):  # noqa: UP036 - it may be started without having been installed
        return Finding("ok", "Python", said)
    return Finding("missing", "Python", said, "make the environment with Python 3.11 or later", required=True)


def _torch(gpu: bool) -> Finding:
    try:
        build = version("torch")
    except PackageNotFoundError:
        return Finding("missing", "torch", "not installed", _AGAIN, required=True)
    if gpu and build.endswith("+cpu"):
        return Finding(
            "warn", "torch", f"{build}: training won't use the GPU", "install the CUDA build of this release"
        )
    return Finding("ok", "torch", build)


def _packages() -> Finding:
    found = {name: _version(name) for name in PACKAGES}
    said = ", ".join(f"{name} {found[name] or 'not installed'}" for name in PACKAGES)
    if all(found.values()):
        return Finding("ok", "packages", said)
    return Finding("missing", "packages", said, _AGAIN, required=True)


_AGAIN = "install rlrf again: `pip install --constraint constraints.txt --editable .` in its folder"


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _gpus(found: tuple[Gpu, ...], trouble: str) -> Finding:
    if trouble:
        return Finding("warn", "GPU", "the driver fails", trouble)
    if not found:
        return Finding("ok", "GPU", "none with CUDA: everything runs on the CPU, which is enough for tiny models")
    said = "\n".join(map(_describe, found))
    busy = [gpu for gpu in found if gpu.free is not None and gpu.memory and gpu.free < BUSY_SHARE * gpu.memory]
    if busy:
        return Finding("warn", "GPU", said, "other processes hold its memory: see `nvidia-smi`, end them or wait")
    return Finding("ok", "GPU", said)


def _describe(gpu: Gpu) -> str:
    memory = (
        f", {gpu.free / 2**30:.1f} of {gpu.memory / 2**30:.1f} GiB free" if gpu.memory and gpu.free is not None else ""
    )
    return f"{gpu.name}{memory} (driver {gpu.driver})"


def _processor() -> Finding:
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quota, _, period = _read(CGROUP / "cpu.max").partition(" ")
    share = f", limited to the time of {int(quota) / int(period):.1f}" if quota.isdigit() else ""
    threads = os.environ.get("OMP_NUM_THREADS")
    return Finding("ok", "processor", f"{cores} cores{share}" + (f", OMP_NUM_THREADS={threads}" if threads else ""))


def _memory() -> Finding:
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    free = _kilobytes(_read(Path("/proc/meminfo")), "MemAvailable:", total)
    limit, used = _read(CGROUP / "memory.max"), _read(CGROUP / "memory.current")
    if limit.isdigit() and used.isdigit():
        total = min(total, int(limit))
        free = min(free, int(limit) - int(used) + _cached(_read(CGROUP / "memory.stat")))
    said = f"{free / 2**30:.1f} of {total / 2**30:.1f} GiB free"
    if free < LOW_MEMORY:
        return Finding("warn", "memory", said, "an engine and a training of a tiny model want 4 GiB: end something")
    return Finding("ok", "memory", said)


def _kilobytes(meminfo: str, name: str, otherwise: int) -> int:
    """Bytes that a line of /proc/meminfo states in kB."""
    return next((int(line.split()[1]) * 1024 for line in meminfo.splitlines() if line.startswith(name)), otherwise)


def _cached(stat: str) -> int:
    """Bytes of files that a container's limit counts as used, and that go when the memory is wanted."""
    return next((int(line.split()[1]) for line in stat.splitlines() if line.startswith("file ")), 0)


def _read(path: Path) -> str:
    """A file of the system's, "" where it has none."""
    try:
        return path.read_text(encoding="ascii").strip()
    except OSError:
        return ""


def check_engine(gpu: bool) -> Finding:
    """The vLLM environment, beside a GPU or without one."""
    what, install = "vLLM engine", "run `rlrf engine install`"
    try:
        found = find_engine()
    except BackendError as error:
        return Finding("missing", what, "can't be used", str(error), required=True)
    folder = engine_folder()
    if found is None:
        half = built_here(folder) and not (folder / BUILT_FILE).exists()
        return Finding("missing", what, f"{'half built' if half else 'not installed'}: transformers generates", install)
    said = f"{found.package} {found.version}, for {'CUDA' if found.for_gpu else 'the CPU'}, in {folder}"
    own = not built_here(folder)
    mend = f"name another environment by {VARIABLE}, or unset it" if own else install
    if gpu != found.for_gpu:
        return Finding("warn", what, f"{said}; {'there is a GPU' if gpu else 'but no GPU is found'}", mend)
    if own and found.version.split("+")[0] != TESTED:
        return Finding("warn", what, said, f"vLLM {TESTED} is the release that is tested")
    if not own and not is_current(folder, recipe()):
        return Finding("warn", what, f"{said}; not from this rlrf's pins", install)
    return Finding("ok", what, said)


def _disk(home: Path) -> Finding:
    place = next(parent for parent in (home.absolute(), *home.absolute().parents) if parent.is_dir())
    free = shutil.disk_usage(place).free
    said = f"{free / 2**30:.1f} GiB free in {place}"
    if free < NO_DISK:
        return Finding("missing", "disk", said, "free some space, or choose a `home` elsewhere", required=True)
    if free < LOW_DISK:
        return Finding("warn", "disk", said, "every iteration keeps a model folder: free some space")
    return Finding("ok", "disk", said)
