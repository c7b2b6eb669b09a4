"""Reads ratings, and choices of aspects, out of a judge's reply. Tolerant of dressing, strict about meaning."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from rlrf.judges.objects import Found, find_objects, stray_keys
from rlrf.records import Rating
from rlrf.rubric import Rubric

MAX_REPLY = 100_000

Reading = tuple[tuple[Rating, ...], str | None]
"""The ratings in the rubric's order, and the reason when it is unrated."""

Named = tuple[tuple[str, ...], str | None]
"""The aspects that were named in the rubric's order, and the reason when that can't be told."""

RATING_KEYS = ("rating", "score")
COMMENT_KEYS = ("comment", "reason", "explanation", "critique", "justification", "feedback", "rationale", "reasoning")

_WHOLE = re.compile(r"[+-]?\d{1,3}(?:\.0{1,3})?")
_GOES_ON = re.compile(r"[ \t`]*[,;:a-z'\")\]]")
"""After an object: the sentence in which it is quoted."""
_SHARE = re.compile(r"(\d{1,3}) ?(?:/|out of) ?(\d{1,3})")


def parse(
    text: str, rubric: Rubric, aspects: Sequence[str] | None = None, *, choose: int | None = None, material: str = ""
) -> Reading:
    """The ratings of the JSON object that ends `text`, for `aspects` (all of the rubric where None).

    With `choose`, the ratings of the aspects that the judge named, which must be so many. An object that stands in
    `material`, what was judged, is a quotation and no verdict.

    Code fences, prose around the object, numbers as strings, '4/5' on a scale that ends in 5, `score` for `rating`,
    `reason` or `explanation` for `comment`, names in another case, single quotes, commas too many and stray backslashes
    are tolerated. Unrated reasons:
      no_json           no object that names an aspect, or it may be only a part of what was meant: braces that are not
                        closed around or after it, keys outside of it, a sentence that goes on after it, a key twice
                        or nearly an aspect's, more than 100,000 characters
      contradiction     several objects that don't agree
      unrated_aspects:  the aspects that are missing, or whose rating isn't a level of the scale ('N/A', 2, true), or how
                        many were named instead of `choose`; the ratings of the others are kept
    """
    wanted = rubric.names if aspects is None else tuple(name for name in rubric.names if name in set(aspects))
    objects = _verdicts(text, rubric, material)
    if not objects:
        return (), "no_json"
    readings = [_read(found, rubric, wanted if choose is None else _named(found, rubric)) for found in objects]
    if any(_levels(reading) != _levels(readings[-1]) for reading in readings):
        return (), "contradiction"
    ratings, reason = readings[-1]
    if choose is not None and len(ratings) != choose:
        return ratings, f"unrated_aspects: {len(ratings)} named instead of {choose}"
    return ratings, reason


def parse_choice(text: str, rubric: Rubric, choose: int, material: str = "") -> Named:
    """The aspects that are the keys of the JSON object that ends `text`. Reasons: no_json, contradiction, and
    wrong_choice: an aspect that the rubric hasn't, or another number than `choose`.
    """
    objects = _verdicts(text, rubric, material)
    if not objects:
        return (), "no_json"
    if any(found.keys() != objects[-1].keys() for found in objects):
        return (), "contradiction"
    named = _named(objects[-1], rubric)
    if strange := sorted(objects[-1].keys() - set(named)):
        return (), f"wrong_choice: no aspect {', '.join(strange)[:80]!r}"
    return (named, None) if len(named) == choose else ((), f"wrong_choice: {len(named)} named instead of {choose}")


def _verdicts(text: str, rubric: Rubric, material: str) -> list[dict[str, Any]]:
    """The objects that name an aspect and were not copied out of what was judged."""
    objects, around = find_objects(text) if len(text) <= MAX_REPLY else ([], [])
    if not objects or _GOES_ON.match(around[-1]):
        return []
    if not stray_keys("\n".join(around)).isdisjoint((*rubric.names, *RATING_KEYS)):
        return []
    naming = [found for found in objects if not found.value.keys().isdisjoint(rubric.names)]
    if any(_is_near(key, rubric) for found in naming for key in found.value):
        return []
    shown = _squeezed(material) if naming else ""
    return [found.value for found in naming if not _is_quoted(found, shown)]


def _is_near(key: str, rubric: Rubric) -> bool:
    """Whether a key that is no aspect holds the name of one: it may have been damaged."""
    return key not in rubric.names and any(name in key for name in rubric.names)


def _is_quoted(found: Found, shown: str) -> bool:
    return _squeezed(found.source) in shown


def _squeezed(text: str) -> str:
    return re.sub(r"[\s\\]+", "", text)


def _named(found: dict[str, Any], rubric: Rubric) -> tuple[str, ...]:
    return tuple(name for name in rubric.names if name in found)


def _levels(reading: Reading) -> list[tuple[str, float | None]]:
    return [(rating.aspect, rating.rating) for rating in reading[0]]


def _read(found: dict[str, Any], rubric: Rubric, wanted: Sequence[str]) -> Reading:
    ratings = []
    missing = []
    for aspect in wanted:
        entry = found.get(aspect)
        raw, comment = _parts(entry)
        rating = _level(raw, rubric.scale)
        if rating is None:
            missing.append(f"{aspect} ({_storable(repr(raw)[:40])})" if entry is not None else f"{aspect} (missing)")
        ratings.append(Rating(aspect, rating, comment, rubric.scale))
    return tuple(ratings), f"unrated_aspects: {', '.join(missing)}" if missing else None


def _parts(entry: Any) -> tuple[Any, str]:
    """What an entry gives as the rating and as the comment; a bare value is a rating. Two ratings are none, and so is
    one beside a key that nobody asked for: two entries may have run together.
    """
    if not isinstance(entry, dict):
        return entry, ""
    strange = sorted(entry.keys() - {*RATING_KEYS, *COMMENT_KEYS})
    raw = strange or [entry[key] for key in RATING_KEYS if key in entry]
    comments = [entry[key].strip() for key in COMMENT_KEYS if isinstance(entry.get(key), str)]
    return (raw[0] if len(raw) == 1 and not strange else raw or None), _storable("\n".join(comments))


def _storable(text: str) -> str:
    """Text with halves of surrogate pairs, which JSON can spell and UTF-8 can't, joined or replaced."""
    return text if text.isascii() else text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def _level(raw: Any, scale: tuple[int, int]) -> int | None:
    """A level of the scale, or None for everything else."""
    if isinstance(raw, bool) or not isinstance(raw, int | float | str):
        return None
    low, high = scale
    said = str(raw).strip().replace("\u2212", "-") if not isinstance(raw, int) or abs(raw) <= 1000 else ""
    if share := _SHARE.fullmatch(said):
        said = share[1] if low >= 0 and high > 1 and int(share[2]) == high else ""
    level = int(float(said)) if _WHOLE.fullmatch(said) else None
    return level if level is not None and low <= level <= high else None
