"""Other processes at the same file: real ones, started with this interpreter."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]

HOLD = """
import sys, time, duckdb
connection = duckdb.connect(sys.argv[1])
print("held", flush=True)
time.sleep(float(sys.argv[2]))
"""
"""Takes the file and keeps it for so many seconds."""


def start(code: str, *arguments: object, **options: Any) -> subprocess.Popen[str]:
    """Run Python code beside this process, with pipes for its output."""
    command = [sys.executable, "-c", code, *map(str, arguments)]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen(command, env=environment, **(pipes | options))


def finish(process: subprocess.Popen[str], seconds: float = 60) -> str:
    """What a process printed; fails with its errors when it failed."""
    out, errors = process.communicate(timeout=seconds)
    assert process.returncode == 0, errors
    return out
