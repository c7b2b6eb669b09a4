"""A judge that a user writes as a Python function."""

from __future__ import annotations

import copy
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from importlib.machinery import SourceFileLoader
from importlib.util import find_spec, module_from_spec, spec_from_loader
from numbers import Real
from pathlib import Path
from typing import Any

from rlrf.errors import ConfigError
from rlrf.fingerprints import content_id, file_digest
from rlrf.judges.batching import in_batches
from rlrf.records import Case, Judgement, Rating

VERSION = 1
"""Rises with every change to how the function is called or its result is read."""

MAX_REASON = 200
MAX_REPLY = 2000

Rate = Callable[..., Any]


class FunctionJudge:
    """Rates by `rate(messages, response, reference, metadata) -> {aspect: rating}`, or `{aspect: (rating, critique)}`.

    `messages` is the chat as a list of `{"role", "content"}`, `reference` is None where the prompt has none. The function
    gets copies. It is identified by its source file's contents, so an edit judges again; what that file imports is not
    looked at.

    Unrated reasons: truncated (the function isn't called), function_failed: <error>, bad_result: <why> (no dict, an aspect
    that isn't declared), unrated_aspects: <which> (missing, None, a bool, NaN, off the scale, a critique that is no text;
    the other ratings are kept). `raw_reply` holds the traceback or what the function returned.

    Raises:
        ConfigError: the function can't be imported, or is none.
    """

    def __init__(self, function: str, aspects: Sequence[str], low: float = -1, high: float = 1) -> None:
        self._rate, self._source = load_function(function)
        self._name = function.rpartition(":")[2]
        self.aspects = tuple(aspects)
        self.weights = dict.fromkeys(self.aspects, 1.0)
        self.scales = dict.fromkeys(self.aspects, (low, high))

    def ingredients(self) -> dict[str, Any]:
        """All that bears on its verdicts, as plain JSON."""
        return {
            "type": "python",
            "version": VERSION,
            "function": self._name,
            "source": self._source,
            "aspects": list(self.aspects),
            "weights": list(self.weights.values()),
            "scales": [[float(end) for end in self.scales[aspect]] for aspect in self.aspects],
        }

    def judge(self, cases: Sequence[Case]) -> Iterator[list[Judgement]]:
        """Yield judgements in the cases' order, 512 at a time."""
        return in_batches(cases, self.judge_one)

    def judge_one(self, case: Case) -> Judgement:
        """The judgement of one complete response."""
        messages = [dict(message) for message in case.messages]
        try:
            result = self._rate(messages, case.text, case.reference, copy.deepcopy(case.metadata))
        except (Exception, SystemExit) as error:  # the function is the user's, and may fail in any way
            return Judgement(case.response_id, reason=f"function_failed: {_said(error)}", raw_reply=_trace())
        if not isinstance(result, dict):
            reason = f"bad_result: {type(result).__name__}, not a dict of ratings"
            return Judgement(case.response_id, reason=reason, raw_reply=_shown(result))
        extra = [name for name in result if name not in self.aspects]
        if extra:
            reason = f"bad_result: aspects that aren't declared: {_shown(extra)}"[:MAX_REASON]
            return Judgement(case.response_id, reason=reason, raw_reply=_shown(result))
        return self._read(case, result)

    def close(self) -> None:
        """Nothing is held."""

    def _read(self, case: Case, result: dict[Any, Any]) -> Judgement:
        ratings, faults = [], []
        for aspect in self.aspects:
            scale = self.scales[aspect]
            rating, critique, fault = _entry(result, aspect, *scale)
            ratings.append(Rating(aspect, rating, critique, scale))
            if fault:
                faults.append(f"{aspect} ({fault})")
        if not faults:
            return Judgement(case.response_id, tuple(ratings))
        reason = f"unrated_aspects: {', '.join(faults)}"
        return Judgement(case.response_id, tuple(ratings), reason, raw_reply=_shown(result))


def load_function(name: str, setting: str = "judge.function") -> tuple[Rate, str]:
    """The function that `package.module:function` or `folder/file.py:function` names, and its source file's digest.

    The file is read and run anew for every call with changed contents, whatever was imported before. `setting`: where the
    name stands. Raises ConfigError.
    """
    place, _, attribute = name.rpartition(":")
    try:
        if not place or not attribute:
            raise ValueError("there is no ':' between the module and the function")
        path = Path(place) if place.endswith(".py") else _module_file(place)
        digest = file_digest(path)
        function = getattr(_loaded(path, place, digest), attribute)
    except (Exception, SystemExit) as error:  # importing a module runs it, and may fail in any way
        raise ConfigError(
            f"{setting} = {name!r}: {_said(error)}; write it as `package.module:function` or `folder/file.py:function`"
        ) from error
    if not callable(function):
        raise ConfigError(f"{setting} = {name!r}: {attribute!r} is {type(function).__name__}, not a function")
    return function, digest


class _Source(SourceFileLoader):
    """Loads from the source alone: a cached compilation may be older than the source it goes with."""

    def path_stats(self, path: Any) -> Any:
        raise OSError(f"no cached compilation of {path} is wanted")


def _module_file(module: str) -> Path:
    spec = find_spec(module)
    if spec is None:
        raise ModuleNotFoundError(f"No module named {module!r}")
    if spec.origin is None or not spec.origin.endswith(".py"):
        raise ImportError(f"{module!r} has no source file")
    return Path(spec.origin)


def _loaded(path: Path, place: str, digest: str) -> Any:
    """The module as it stands in its file; one per file and contents, under a name that nothing else imports."""
    identity = content_id("judge module", [str(path.resolve()), digest]).replace("-", "")
    package = "" if place.endswith(".py") else place.rpartition(".")[0] + "."
    name = f"{package.lstrip('.')}_rlrf_judge_{identity}"
    if name in sys.modules:
        return sys.modules[name]
    loader = _Source(name, str(path))
    spec = spec_from_loader(name, loader)
    assert spec is not None, "a loader of a file always has one"
    module = module_from_spec(spec)
    sys.modules[name] = module
    try:
        loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module


def _entry(result: dict[Any, Any], aspect: str, low: float, high: float) -> tuple[float | None, str, str | None]:
    """Rating, critique and what is wrong with an aspect's entry."""
    if aspect not in result:
        return None, "", "missing"
    entry = result[aspect]
    rating, critique = entry if isinstance(entry, tuple | list) and len(entry) == 2 else (entry, "")
    if not isinstance(critique, str) or not _is_unicode(critique):
        return None, "", f"the critique is {_shown(critique)[:40]}, not text"
    value = _number(rating)
    if value is None or not low <= value <= high:
        return None, critique, _shown(rating)[:40]
    return value, critique, None


def _number(rating: Any) -> float | None:
    if isinstance(rating, bool) or not isinstance(rating, Real):
        return None
    try:
        return float(rating)
    except (OverflowError, ValueError):
        return None


def _is_unicode(text: str) -> bool:
    return not any("\ud800" <= mark <= "\udfff" for mark in text)


def _said(error: BaseException) -> str:
    try:
        text = str(error)
    except Exception:
        text = "(an error that can't be printed)"
    return _printable(f"{type(error).__name__}: {text}")[:MAX_REASON]


def _shown(value: Any) -> str:
    try:
        return _printable(repr(value)[:MAX_REPLY])
    except Exception:
        return f"({type(value).__name__} that can't be printed)"


def _trace() -> str:
    return _printable(traceback.format_exc()[-MAX_REPLY:])


def _printable(text: str) -> str:
    return text.encode("utf-8", "backslashreplace").decode("utf-8")
