"""Whether a text is one JSON value that is valid under a schema; no schema can fetch anything or hang on a pattern."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from jsonschema import Draft202012Validator, FormatChecker
from jsonschema.exceptions import SchemaError, ValidationError
from jsonschema.validators import extend
from referencing import Registry
from referencing.exceptions import Unresolvable

from rlrf.judges.patterns import BadPattern, compiled, matches

MAX_MESSAGE = 200
MAX_PATH = 100

_FENCE = re.compile(r"```[A-Za-z0-9]*[ \t]*\n(.*?)\n?[ \t]*```", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Fault:
    """What keeps a text from being valid: where, which keyword of the schema ('' for no JSON at all), and in words."""

    path: str
    keyword: str
    message: str


@lru_cache(maxsize=256)
def validator(schema_text: str) -> Any:
    """The validator of a schema's JSON text (draft 2020-12). Raises BadPattern for one that can't be used."""
    try:
        schema = _load(schema_text)
        _Validator.check_schema(schema, format_checker=FormatChecker(formats=()))  # patterns are checked below
    except SchemaError as error:
        raise BadPattern(f"no JSON schema: at {_short(error.json_path, MAX_PATH)}: {_short(error.message)}") from error
    except (ValueError, RecursionError) as error:
        raise BadPattern(f"no JSON ({_short(str(error))})") from error
    # The library looks for evaluated names with patterns of its own, which have no time limit.
    names = {name for table in _tables(schema) for name in table}
    if {"unevaluatedProperties", "patternProperties"} <= names:
        raise BadPattern("unevaluatedProperties beside patternProperties is not supported")
    for one in _tables(schema):
        _check_table(one, has_ids="$id" in names)
    return _Validator(schema, registry=Registry())


def fault(schema_text: str, text: str) -> Fault | None:
    """The first fault of a text, a code fence around it aside; None where it is valid.

    Raises BadPattern (also for a reference that leads out of the schema), TooSlow, and RecursionError for values or
    schemas that are nested too deep to check.
    """
    ready = validator(schema_text)
    fenced = _FENCE.fullmatch(text.strip())
    try:
        value = _load(fenced[1] if fenced else text)
    except ValueError as error:
        return Fault("$", "", f"not one JSON value ({_short(str(error))})")
    try:
        first = next(ready.iter_errors(value), None)
    except Unresolvable as error:
        raise BadPattern(f"the reference {_short(str(error.ref), MAX_PATH)!r} leads out of the schema") from error
    if first is None:
        return None
    keyword = str(first.validator)
    shown = first.message if len(first.message) <= MAX_MESSAGE else f"does not satisfy `{keyword}`"
    return Fault(_short(first.json_path, MAX_PATH), keyword, shown)


def _load(text: str) -> Any:
    return json.loads(text, object_pairs_hook=_distinct, parse_constant=_refuse)


def _distinct(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a key stands twice")
    return found


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is not JSON")


def _short(text: str, length: int = MAX_MESSAGE) -> str:
    return text if len(text) <= length else text[: length - 3] + "..."


def _tables(schema: Any) -> Iterator[dict[str, Any]]:
    """All objects in a schema."""
    todo = [schema]
    while todo:
        one = todo.pop()
        if isinstance(one, dict):
            yield one
            todo.extend(one.values())
        elif isinstance(one, list):
            todo.extend(one)


def _check_table(table: dict[str, Any], has_ids: bool) -> None:
    """Raise BadPattern for a pattern that can't be used and for a reference that leads out of the schema."""
    named = table.get("patternProperties")
    for pattern in (table.get("pattern"), *(named if isinstance(named, dict) else ())):
        if isinstance(pattern, str):  # a property may be called `pattern`
            compiled(pattern)
    target = table.get("$ref")
    if isinstance(target, str) and not target.startswith("#") and not has_ids:
        raise BadPattern(f"the reference {_short(target, MAX_PATH)!r} leads out of the schema; nothing is fetched")


def _pattern(validator: Any, pattern: str, value: Any, _schema: Any) -> Iterator[ValidationError]:
    if validator.is_type(value, "string") and not matches(pattern, value, whole=False):
        yield ValidationError(f"{value!r} does not match {pattern!r}")


def _pattern_properties(validator: Any, table: dict[str, Any], value: Any, _schema: Any) -> Iterator[ValidationError]:
    if validator.is_type(value, "object"):
        for pattern, schema in table.items():
            for name, item in value.items():
                if matches(pattern, name, whole=False):
                    yield from validator.descend(item, schema, path=name, schema_path=pattern)


def _additional(validator: Any, rest: Any, value: Any, schema: Any) -> Iterator[ValidationError]:
    if not validator.is_type(value, "object"):
        return
    table = schema.get("patternProperties", {})
    for name, item in value.items():
        if name in schema.get("properties", {}) or any(matches(one, name, whole=False) for one in table):
            continue
        if rest is False:
            yield ValidationError(f"the property {name!r} is not allowed")
        else:
            yield from validator.descend(item, rest, path=name)


_Validator = extend(
    Draft202012Validator,
    {"pattern": _pattern, "patternProperties": _pattern_properties, "additionalProperties": _additional},
)
