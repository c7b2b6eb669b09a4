"""Memory in use on the GPUs, as the driver counts it: no CUDA context, which would itself take some."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass

from rlrf.backends.gpus import ask_driver
from rlrf.errors import BackendError

POLL_SECONDS = 0.2
TOLERANCE = 256 * 2**20
"""Bytes by which other processes' use may have grown since."""


@dataclass(frozen=True, slots=True)
class Waited:
    """How long it took until the memory was back, and the bytes that were not when the time was up."""

    seconds: float
    held: int


def memory_in_use() -> dict[str, int]:
    """Bytes in use by a GPU's uuid; empty where there is no nvidia-smi, or it doesn't tell."""
    try:
        pairs = [line.rpartition(",") for line in ask_driver("uuid,memory.used")]
    except BackendError:
        return {}
    return {uuid.strip(): int(used) * 2**20 for uuid, _, used in pairs if used.strip().isdigit()}


def wait_until_back(before: Mapping[str, int], taken: Mapping[str, int], seconds: float) -> Waited:
    """Wait until every GPU on which `taken` is above `before` is down at `before` again, for `seconds` at most.

    Both are of `memory_in_use`: before a process started, and before it was stopped. Other GPUs are others' business.
    """
    started = time.monotonic()
    watched = {uuid: used for uuid, used in before.items() if taken.get(uuid, 0) > used + TOLERANCE}
    held = sum(taken[uuid] - used for uuid, used in watched.items())
    while watched and held:
        now = memory_in_use()
        over = (now[uuid] - used for uuid, used in watched.items() if uuid in now)
        held = sum(more for more in over if more > TOLERANCE) if now else held
        if time.monotonic() - started >= seconds:
            break
        if held:
            time.sleep(POLL_SECONDS)
    return Waited(time.monotonic() - started if watched else 0.0, held)
