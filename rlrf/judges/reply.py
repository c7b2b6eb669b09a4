"""Reads the ratings out of a judge's reply. Tolerant of dressing, strict about meaning."""

from __future__ import annotations

import json
import re
from typing import Any

from rlrf.records import Rating
from rlrf.rubric import Rubric

MAX_REPLY = 100_000
MAX_OPEN = 32
"""Braces open at once in the prose around an object; more is noise, and each costs an attempt to read from it."""

Reading = tuple[tuple[Rating, ...], str | None]
"""The ratings in the rubric's order, and the reason when it is unrated."""

_RATINGS = {"-1": -1, "0": 0, "1": 1, "+1": 1, "-1.0": -1, "0.0": 0, "1.0": 1, "−1": -1}
_BACKSLASH = re.compile(r'\\(["\\/bfnrt]|u[0-9a-fA-F]{4})|\\')


def parse(text: str, rubric: Rubric) -> Reading:
    """The ratings of the JSON object that ends `text`.

    Code fences, prose around the object, numbers as strings, names in another case and stray backslashes are
    tolerated. Unrated reasons:
      no_json           no object that names an aspect, or it may be only a part of what was meant: braces that are not
                        closed around or after it, a key twice, more than 100,000 characters
      contradiction     several objects that don't agree
      unrated_aspects:  the aspects that are missing, or whose rating is none of -1, 0, 1 ('N/A', 2, true); the
                        ratings of the others are kept
    """
    objects = _objects(text) if len(text) <= MAX_REPLY else []
    names = {aspect.name for aspect in rubric.aspects}
    readings = [_read(found, rubric) for found in objects if names & found.keys()]
    if not readings:
        return (), "no_json"
    levels = [[rating.rating for rating in ratings] for ratings, _ in readings]
    return readings[-1] if all(level == levels[-1] for level in levels) else ((), "contradiction")


def _objects(text: str) -> list[dict[str, Any]]:
    """The outermost JSON objects of a reply; [] where a brace is open around one, or anything of the kind follows it.

    So an object that is quoted inside a broken one is never taken for the reply itself.
    """
    text = _BACKSLASH.sub(lambda found: found[0] if found[1] else r"\\", text)
    objects: list[dict[str, Any]] = []
    depth = at = 0
    while (brace := text.find("{", at)) >= 0:
        depth -= text.count("}", at, brace)
        if not 0 <= depth <= MAX_OPEN:
            return []
        try:
            found, at = _DECODER.raw_decode(text, brace)
        except (ValueError, RecursionError):
            depth += 1
            at = brace + 1
            continue
        if depth:
            return []
        objects.append(found)
    return [] if depth or "}" in text[at:] else objects


def _distinct(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    keys = [_name(key) for key, _ in pairs]
    if len(set(keys)) < len(keys):
        raise ValueError("a key stands twice")
    return dict(zip(keys, (value for _, value in pairs), strict=True))


def _name(key: str) -> str:
    return key.strip().lower().replace(" ", "_").replace("-", "_")


def _read(found: dict[str, Any], rubric: Rubric) -> Reading:
    ratings = []
    missing = []
    for aspect in rubric.aspects:
        entry = found.get(aspect.name)
        raw = entry.get("rating") if isinstance(entry, dict) else entry
        comment = entry.get("comment") if isinstance(entry, dict) else None
        rating = _RATINGS.get(str(raw).strip()) if isinstance(raw, (int, float, str)) else None
        if rating is None:
            missing.append(f"{aspect.name} ({repr(raw)[:40]})" if entry is not None else f"{aspect.name} (missing)")
        ratings.append(Rating(aspect.name, rating, comment.strip() if isinstance(comment, str) else ""))
    return tuple(ratings), f"unrated_aspects: {', '.join(missing)}" if missing else None


_DECODER = json.JSONDecoder(object_pairs_hook=_distinct, strict=False)
