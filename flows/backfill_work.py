"""What a backfill may be asked to do: one choice of the form, with what it needs."""

from datetime import datetime
from typing import Annotated, Literal

from pydantic import Field, model_validator

from rlrf.sections import Section

Iterations = Annotated[
    str | None,
    Field(pattern=r"^\d{1,3}(-\d{1,3})?$", description="2, or 1-3; every iteration of the home when left out"),
]
JudgeIt = Annotated[bool, Field(description="Have the configuration's judge rate what was made")]


class Rejudge(Section):
    """The configuration's judge over the responses of past iterations; nothing is generated."""

    kind: Literal["judge"] = "judge"
    iterations: Iterations = None


class Reexplore(Section):
    """Exploration by another policy over the prompts of past iterations."""

    kind: Literal["explore"] = "explore"
    policy: str = Field(description="'champion', the start of a policy's id or its name, or a model's folder")
    iterations: Iterations = None
    judge: JudgeIt = True


class Rerefine(Section):
    """Refinement by another policy of the promising responses of past iterations, from the configuration's judge's feedback."""

    kind: Literal["refine"] = "refine"
    policy: str = Field(description="'champion', the start of a policy's id or its name, or a model's folder")
    iterations: Iterations = None
    judge: JudgeIt = True


class Reevaluate(Section):
    """The exam of past policies on the configuration's held-out prompts, which may be a new benchmark."""

    kind: Literal["evaluate"] = "evaluate"
    policies: tuple[str, ...] = Field((), description="Ids, names or folders; every policy of the home when left out")


class Dates(Section):
    """Missed dates of a schedule, each a run of its own with its own `as_of`, in order."""

    kind: Literal["dates"] = "dates"
    first: datetime = Field(description="The earliest date, UTC where it has no zone")
    last: datetime | None = Field(None, description="The latest one; now when left out")
    cron: str = Field("0 2 * * *", description="The schedule, in UTC")
    at_most: int | None = Field(
        None, ge=1, description="Run this many of them, the earliest ones; the rest another time"
    )
    deployment: str | None = Field(
        None, description="Run them as runs of this deployment, behind its limit: flywheel/nightly. Here when left out"
    )

    @model_validator(mode="after")
    def _in_order(self) -> "Dates":
        from cronsim import CronSim, CronSimError

        try:
            CronSim(self.cron, self.first)
        except CronSimError as error:
            raise ValueError(
                f"cron: {self.cron!r} is no schedule ({error}); write '0 2 * * *' for every night at two"
            ) from None
        return self


Work = Annotated[
    Rejudge | Reexplore | Rerefine | Reevaluate | Dates,
    Field(discriminator="kind", description="Judge, explore, refine, evaluate, or run missed dates"),
]
