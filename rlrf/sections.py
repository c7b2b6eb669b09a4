"""What every section of a configuration is."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

Share = Annotated[float, Field(ge=0.0, le=1.0)]

Off = BeforeValidator(lambda value: None if value == "off" else value)
"""For a rule that has a default: TOML has no null, so "off" unsets it."""


class Section(BaseModel):
    """Base of every section: frozen; a key that nobody knows is an error, and so is a number that is none."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)
