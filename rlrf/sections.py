"""What every section of a configuration is."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, GetJsonSchemaHandler
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema

Share = Annotated[float, Field(ge=0.0, le=1.0)]

Off = BeforeValidator(lambda value: None if value == "off" else value)
"""For a rule that has a default: TOML has no null, so "off" unsets it."""


class Section(BaseModel):
    """Base of every section: frozen; a key that nobody knows is an error, and so is a number that is none."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, use_attribute_docstrings=True)

    @classmethod
    def __get_pydantic_json_schema__(cls, core_schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        schema = handler(core_schema)
        whole = handler.resolve_ref_schema(schema)
        properties = whole.get("properties", {})
        whole["title"] = properties.get("type", {}).get("const", whole.get("title"))  # as people write it in TOML
        _any_of(properties)
        return schema


def _any_of(schema: dict[str, Any]) -> None:
    """Choices between sections as `anyOf`: of `oneOf` with a discriminator Prefect's form makes a field for raw JSON."""
    if "oneOf" in schema:
        schema["anyOf"] = schema.pop("oneOf")
        schema.pop("discriminator", None)
    for value in schema.values():
        if isinstance(value, dict):
            _any_of(value)
