"""The JSON objects in a reply, read for certain or not at all.

Strict JSON is read by `json`. What models write instead is read by `_Loose`: single quotes, commas before a closing
brace, numbers such as +1 and words such as N/A without quotes. Nothing is mended that could be meant in two ways.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Any

MAX_OPEN = 32
"""Braces open at once in the prose around an object; more is noise, and each costs an attempt to read from it."""

MAX_DEPTH = 8
"""Levels of an object that isn't strict JSON."""

_BACKSLASH = re.compile(r"""\\(["'\\/bfnrt]|u[0-9a-fA-F]{4})|\\""")
_KEY = re.compile(r"""["']([^"'{}\\]{1,60})\\?["']\s*:""")
_SPACE = re.compile(r"\s*")
_TEXT = re.compile(r"""(["'])((?:(?!\1|\\).|\\.)*+)\1""", re.DOTALL)
_BARE = re.compile(r"""[^\s,:{}\[\]"']{1,40}""")
_ESCAPE = re.compile(r"\\(u[0-9a-fA-F]{4}|.)", re.DOTALL)
_ESCAPED = {"n": "\n", "t": "\t", "r": "\r", "b": "\b", "f": "\f"}


@dataclass(frozen=True, slots=True)
class Found:
    """An outermost object, its keys as `name` writes them, and the text that it was read from."""

    value: dict[str, Any]
    source: str


def name(key: str) -> str:
    """A key as aspects are written: lower case, with underscores."""
    return re.sub(r"[\s_-]+", "_", key.strip().lower())


def find_objects(text: str) -> tuple[list[Found], list[str]]:
    """The outermost objects of a reply, and what stands before, between and after them; no object where a brace is open
    around one.

    So an object that is quoted inside a broken one is never taken for the reply itself. A reply that is one JSON
    string as a whole is read as what that string says. A key that stands twice makes an object unreadable.
    """
    text = _BACKSLASH.sub(lambda found: found[0] if found[1] else r"\\", _unwrapped(text))
    objects: list[Found] = []
    around = []
    depth = at = past = 0
    while (brace := text.find("{", at)) >= 0:
        depth -= text.count("}", at, brace)
        if not 0 <= depth <= MAX_OPEN:
            return [], [text]
        read = _read(text, brace)
        if read is None:
            depth += 1
            at = brace + 1
            continue
        if depth:
            return [], [text]
        value, at = read
        objects.append(Found(value, text[brace:at]))
        around.append(text[past:brace])
        past = at
    return ([], [text]) if depth or "}" in text[at:] else (objects, [*around, text[past:]])


def stray_keys(around: str) -> set[str]:
    """Quoted keys outside of all objects: remains of one that can't be read."""
    return {name(key) for key in _KEY.findall(around)}


def _unwrapped(text: str) -> str:
    if text.lstrip("\ufeff \r\n\t").startswith('"'):
        try:
            inner = json.loads(text.strip("\ufeff \r\n\t"))
        except (ValueError, RecursionError):
            return text
        return inner if isinstance(inner, str) else text
    return text


def _read(text: str, brace: int) -> tuple[dict[str, Any], int] | None:
    """The object that begins at `brace` and where it ends; None where none does."""
    try:
        found, end = _DECODER.raw_decode(text, brace)
        return found, end
    except _TwiceError:
        return None
    except (ValueError, RecursionError):
        pass
    try:
        loose = _Loose(text, brace)
        return loose.object(MAX_DEPTH), loose.at
    except ValueError:
        return None


class _TwiceError(ValueError):
    """A key stands twice."""


def _distinct(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    keys = [name(key) for key, _ in pairs]
    if len(set(keys)) < len(keys):
        raise _TwiceError
    return dict(zip(keys, (value for _, value in pairs), strict=True))


_DECODER = json.JSONDecoder(object_pairs_hook=_distinct, strict=False)


class _Loose:
    """Reads one value after another from `at`; raises ValueError where that can't be done."""

    def __init__(self, text: str, at: int) -> None:
        self._text, self.at = text, at

    def object(self, depth: int) -> dict[str, Any]:
        self._take("{")
        pairs: list[tuple[str, Any]] = []
        while not self._is_next("}"):
            key = self._string()
            self._take(":")
            pairs.append((key, self._value(depth - 1)))
            if not self._is_next("}"):
                self._take(",")
        self._take("}")
        return _distinct(pairs)

    def _value(self, depth: int) -> Any:
        if depth <= 0:
            raise ValueError
        if self._is_next("{"):
            return self.object(depth)
        if self._is_next("["):
            return self._list(depth)
        return self._string() if self._is_next('"') or self._is_next("'") else self._match(_BARE)[0]

    def _list(self, depth: int) -> list[Any]:
        self._take("[")
        items = []
        while not self._is_next("]"):
            items.append(self._value(depth - 1))
            if not self._is_next("]"):
                self._take(",")
        self._take("]")
        return items

    def _string(self) -> str:
        return _ESCAPE.sub(_unescaped, self._match(_TEXT)[2])

    def _is_next(self, sign: str) -> bool:
        self._skip()
        return self._text.startswith(sign, self.at)

    def _take(self, sign: str) -> None:
        if not self._is_next(sign):
            raise ValueError
        self.at += len(sign)

    def _match(self, pattern: re.Pattern[str]) -> re.Match[str]:
        self._skip()
        found = pattern.match(self._text, self.at)
        if found is None:
            raise ValueError
        self.at = found.end()
        return found

    def _skip(self) -> None:
        found = _SPACE.match(self._text, self.at)
        self.at = found.end() if found else self.at


def _unescaped(found: re.Match[str]) -> str:
    sign = found[1]
    return chr(int(sign[1:], 16)) if len(sign) == 5 else _ESCAPED.get(sign, sign)
