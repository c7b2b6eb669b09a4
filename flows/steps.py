"""A plan's steps: one per stage, with what is there and what is left."""

from dataclasses import dataclass

from rlrf.explaining import Change
from rlrf.stages import Key

FINISHED, PARTLY, STALE, FRESH, OPEN = "finished", "partly reusable", "stale", "fresh", "open"
"""A stage has nothing to do; was started, or has rows under its ids; ran before with other ingredients; never ran; or waits
for earlier stages to say which of these it is."""

AT_MOST = "at most"
"""Why a bound isn't a count: earlier stages, which haven't run, decide."""


@dataclass(frozen=True)
class Step:
    """One stage of the plan.

    Attributes:
        rows: in all; None where that isn't known yet. `kept`: those that are there.
        tokens: to generate, about. `kept_tokens`: what the kept rows took, in a stage that isn't finished.
        of: whose rows it is about, where a stage comes more than once in an iteration.
        changes: against the nearest earlier key of the stage, for a stage that has to run.
    """

    iteration: int
    stage: str
    rows: int | None
    kept: int = 0
    tokens: int = 0
    why: str = ""
    key: Key | None = None
    state: str = OPEN
    of: str = ""
    kept_tokens: int = 0
    changes: tuple[Change, ...] = ()

    @property
    def title(self) -> str:
        """The stage's name, told apart from others of the same name."""
        return f"{self.stage} of {self.of}" if self.of else self.stage
