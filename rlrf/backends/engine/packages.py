"""The processes that build an engine environment: venv, pip, one import. What they say is cut to the line that matters."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from rlrf.errors import BackendError

QUIET = {
    "VLLM_NO_USAGE_STATS": "1",
    "DO_NOT_TRACK": "1",
    "HF_HUB_OFFLINE": "1",
    "TRANSFORMERS_OFFLINE": "1",
    "VLLM_HOST_IP": "127.0.0.1",
    "TORCHDYNAMO_DISABLE": "1",
}
"""Environment variables of the import: no telemetry, no network, no compiler."""

IMPORT = "import vllm.entrypoints.launchers.api_server.entry, vllm; print(vllm.__version__)"
"""The module that serves: with it comes every package that serving takes."""

IMPORT_SECONDS = 900.0
"""The first import also compiles every module, on a slow disk for minutes."""

LINE_LENGTH = 300
_REPORT_EVERY = 25
_ADDRESS = re.compile(r"\b[a-z][a-z0-9+.-]*://\S+|\bhost='[^']*'|\S+@\S+", re.IGNORECASE)


def make_venv(folder: Path, lock: int) -> None:
    """An empty environment with pip, beside what is in `folder`. Raises BackendError with venv's last line."""
    code, said = _run([sys.executable, "-I", "-m", "venv", str(folder)], lock)
    if code:
        raise BackendError(
            f"no environment could be made in {str(folder)!r}: {said}; mend that and run the same command"
        )


def install(folder: Path, arguments: Sequence[str], say: Callable[[str], None], lock: int) -> None:
    """`pip install` with `arguments`, of wheels alone: nothing that is downloaded runs before it is imported.

    Raises BackendError with pip's last error line, without addresses: they may hold credentials.
    """
    options = ["--no-compile", "--only-binary=:all:", "--no-input", "--disable-pip-version-check", "--progress-bar=off"]
    fetched = 0

    def follow(line: str) -> None:
        nonlocal fetched
        if line.startswith(("Collecting ", "Processing ")):
            fetched += 1
            if fetched % _REPORT_EVERY == 0:
                say(f"pip: {fetched} packages fetched")
        elif line.startswith("Installing collected packages:"):
            say(f"pip: installing {line.count(',') + 1} packages")

    code, said = _run(
        [str(folder / "bin" / "python"), "-Iu", "-m", "pip", "install", *options, *arguments], lock, follow
    )
    if code:
        raise BackendError(
            f"pip can't fill {str(folder)!r}: {said}; see that pip reaches its index and finds wheels for this Python, "
            "then run the same command"
        )


def check_import(folder: Path, version: str, lock: int) -> None:
    """Import vLLM's server once. Raises BackendError with the last line of what it says, or another version than wanted."""
    command = [str(folder / "bin" / "python"), "-I", "-c", IMPORT]
    remedy = "run `rlrf engine install --reinstall`, or name an environment with vllm by RLRF_ENGINE"
    try:
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace",
            env=os.environ | QUIET, cwd=folder, timeout=IMPORT_SECONDS, pass_fds=[lock], check=False,
        )  # fmt: skip
    except subprocess.TimeoutExpired as error:
        raise BackendError(f"vllm in {str(folder)!r} isn't imported after {IMPORT_SECONDS:.0f} s; {remedy}") from error
    found = _last(done.stdout.splitlines())
    if done.returncode:
        raise BackendError(f"vllm in {str(folder)!r} can't be imported: {_last(done.stderr.splitlines())}; {remedy}")
    if found != version:
        raise BackendError(f"vllm in {str(folder)!r} says that it is {found!r}, not {version!r}; {remedy}")


def _run(command: list[str], lock: int, follow: Callable[[str], None] | None = None) -> tuple[int, str]:
    """Exit code and the line that says why; every line goes through `follow`. The process holds the lock too."""
    lines: list[str] = []
    with subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        errors="replace", pass_fds=[lock],
    ) as process:  # fmt: skip
        assert process.stdout is not None, "a pipe was asked for"
        try:
            for line in process.stdout:
                if follow:
                    follow(line)
                lines.append(line)
        except BaseException:
            process.kill()
            raise
    errors = [line.removeprefix("ERROR: ") for line in lines if line.startswith("ERROR: ")]
    return process.returncode, _last(errors or lines)


def _last(lines: Sequence[str]) -> str:
    """The last line with something in it, short and without addresses."""
    said = [line.strip() for line in lines if line.strip()]
    return _ADDRESS.sub("<address>", said[-1])[:LINE_LENGTH] if said else "it says nothing"
