"""Guided answers: texts that the server holds to a JSON schema while they are drawn, and the check that it did."""

from __future__ import annotations

import json
from functools import lru_cache
from typing import Any

from rlrf.errors import BackendError

WORD = "quoxilbrand"
"""No model says this of its own accord."""
_PLAIN = {"type": "string", "enum": [WORD]}
_OBJECT = {"type": "object", "properties": {"word": _PLAIN}, "required": ["word"], "additionalProperties": False}
PROOFS: tuple[dict[str, Any], ...] = (_PLAIN, _OBJECT)
"""Schemas of which a guided answer is a proof. The first leaves no room for white space, of which a weak model may
draw no end; some providers guide objects alone."""


def response_format(schema: Any) -> dict[str, Any]:
    """The field of a chat request that asks for a guided answer."""
    return {"type": "json_schema", "json_schema": {"name": "answer", "schema": schema, "strict": True}}


def schema_fault(text: str, json_schema: str) -> str | None:
    """What keeps a text from being an instance of the schema, or None. Raises BackendError for a schema that is none."""
    from referencing.exceptions import Unresolvable

    validator = _validator(json_schema)
    try:
        value = json.loads(text, parse_constant=_refuse)
        fault = next(validator.iter_errors(value), None)
    except Unresolvable as error:
        raise BackendError(f"json_schema is {json_schema!r}: {error}; keep every definition within it") from error
    except ValueError as error:
        return f"no JSON ({error})"
    except RecursionError:
        return "nested too deep"
    return None if fault is None else f"{fault.json_path}: {fault.message}"


@lru_cache(maxsize=64)
def _validator(json_schema: str) -> Any:
    """Imported here: only guided runs need it. References are looked up nowhere but in the schema itself."""
    from jsonschema import Draft202012Validator
    from jsonschema.exceptions import SchemaError
    from referencing import Registry

    try:
        schema = json.loads(json_schema)
        Draft202012Validator.check_schema(schema)
    except (ValueError, SchemaError) as error:
        raise BackendError(f"json_schema is {json_schema!r}: {str(error).splitlines()[0]}; correct it") from error
    return Draft202012Validator(schema, registry=Registry())


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is not JSON")
