"""`rlrf` with a journal beside it: `python -m benchmarks.kills.runner JOURNAL run CONFIG`.

The same code and the same process as `rlrf`; it only notes what is computed, as JSON lines that outlive a kill: the
requests that an engine begins, the batches and steps that become durable, the receipts. Nothing of it is in the product.
"""

from __future__ import annotations

import functools
import json
import os
import sys
import time
from collections.abc import Callable
from typing import Any

JOURNAL = "RLRF_KILLS_JOURNAL"


def note(**entry: Any) -> None:
    """Append one line in one write."""
    line = json.dumps({"t": time.time(), "pid": os.getpid(), **entry}) + "\n"
    descriptor = os.open(os.environ[JOURNAL], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    try:
        os.write(descriptor, line.encode())
    finally:
        os.close(descriptor)


def watch() -> None:
    """Wrap what computes and what makes durable."""
    note(event="process")
    import rlrf.backends.opening as opening

    opening.open_generator = _watched_opening(opening.open_generator)

    from storage import ledger
    from tasks.progress import StageProgress

    _before(StageProgress, "__init__", lambda self, stage, *_: note(event="stage", stage=stage))
    _after(
        StageProgress,
        "begin",
        lambda self, total, kept, unit="rows": note(event="begin", stage=self.stage, unit=unit, total=total, kept=kept),
    )
    _after(
        StageProgress,
        "advance",
        lambda self, produced, *_, **__: note(event="advance", stage=self.stage, unit=self.unit, rows=produced),
    )
    _after(ledger, "write_receipt", lambda store, handle, *_: note(event="receipt", stage=handle.stage))


def _watched_opening(open_generator: Callable[..., Any]) -> Callable[..., Any]:
    def opened(*args: Any, **kwargs: Any) -> Any:
        generator = open_generator(*args, **kwargs)
        if generator.name == "local":
            _before(
                generator, "_decode", lambda jobs, _: note(event="asked", ids=[job.request.request_id for job in jobs])
            )
        elif generator.name == "vllm":
            _watch_endpoint()
        return generator

    return opened


@functools.cache
def _watch_endpoint() -> None:
    from rlrf.backends.endpoint.run import EndpointRun

    _before(EndpointRun, "_ask", lambda self, server, group: note(event="asked", ids=[one.request_id for one in group]))


def _before(owner: Any, name: str, say: Callable[..., None]) -> None:
    function = getattr(owner, name)

    @functools.wraps(function)
    def noted(*args: Any, **kwargs: Any) -> Any:
        say(*args, **kwargs)
        return function(*args, **kwargs)

    setattr(owner, name, noted)


def _after(owner: Any, name: str, say: Callable[..., None]) -> None:
    function = getattr(owner, name)

    @functools.wraps(function)
    def noted(*args: Any, **kwargs: Any) -> Any:
        result = function(*args, **kwargs)
        say(*args, **kwargs)
        return result

    setattr(owner, name, noted)


if __name__ == "__main__":
    os.environ[JOURNAL], sys.argv = sys.argv[1], ["rlrf", *sys.argv[2:]]
    from flows.cli import main  # first: it sets what Prefect reads when it is imported

    watch()
    main()
