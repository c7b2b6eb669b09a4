"""The training process and all that it starts, followed to its end: nothing of it outlives the block that started it."""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

TERMINATE_SECONDS = 10.0


def run_process(
    module: Sequence[str], log: Path, environment: Mapping[str, str], on_event: Callable[[dict[str, Any]], None] | None
) -> tuple[int, str | None]:
    """Run `python -m module...`; return its exit code, negative for a signal, and the reason if it reported one.

    It writes events to its standard output as JSON lines. What else turns up there goes to the log, as does standard
    error.
    """
    with log.open("a", encoding="utf-8") as file, _process(module, file, environment) as process:
        reason = _follow(process, file, on_event)
    return process.returncode, reason


@contextmanager
def _process(module: Sequence[str], log: IO[str], environment: Mapping[str, str]) -> Iterator[subprocess.Popen[bytes]]:
    """The process in its own group; on Linux it also dies with this one, see `process`."""
    process = subprocess.Popen(
        [sys.executable, "-m", *module],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=log,
        env=environment,
        start_new_session=True,
    )
    try:
        yield process
    finally:
        _end(process)


def _follow(
    process: subprocess.Popen[bytes], log: IO[str], on_event: Callable[[dict[str, Any]], None] | None
) -> str | None:
    """Hand on every event until all processes have closed their output; return the reason if one reports a failure."""
    failures: list[dict[str, Any]] = []
    assert process.stdout is not None
    for line in process.stdout:
        event = _parse(line)
        if event is None:
            log.write(line.decode("utf-8", errors="replace"))
            log.flush()
        elif event["event"] == "failed":
            failures.append(event)
        elif on_event:
            on_event(event)
    process.wait()
    # When one of several processes stops for a reason, the others lose their connection to it: that is no reason.
    failures.sort(key=lambda event: not event["known"])
    return failures[0]["reason"] if failures else None


def _parse(line: bytes) -> dict[str, Any] | None:
    try:
        event = json.loads(line)
    except ValueError:
        return None
    return event if isinstance(event, dict) and "event" in event else None


def _end(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is None:
        _signal_group(process, signal.SIGTERM)
        with suppress(subprocess.TimeoutExpired):
            process.wait(TERMINATE_SECONDS)
    _signal_group(process, signal.SIGKILL)
    process.wait()
    if process.stdout is not None:
        _drain(process.stdout)
        process.stdout.close()


def _drain(output: IO[bytes]) -> None:
    """Read until the last process that an accelerate launcher started has gone; each of them holds this pipe."""
    deadline = time.monotonic() + TERMINATE_SECONDS
    while select.select([output], [], [], max(0.0, deadline - time.monotonic()))[0]:
        if not os.read(output.fileno(), 1 << 16):
            return


def _signal_group(process: subprocess.Popen[bytes], number: signal.Signals) -> None:
    with suppress(ProcessLookupError):
        os.killpg(process.pid, number)
