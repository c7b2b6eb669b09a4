"""The configuration of what `rlrf gc` may remove. It bears on no result: no key has it."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from rlrf.sections import Off, Section

Days = Annotated[float, Field(ge=0)]


class Retention(Section):
    """What `rlrf gc` keeps. Champions, present and past, are kept whatever is here; nothing goes unless gc is asked."""

    policies: Annotated[Annotated[int, Field(ge=0)] | None, Off] = Field(
        None, description='Trained policies that were never champion: keep the folders of this many; "off": of all'
    )
    logs_days: Days = Field(30.0, description="Days that logs of engines, logs and data of finished trainings are kept")
    checkpoints_days: Days = Field(30.0, description="Days that checkpoints of trainings without an end are kept")
    copies_days: Days = Field(
        30.0, description="Days that copies of the store, and folders that were set aside, are kept"
    )
