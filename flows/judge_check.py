"""One check of a judge on a file of labelled responses: open what it needs, judge, keep the result."""

import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from rlrf import judge_checking
from rlrf.backends.opening import Opening, open_generator, stop_engine
from rlrf.backends.protocols import Generator
from rlrf.engine_config import AnyEngine
from rlrf.judge_config import JudgeConfig, RubricJudge
from rlrf.judges.protocol import Judge
from rlrf.judging import build_judge
from rlrf.stages import judge_key
from rlrf.tables import Table
from rlrf.terminal import visible
from storage import health, ledger
from storage.store import Store

LINE_SECONDS = 10.0
"""How often a line says how far it is, where there is no terminal for a bar."""

_err = Console(stderr=True, highlight=False)


class Draw(NamedTuple):
    """How many of the rows are judged (all: None), and the seed of which."""

    limit: int | None
    seed: int


def check_judge(
    config: JudgeConfig, file: Path, columns: judge_checking.Columns, aspect: str | None, draw: Draw, home: Store | None
) -> dict[str, Any]:
    """Judge the file's rows and compare with their labels; rlrf.judge_checking.result says what comes back.

    With `home`, every aspect's check is kept there too.
    """
    with _ready(config, home) as judge:
        examples = judge_checking.read_examples(Table(path=str(file)), columns, judge.aspects, aspect, *draw)
        started, spent = time.monotonic(), []
        if isinstance(config, RubricJudge) and config.aspects == "prompt":
            examples, choices = judge_checking.with_chosen_aspects(judge, examples)
            spent += choices
        with _progress(len(examples)) as done:
            checks, judgements = judge_checking.check(judge, examples, done)
        seconds = time.monotonic() - started
        if aspect is not None:
            checks.sort(key=lambda one: one.aspect != aspect)
        result = judge_checking.result(judge, checks, [*spent, *judgements], len(examples), seconds)
        result["data"] = judge_checking.data_digest(examples)
        if home is not None:
            ledger.record_keys(home, judge_key(judge.ingredients()))
            for one in checks:
                health.add_check(home, result["judge_key"], result["data"], one.plain())
    return result


@contextmanager
def _ready(config: JudgeConfig, home: Store | None) -> Iterator[Judge]:
    """A judge whose engine, if it takes one, is opened by its first case and given back at the end."""

    def open_engine(engine: AnyEngine, folder: str | Path) -> Generator:
        logs = home.path.parent / "engines" if home else Path(tempfile.mkdtemp(prefix="rlrf-judge-"))
        return open_generator(engine, folder, Opening(logs, None, _say, _secret))

    judge = build_judge(config, open_engine)
    try:
        yield judge
    finally:
        judge.close()
        stop_engine(_say)


def _secret(name: str) -> str:
    from tasks.engines import read_secret  # with Prefect, which no other check needs

    return read_secret(name)


def _say(text: str) -> None:
    _err.print(f"  {visible(text)}", markup=False, soft_wrap=True)


@dataclass
class _Progress:
    total: int
    bar: Progress
    row: TaskID
    started: float = field(default_factory=time.monotonic)
    said: float = field(default_factory=time.monotonic)
    done: int = 0
    unrated: int = 0

    def __call__(self, done: int, unrated: int) -> None:
        self.done, self.unrated, now = self.done + done, self.unrated + unrated, time.monotonic()
        rate = self.done / max(now - self.started, 1e-9)
        text = f"{rate:,.1f} responses/s" + (f", {self.unrated:,} unrated" if self.unrated else "")
        self.bar.update(self.row, completed=self.done, text=text)
        if not _err.is_terminal and now - self.said > LINE_SECONDS:
            self.said = now
            _say(f"{self.done:,} of {self.total:,}, {text}, {(self.total - self.done) / rate:,.0f} s left")


@contextmanager
def _progress(total: int) -> Iterator[_Progress]:
    columns = (BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[text]}"), TimeRemainingColumn())
    with Progress(*columns, console=_err, transient=True, disable=not _err.is_terminal) as bar:
        yield _Progress(total, bar, bar.add_task("judge", total=total, text=""))
