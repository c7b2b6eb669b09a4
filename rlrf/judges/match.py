"""A judge that needs no model: the response, or its last line, against a text, a regular expression or a JSON schema."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

from rlrf.errors import ConfigError
from rlrf.judges.batching import in_batches
from rlrf.judges.patterns import BadPattern, TooSlow, compiled, matches
from rlrf.judges.schemas import Fault, fault, validator
from rlrf.records import LEVELS, Case, Judgement, Rating

VERSION = 1
"""Rises with every change to this module, `patterns` or `schemas` that can change a verdict or a critique."""

Rule = Literal["exact", "regex", "json_schema"]
Part = Literal["all", "last_line"]

_SHOWN = 200


class MatchJudge:
    """Rates one aspect, 1 or -1: `answer` where each prompt's reference says what to match, `format` where the settings do.

    White space at both ends of the response is no part of it. A regular expression (library `regex`) must fit all of it.
    A schema's response may stand in a code fence. No critique names the pattern or the reference; a critique by a schema
    from the settings says what the schema demands.

    Unrated reasons: truncated, no_reference, bad_pattern: <why> (in a reference), pattern_too_slow (one second of
    processor time), not_checkable: <error> (nested too deep, or numbers beyond what can be compared).

    Raises:
        ConfigError: a pattern in the settings that can't be used; says where.
    """

    def __init__(
        self, rule: Rule = "exact", pattern: str | None = None, ignore_case: bool = False, part: Part = "all"
    ) -> None:
        self.rule, self.ignore_case, self.part = rule, ignore_case, part
        self.pattern = None if pattern is None else _usable(rule, pattern, ignore_case)
        self.aspects: tuple[str, ...] = ("answer" if pattern is None and rule != "json_schema" else "format",)
        self.weights = dict.fromkeys(self.aspects, 1.0)
        self.scales = dict.fromkeys(self.aspects, LEVELS)

    def ingredients(self) -> dict[str, Any]:
        """All that bears on its verdicts, as plain JSON."""
        return {
            "type": "match",
            "version": VERSION,
            "rule": self.rule,
            "pattern": self.pattern,
            "ignore_case": self.ignore_case,
            "part": self.part,
            "aspects": list(self.aspects),
            "weights": list(self.weights.values()),
        }

    def judge(self, cases: Sequence[Case]) -> Iterator[list[Judgement]]:
        """Yield judgements in the cases' order, 512 at a time."""
        return in_batches(cases, self.judge_one)

    def judge_one(self, case: Case) -> Judgement:
        """The judgement of one complete response."""
        own = self.pattern is None
        pattern = (case.reference or "").strip() if self.pattern is None else self.pattern
        if not pattern:
            return Judgement(case.response_id, reason="no_reference")
        try:
            critique = self._fault(pattern, own, _part(case.text, self.part))
        except BadPattern as error:
            return Judgement(case.response_id, reason=f"bad_pattern: {str(error)[:_SHOWN]}")
        except TooSlow:
            return Judgement(case.response_id, reason="pattern_too_slow")
        except Exception as error:  # jsonschema fails in many ways on numbers and depths that it wasn't made for
            return Judgement(case.response_id, reason=f"not_checkable: {type(error).__name__}")
        rating = Rating(self.aspects[0], -1 if critique else 1, critique or "Correct.")
        return Judgement(case.response_id, (rating,))

    def close(self) -> None:
        """Nothing is held."""

    def _fault(self, pattern: str, own: bool, text: str) -> str | None:
        """The critique of a text that doesn't match; `own` where the pattern is the prompt's."""
        what = "The response" if self.part == "all" else "The last line of the response"
        if self.rule == "json_schema":
            found = fault(pattern, text)
            return _schema_critique(what, found, own) if found else None
        if self.rule == "regex":
            same = matches(pattern, text, whole=True, ignore_case=self.ignore_case)
        else:
            same = text.casefold() == pattern.strip().casefold() if self.ignore_case else text == pattern.strip()
        return None if same else f"{what} is not what was asked for."


def _usable(rule: Rule, pattern: str, ignore_case: bool) -> str:
    """A pattern of the settings, a schema's file read. Raises ConfigError."""
    place = f"judge.pattern = {pattern[:_SHOWN]!r}"
    if not pattern.strip():
        raise ConfigError(
            f"{place}: nothing to match; give a pattern, or leave it out to match each prompt's reference"
        )
    try:
        if rule == "regex":
            compiled(pattern, ignore_case)
        elif rule == "json_schema":
            pattern = _schema_text(pattern)
            validator(pattern)
    except OSError as error:
        raise ConfigError(
            f"{place}: {error.strerror}; give a schema as JSON text or the path of a .json file"
        ) from error
    except (BadPattern, UnicodeDecodeError) as error:
        raise ConfigError(f"{place}: {error}; mend it") from error
    return pattern


def _schema_text(pattern: str) -> str:
    return Path(pattern).read_text(encoding="utf-8") if pattern.strip().endswith(".json") else pattern


def _part(text: str, part: Part) -> str:
    text = text.strip()
    return text if part == "all" else text[text.rfind("\n") + 1 :].strip()


def _schema_critique(what: str, found: Fault, own: bool) -> str:
    """A prompt's own schema may hold the answer ('42 was expected'), which no critique may give away."""
    if not found.keyword:
        return f"{what} is {found.message}."
    said = f"does not satisfy `{found.keyword}`" if own else found.message
    return f"{what} is not in the form that was asked for: at {found.path}: {said}."
