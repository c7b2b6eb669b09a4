"""Entry of the training process: `python -m rlrf.backends.training.process JOB_FILE PARENT_PID [rank]`.

With an accelerate config this process becomes `accelerate launch`, which starts this module again, once per rank. Events
go to standard output as JSON lines, all else that libraries print goes to standard error. Heavy imports wait until the
process is bound to its parent, so that no start-up outlives it.
"""

from __future__ import annotations

import ctypes
import fcntl
import json
import os
import signal
import sys
import time
import traceback
from contextlib import nullcontext
from pathlib import Path
from typing import IO, Any, TextIO

from rlrf.backends.training.checks import Launch
from rlrf.backends.training.train import TrainJob, read_job
from rlrf.errors import RlrfError, TrainingError

PR_SET_PDEATHSIG = 1
REASON_CHARACTERS = 3000
"""Ranks share one pipe; a line of less than 4096 bytes is never cut by another rank's."""


def main(job_file: str, parent: str, rank: str | None = None) -> int:
    """Run one training, or one rank of it; return the exit code, 0 or 1."""
    began = time.monotonic()
    _die_with(int(parent))
    job = read_job(Path(job_file))
    if job.launch and rank is None:
        _become_launcher(job.launch, job_file)
    events = _claim_stdout()
    is_main = int(os.environ.get("RANK", "0")) == 0

    def emit(event: dict[str, Any]) -> None:
        events.write(json.dumps(event) + "\n")
        events.flush()

    def fail(error: Exception, reason: str) -> int:
        traceback.print_exc()
        emit({"event": "failed", "reason": reason[:REASON_CHARACTERS], "known": isinstance(error, RlrfError)})
        return 1

    try:
        with _lock(job) if is_main else nullcontext():
            from rlrf.backends.training.trainer import run

            run(job, emit if is_main else lambda event: None, began)
    except RlrfError as error:
        return fail(error, str(error))
    except Exception as error:
        return fail(error, f"{type(error).__name__}: {error}")
    return 0


def _die_with(parent: int) -> None:
    """Ask Linux to kill this process when its parent dies, even by kill -9; elsewhere the broken pipe ends it."""
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        sys.exit(1)


def _become_launcher(launch: Launch, job_file: str) -> None:
    """Replace this program by accelerate's: the process stays, and with it the bond to the parent."""
    # The ranks' parent is this process: torch starts each in a session of its own, so they must be bound one by one.
    rank = ["-m", "rlrf.backends.training.process", job_file, str(os.getpid()), "rank"]
    options = ["--config_file", str(launch.config), *launch.flags]
    os.execv(sys.executable, [sys.executable, "-m", "accelerate.commands.launch", *options, *rank])  # noqa: S606


def _claim_stdout() -> TextIO:
    """Keep standard output for events, and send what anything else prints to standard error."""
    events = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    return events


def _lock(job: TrainJob) -> IO[str]:
    """An open file whose lock dies with this process: two trainings must not write the same checkpoints."""
    file = (job.spec.work / f"{job.identity}.lock").open("w")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        file.close()
        raise TrainingError(f"another process is training {str(job.spec.output)!r}; wait for it") from error
    return file


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
