"""The user's own hook before a text enters the store: personal data goes where they say, by their function."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any

from rlrf.errors import DataError
from rlrf.judges.function import load_function
from rlrf.records import Message

SETTING = "prompts.redact"

_PLACE = re.compile(r"^.*?, (?:line|row) \d+")


class Redactor:
    """Calls the user's function, text to text, on every text of a row. Raises ConfigError where it can't be loaded."""

    def __init__(self, name: str) -> None:
        self._function: Callable[[str], Any] = load_function(name, SETTING)[0]
        self._name = name

    def text(self, text: str, place: str) -> str:
        """The text without what must not be kept. Raises DataError, which never holds the text."""
        try:
            found = self._function(text)
        except Exception as error:  # the function is the user's, and its message may quote the text
            raise DataError(
                f"{place}: {SETTING} = {self._name!r} failed with {type(error).__name__}; nothing of this row is kept: mend "
                "the function and run again"
            ) from None
        if not isinstance(found, str):
            kind = type(found).__name__
            raise DataError(f"{place}: {SETTING} = {self._name!r} returned {kind}, not text; mend the function")
        return found

    def messages(self, messages: Sequence[Message], place: str) -> tuple[Message, ...]:
        """Every turn's text without what must not be kept."""
        return tuple({**turn, "content": self.text(turn["content"], place)} for turn in messages)

    def value(self, value: Any, place: str) -> Any:
        """A value of the metadata, with all texts in it redacted."""
        if isinstance(value, str):
            return self.text(value, place)
        if isinstance(value, list):
            return [self.value(one, place) for one in value]
        if isinstance(value, dict):
            return {name: self.value(one, place) for name, one in value.items()}
        return value


def redactor(name: str | None) -> Redactor | None:
    """The hook that a configuration names, or none."""
    return Redactor(name) if name is not None else None


def without_text(error: DataError) -> DataError:
    """The error without the value that it quotes, which nobody has redacted."""
    found = _PLACE.match(str(error))
    place = found[0] if found else "a row"
    return DataError(f"{place} can't be used; its text isn't shown, as {SETTING} is set: look at the file")
