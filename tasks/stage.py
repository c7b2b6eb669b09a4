"""How a stage becomes a Prefect task: keyed by content, skipped when its receipt is in the store, counted, recorded.

The store is the truth. Prefect's own cache is a shortcut to the same answer: its key carries the store's id, so that a
new store makes every hit invalid, and deleting it costs a lookup per stage.
"""

from __future__ import annotations

import functools
import inspect
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Concatenate, ParamSpec, Protocol, TypeVar

from prefect import task
from prefect.context import TaskRunContext

from rlrf.config import RunConfig
from rlrf.errors import ReachedError
from rlrf.handles import Handle, Run
from rlrf.stages import Key
from storage import ledger
from storage.store import Store, open_store
from tasks.progress import StageProgress, stage_progress


class Summarised(Protocol):
    """What a stage returns: a handle that can say its number of rows and the digest of their contents."""

    def summary(self) -> tuple[int, str]: ...


P = ParamSpec("P")
R = TypeVar("R", bound=Summarised)


@dataclass(frozen=True)
class Stage:
    """What a stage's body works with: its run, its store, its key, its progress."""

    name: str
    key: str
    run: Run
    store: Store
    progress: StageProgress

    @property
    def config(self) -> RunConfig:
        """The run's configuration."""
        return self.run.config

    def handle(self, rows: int, digest: str) -> Handle:
        """This stage's rows as a handle."""
        return Handle(stage=self.name, key=self.key, rows=rows, digest=digest)


def stage(
    name: str, key_of: Callable[..., Key], found: Callable[[Store, str], Any] = ledger.receipt
) -> Callable[[Callable[Concatenate[Stage, P], R]], Callable[P, R]]:
    """Decorate `body(stage, run, ...)` into a cached task `name(run, ...)`.

    `key_of` takes the task's arguments and gives the stage key; `found` loads a finished stage's result from the store.
    """

    def decorate(body: Callable[Concatenate[Stage, P], R]) -> Callable[P, R]:
        @functools.wraps(body)
        def work(*args: Any, **kwargs: Any) -> Any:
            bound = signature.bind(*args, **kwargs)
            key, run = key_of(**bound.arguments), bound.arguments["run"]
            result = _run_stage(name, key, found, body, bound)
            if run.stop_after == key.key:
                raise ReachedError(f"{name} is done; what comes after it was left as it is")
            return result

        parameters = list(inspect.signature(body).parameters.values())[1:]
        signature = inspect.signature(body).replace(parameters=parameters)
        work.__signature__ = signature  # type: ignore[attr-defined]  # what Prefect binds and shows

        def cache_key(_: TaskRunContext, arguments: dict[str, Any]) -> str:
            run: Run = arguments["run"]
            return f"rlrf/{run.store_id}/{name}/{key_of(**arguments).key}"

        return task(
            name=name, cache_key_fn=cache_key, persist_result=True, result_serializer="json", viz_return_value=None
        )(work)

    return decorate


def _run_stage(
    name: str, key: Key, found: Callable[[Store, str], Any], body: Callable[..., Any], bound: inspect.BoundArguments
) -> Any:
    run: Run = bound.arguments["run"]
    store = open_store(run.config.store_path)
    done = ledger.receipt(store, key.key)
    result = found(store, key.key) if done else None
    with stage_progress(name) as progress:
        if result is not None and done is not None:
            progress.say(f"{done.rows:,} rows kept, nothing to do")
            return result
        if done is not None:
            progress.say("its result is there no longer: done again")
            ledger.forget_stage(store, key.key)
        ledger.record_keys(store, key)
        started = time.monotonic()
        result = body(Stage(name, key.key, run, store, progress), *bound.args, **bound.kwargs)
        seconds = time.monotonic() - started
        rows, digest = result.summary()
        receipt = Handle(stage=name, key=key.key, rows=rows, digest=digest)
        ledger.write_receipt(store, receipt, progress.counts(), seconds, run.run_id)
        progress.end()
        progress.say(_line(rows, progress, seconds))
        return result


def _line(rows: int, progress: StageProgress, seconds: float) -> str:
    parts = [f"{rows:,} rows", f"{progress.kept:,} kept", f"{progress.produced:,} new"]
    parts += [f"{progress.failed:,} failed"] if progress.failed else []
    parts += [f"{progress.tokens:,} tokens, {progress.tokens / max(seconds, 1e-9):,.0f}/s"] if progress.tokens else []
    return ", ".join([*parts, f"{seconds:.1f} s"])
