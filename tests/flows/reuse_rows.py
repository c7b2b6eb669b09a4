"""The reuse table: one change of a configuration per row, what it asks for again, and the lines that docs/resume.md has."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rlrf.config import RunConfig
from tests import builders
from tests.flows.stagewise import ASPECTS, PROMPTS, Turn, rubric_judge, small, turn

Change = Callable[[Path], dict[str, Any]]
"""The changed keys of a configuration in this folder."""


@dataclass(frozen=True)
class Row:
    """A change in words, its keys, and what must come of it.

    `serves`: SQL, which of the explored responses serve on. `asked`: how much is asked for again: explored, refined, exam
    answers, judge calls, ratings (a call asks for several). `trains`: whether the policy trains again.
    """

    change: str
    keys: Change
    kept: str
    serves: str
    asked: tuple[int, int, int, int, int]
    trains: bool

    def config(self, folder: Path) -> RunConfig:
        """The changed configuration."""
        folder.mkdir(parents=True, exist_ok=True)
        return small(folder, **self.keys(folder))


def keys(**changes: Any) -> Change:
    return lambda folder: changes


def all_limits(tokens: int) -> Change:
    return keys(**{f"{stage}__max_tokens": tokens for stage in ("explore", "refine", "evaluate")})


def judged_by(*aspects: str, **words: dict[str, Any]) -> Change:
    return lambda folder: {"judge": rubric_judge(folder, aspects, **words)}


def more_prompts(folder: Path) -> dict[str, Any]:
    rows = builders.prompt_rows("prompts")[: PROMPTS + 2]
    return {"prompts__sources": [builders.source(builders.write_lines(folder / "more.jsonl", rows))]}


NOTHING = (0, 0, 0, 0, 0)
REWORDED = {"definition": "Can a child follow it?"}
UNRELATED = {
    "name": "another",
    "engine__batch_size": 3,
    "train__save_every": 7,
    "gate__patience": 2,
    "limits__failed": 0.5,
}
ROWS = {
    "more_n": Row("`explore.n` 3 -> 4", keys(explore__n=4), "the first 3", "true", (8, 2, 0, 3, 6), False),
    "fewer_n": Row("`explore.n` 3 -> 2", keys(explore__n=2), "the first 2", "position < 2", (0, 4, 0, 2, 4), True),
    "more_m": Row("`refine.m` 2 -> 3", keys(refine__m=3), "the first 2", "true", (0, 8, 0, 6, 12), True),
    "more_tokens": Row(
        "every `max_tokens` 32 -> 96",
        all_limits(96),
        "complete texts with their ratings",
        "finish_reason = 'stop'",
        (5, 6, 3, 14, 28),
        True,
    ),
    "fewer_tokens": Row(
        "every `max_tokens` 32 -> 20",
        all_limits(20),
        "complete texts within the limit, with their ratings",
        "finish_reason = 'stop' AND completion_tokens <= 20",
        (11, 4, 6, 0, 0),
        True,
    ),
    "new_aspect": Row(
        "an aspect added to the rubric (2 -> 3)",
        judged_by(*ASPECTS, "kind"),
        "texts; ratings on the old aspects",
        "true",
        (0, 16, 0, 38, 62),
        True,
    ),
    "reworded": Row(
        "one of 2 aspects reworded",
        judged_by(*ASPECTS, clear=REWORDED),
        "texts; ratings on the other aspect",
        "true",
        (0, 6, 0, 36, 41),
        True,
    ),
    "removed": Row(
        "one of 2 aspects removed",
        judged_by(ASPECTS[0]),
        "texts; ratings on the other aspect",
        "true",
        (0, 16, 0, 13, 13),
        True,
    ),
    "weight": Row("an aspect's weight", judged_by(*ASPECTS, clear={"weight": 3.0}), "all", "true", NOTHING, False),
    "prompts": Row("2 prompts added to 8", more_prompts, "all that belongs to the 8", "true", (6, 4, 0, 9, 18), True),
    "rule": Row("`pairs.type`", keys(pairs__type="best_worst"), "texts; ratings", "true", NOTHING, False),
    "k": Row("`pairs.k`", keys(pairs__k=1), "texts; ratings", "true", NOTHING, False),
    "observer": Row(
        "an observer added (math)", keys(observers=[{"type": "math"}]), "all; it alone judges", "true", NOTHING, False
    ),
    "rate": Row("`train.learning_rate`", keys(train__learning_rate=5e-5), "all but the policy", "true", NOTHING, True),
    "unrelated": Row(
        "name, home, the rubric's path, batch size, `save_every`, `patience`, `limits`",
        keys(**UNRELATED),
        "all",
        "true",
        NOTHING,
        False,
    ),
    "temperature": Row(
        "`explore.temperature`",
        keys(explore__temperature=0.8),
        "exam answers",
        "false",
        (24, 16, 0, 26, 52),
        True,
    ),
}


@dataclass(frozen=True)
class Measured:
    """A row with the turn before its change and the one after it."""

    row: Row
    before: Turn
    after: Turn

    @property
    def asked(self) -> tuple[int, ...]:
        """What was asked for again: explored, refined, exam, judge calls, ratings."""
        return tuple(self.after.asked.get(one, 0) for one in ("explored", "refined", "exam", "judged", "ratings"))

    @property
    def trains(self) -> bool:
        """Whether the policy trains again."""
        return self.after.trains != self.before.trains

    def line(self) -> str:
        """The row of the table: what was asked for again, of what the changed configuration needs."""
        needed = [len(self.after.rows[one]) for one in ("explored", "refined", "exam")]
        needed += [self.after.judged, self.after.ratings]
        cells = [f"{n} of {of}" for n, of in zip(self.asked, needed, strict=True)]
        return f"| {self.row.change} | {' | '.join(cells)} | {'yes' if self.trains else 'no'} | {self.row.kept} |"


HEAD = """| change | responses | refinements | exam answers | judge calls | ratings | trains again | what serves on |
|---|---|---|---|---|---|---|---|"""


def measure(row: Row, before: Turn, folder: Path) -> Measured:
    """The changed turn on a copy of the store that the turn before left."""
    shutil.copytree(before.store.path.parent, folder / "home")
    return Measured(row, before, turn(row.config(folder)))
