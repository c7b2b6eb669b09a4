"""How a stage becomes a Prefect task: keyed by content, skipped when its receipt is in the store, counted, recorded.

The store is the truth, and the only one: Prefect is told what a stage found there, and keeps no results that could outlive
their receipts. A stage whose receipt is in the store ends as Cached, under a key that carries the store's id.
"""

from __future__ import annotations

import functools
import inspect
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Concatenate, Generic, ParamSpec, Protocol, TypeVar

from prefect import Task
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State, StateDetails
from prefect.states import Completed

from rlrf.config import RunConfig
from rlrf.errors import ReachedError
from rlrf.handles import Handle, Run
from rlrf.stages import Key
from storage import ledger
from storage.claims import Claimant
from storage.store import Store, open_store
from tasks.artifacts import publish_stage
from tasks.claiming import turn
from tasks.progress import StageProgress, stage_progress
from tasks.publishing import publish_when_due
from tasks.titles import title


class Summarised(Protocol):
    """What a stage returns: a handle that can say its number of rows and the digest of their contents."""

    def summary(self) -> tuple[int, str]: ...


P = ParamSpec("P")
R = TypeVar("R", bound=Summarised)
T = TypeVar("T")


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

    @functools.cached_property
    def claimant(self) -> Claimant:
        """In whose name this stage and its rows are claimed."""
        return Claimant(self.store, self.run.run_id)

    def handle(self, rows: int, digest: str) -> Handle:
        """This stage's rows as a handle."""
        return Handle(stage=self.name, key=self.key, rows=rows, digest=digest)


@dataclass(frozen=True)
class Ended(Generic[T]):
    """How a stage ended: its result, whether that was there before, and a line on what was kept and done."""

    result: T
    cached: bool
    said: str
    cache_key: str

    def state(self) -> State[T]:
        """The same for Prefect's API and UI."""
        details = StateDetails(cache_key=self.cache_key)
        name = "Cached" if self.cached else None
        return Completed(name=name, message=self.said, data=self.result, state_details=details)


class StageTask(Generic[P, R]):
    """A stage as a flow calls it: a task run in Prefect, and the stage's result. `fn` is the same without Prefect."""

    def __init__(self, name: str, run: Callable[P, Ended[R]]) -> None:
        @functools.wraps(run)
        def in_prefect(*args: P.args, **kwargs: P.kwargs) -> State[R]:
            return run(*args, **kwargs).state()

        def run_name(parameters: dict[str, Any]) -> str:  # Prefect looks at the parameter's name
            return title(name, parameters)

        called: Any = run_name
        self.name = name
        self.task = Task(in_prefect, name=name, task_run_name=called, cache_policy=NO_CACHE, persist_result=False)
        self.run = run

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        ended: Any = self.task(*args, **kwargs)  # Prefect gives a task's caller the state that the task returned
        run: Run = next(one for one in (*args, *kwargs.values()) if isinstance(one, Run))
        if run.stop_after and ended.state_details.cache_key == cache_key(run, self.name, run.stop_after):
            raise ReachedError(f"{self.name} is done; what comes after it was left as it is")
        result: R = ended.result()
        return result

    def fn(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """Do the stage here and now."""
        return self.run(*args, **kwargs).result


def stage(
    name: str, key_of: Callable[..., Key], found: Callable[[Store, str], Any] = ledger.receipt
) -> Callable[[Callable[Concatenate[Stage, P], R]], StageTask[P, R]]:
    """Decorate `body(stage, run, ...)` into a restartable task `name(run, ...)`.

    `key_of` takes the task's arguments and gives the stage key; `found` loads a finished stage's result from the store.
    """

    def decorate(body: Callable[Concatenate[Stage, P], R]) -> StageTask[P, R]:
        @functools.wraps(body)
        def work(*args: P.args, **kwargs: P.kwargs) -> Ended[R]:
            bound = signature.bind(*args, **kwargs)
            key = key_of(**bound.arguments)
            ended = _run_stage(name, key, found, body, bound)
            if not ended.cached:
                run: Run = bound.arguments["run"]
                publish_stage(name, key, bound.arguments)
                publish_when_due(Store(run.config.store_path), StageProgress("snapshot").say)
            return ended

        parameters = list(inspect.signature(body).parameters.values())[1:]
        signature = inspect.signature(body).replace(parameters=parameters)
        work.__signature__ = signature  # type: ignore[attr-defined]  # what Prefect binds and shows
        return StageTask(name, work)

    return decorate


def _run_stage(
    name: str, key: Key, found: Callable[[Store, str], Any], body: Callable[..., R], bound: inspect.BoundArguments
) -> Ended[R]:
    run: Run = bound.arguments["run"]
    hit = cache_key(run, name, key.key)
    store = open_store(run.config.store_path)
    with stage_progress(name) as progress:
        stage = Stage(name, key.key, run, store, progress)
        with turn(stage.claimant, progress, key.key, lambda: _finished(store, key.key, found)) as kept:
            if kept is not None:
                done, result = kept
                said = f"{done.rows:,} rows kept, nothing to do"
                progress.say(said, logged=False)  # Prefect logs the state's message
                return Ended(result, True, said, hit)
            result, said = _work(stage, key, body, bound)
        return Ended(result, False, said, hit)


def cache_key(run: Run, name: str, key: str) -> str:
    """A stage as Prefect's API and UI name it."""
    return f"rlrf/{run.store_id}/{name}/{key}"


def _finished(store: Store, key: str, found: Callable[[Store, str], Any]) -> tuple[Handle, Any] | None:
    """The receipt of a finished stage and its result."""
    done = ledger.receipt(store, key)
    result = found(store, key) if done else None
    return (done, result) if done is not None and result is not None else None


def _work(stage: Stage, key: Key, body: Callable[..., R], bound: inspect.BoundArguments) -> tuple[R, str]:
    """Do a stage and write its receipt; also what it came to, in words."""
    with stage.store.kept_open():
        if ledger.receipt(stage.store, key.key) is not None:
            stage.progress.say("its result is there no longer: done again")
            ledger.forget_stage(stage.store, key.key)
        ledger.record_start(stage.store, stage.name, key, stage.run.run_id)
    progress, started = stage.progress, time.monotonic()
    result = body(stage, *bound.args, **bound.kwargs)
    seconds = time.monotonic() - started
    rows, digest = result.summary()
    receipt = Handle(stage=stage.name, key=key.key, rows=rows, digest=digest)
    ledger.write_receipt(stage.store, receipt, progress.counts(), seconds, stage.run.run_id)
    progress.end()
    said = _line(rows, progress, seconds)
    progress.say(said, logged=False)
    return result, said


def _line(rows: int, progress: StageProgress, seconds: float) -> str:
    parts = [f"{rows:,} rows", f"{progress.kept:,} kept", f"{progress.produced:,} new"]
    parts += [f"{progress.failed:,} failed"] if progress.failed else []
    parts += [f"{progress.tokens:,} tokens, {progress.tokens / max(seconds, 1e-9):,.0f}/s"] if progress.tokens else []
    return ", ".join([*parts, f"{seconds:.1f} s"])
