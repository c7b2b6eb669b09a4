"""Entry of the training process: `python -m rlrf.backends.train_process SPEC_FILE SPEC_HASH PARENT_PID`.

Events go to standard output as JSON lines, all else that libraries print goes to standard error. Heavy imports wait
until the process is bound to its parent, so that no start-up outlives it.
"""

from __future__ import annotations

import ctypes
import fcntl
import json
import os
import signal
import sys
import traceback
from pathlib import Path
from typing import IO, Any, TextIO

from rlrf.backends.training import TrainSpec, read_spec
from rlrf.errors import RlrfError, TrainingError

PR_SET_PDEATHSIG = 1


def main(spec_file: str, identity: str, parent: str) -> int:
    """Run one training; return the exit code, 0 or 1."""
    _die_with(int(parent))
    events = _claim_stdout()

    def emit(event: dict[str, Any]) -> None:
        events.write(json.dumps(event) + "\n")
        events.flush()

    try:
        spec = read_spec(Path(spec_file))
        with _lock(spec, identity):
            from rlrf.backends.trl_trainer import run

            run(spec, identity, emit)
    except RlrfError as error:
        traceback.print_exc()
        emit({"event": "failed", "reason": str(error)})
        return 1
    except Exception as error:
        traceback.print_exc()
        emit({"event": "failed", "reason": f"{type(error).__name__}: {error}"})
        return 1
    return 0


def _die_with(parent: int) -> None:
    """Ask Linux to kill this process when its parent dies, even by kill -9; elsewhere the broken pipe ends it."""
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        sys.exit(1)


def _claim_stdout() -> TextIO:
    """Keep standard output for events, and send what anything else prints to standard error."""
    events = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    return events


def _lock(spec: TrainSpec, identity: str) -> IO[str]:
    """An open file whose lock dies with this process: two trainings must not write the same checkpoints."""
    file = (spec.work / f"{identity}.lock").open("w")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        file.close()
        raise TrainingError(f"another process is training {str(spec.output)!r}; wait for it") from error
    return file


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
