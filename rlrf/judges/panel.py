"""Several judges on one response: their verdicts, and the one that is merged from them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from fractions import Fraction
from statistics import median
from typing import Any, Literal

from rlrf.errors import ConfigError
from rlrf.judges.batching import BATCH
from rlrf.judges.protocol import Judge
from rlrf.records import Case, Judgement, Rating, Scale

VERSION = 1
"""Rises with every change that can change a merged verdict or critique."""

Merge = Literal["mean", "median", "min", "majority"]


class PanelJudge:
    """Judges each case by all members and merges their verdicts.

    Where every member's verdict is kept by itself, under the member's own key, `merge` makes the same of the stored
    verdicts as `judge` does; it asks no model.

    Raises:
        ConfigError: fewer than two members, a quorum above their number, or two scales for one aspect (of the members
            that know theirs, in a dict `scales`).
    """

    def __init__(self, members: Sequence[Judge], merge: Merge = "median", quorum: int | None = None) -> None:
        if len(members) < 2 or (quorum or 1) > len(members):
            raise ConfigError(
                f"judge.quorum = {quorum!r} with {len(members)} judges: a panel needs two or more, and a quorum of at most all"
            )
        self.members, self.rule, self.quorum = tuple(members), merge, quorum
        self.aspects = tuple(dict.fromkeys(aspect for member in members for aspect in member.aspects))
        self.weights = {aspect: _mean(_weights(members, aspect)) for aspect in self.aspects}
        self.scales = {aspect: scale for aspect in self.aspects if (scale := _scale(members, aspect)) is not None}

    def ingredients(self) -> dict[str, Any]:
        """All that bears on its verdicts, as plain JSON; members in order, which is the order of their critiques."""
        return {
            "type": "panel",
            "version": VERSION,
            "merge": self.rule,
            "quorum": self.quorum,
            "judges": [member.ingredients() for member in self.members],
        }

    def judge(self, cases: Sequence[Case]) -> Iterator[list[Judgement]]:
        """Yield merged judgements in the cases' order, 512 at a time."""
        for start in range(0, len(cases), BATCH):
            part = cases[start : start + BATCH]
            found = [
                {verdict.response_id: verdict for batch in member.judge(part) for verdict in batch}
                for member in self.members
            ]
            yield [self.merge([verdicts[case.response_id] for verdicts in found]) for case in part]

    def merge(self, verdicts: Sequence[Judgement]) -> Judgement:
        """The panel's judgement of one response from its members' judgements, in the members' order."""
        return merge(verdicts, self.rule, self.quorum, [member.aspects for member in self.members])

    def close(self) -> None:
        """Close every member, also when one of them fails to."""
        with ExitStack() as stack:
            for member in self.members:
                stack.callback(member.close)


def merge(
    verdicts: Sequence[Judgement],
    rule: Merge,
    quorum: int | None = None,
    aspects: Sequence[Sequence[str]] | None = None,
) -> Judgement:
    """One judgement from several judges' judgements of the same response, aspect by aspect.

    A judge has an aspect if its ratings name it; one that failed without ratings has those of `aspects` (what each judge
    rates, in the order of `verdicts`) that no rated judge of the same aspects leaves out, and without `aspects` all that
    are named. An aspect needs `quorum` ratings or those of all judges that have it, where they are fewer; all of them when
    `quorum` is None. The critique is the judges' critiques in their order, each once. Tokens and attempts are 0: they are
    counted where each judge's own judgement is.

    Unrated reasons, joined by '; ' (the other aspects' ratings are kept): scales_differ: <aspects>, no_majority:
    <aspects> (no rating has more than half), no_quorum: <aspect> <ratings> of <judges> (judge <place>: <its reason>);
    where all judges failed for one and the same reason, that reason.

    Raises:
        ValueError: no verdicts, or verdicts on different responses.
    """
    if len({verdict.response_id for verdict in verdicts}) != 1:
        raise ValueError(
            f"{len(verdicts)} verdicts on {sorted({v.response_id for v in verdicts})!r}: give those on one"
        )
    response_id = verdicts[0].response_id
    reasons = {verdict.reason for verdict in verdicts}
    if len(reasons) == 1 and verdicts[0].reason and not any(verdict.ratings for verdict in verdicts):
        return Judgement(response_id, reason=verdicts[0].reason)
    holders = _holders(verdicts, aspects)
    if not holders:
        places = range(len(verdicts))
        return Judgement(response_id, reason=f"no_quorum: no aspect has a rating ({_why(verdicts, places)})")
    merged = [_merge_aspect(aspect, verdicts, places, rule, quorum) for aspect, places in holders.items()]
    faults: dict[str, list[str]] = {}
    for _, kind, detail in merged:
        if kind:
            faults.setdefault(kind, []).append(detail)
    reason = "; ".join(f"{kind}: {', '.join(faults[kind])}" for kind in sorted(faults)) or None
    return Judgement(response_id, tuple(rating for rating, _, _ in merged), reason)


def _holders(verdicts: Sequence[Judgement], aspects: Sequence[Sequence[str]] | None) -> dict[str, list[int]]:
    """Per aspect, in order of first mention, the places of the judges that have it."""
    holders: dict[str, list[int]] = {}
    for place, verdict in enumerate(verdicts):
        for rating in verdict.ratings:
            holders.setdefault(rating.aspect, []).append(place)
    named = list(holders)
    for place, verdict in enumerate(verdicts):
        if verdict.ratings:
            continue
        expected = named if aspects is None else _expected(place, verdicts, aspects)
        for aspect in expected:
            holders.setdefault(aspect, []).append(place)
    return holders


def _expected(place: int, verdicts: Sequence[Judgement], aspects: Sequence[Sequence[str]]) -> list[str]:
    """What a judge that failed would have rated: what a judge with the same aspects rated, else all its aspects.

    Judges that choose aspects per prompt rate fewer than they know.
    """
    own = aspects[place]
    named = {
        rating.aspect
        for other, verdict in enumerate(verdicts)
        if set(aspects[other]) == set(own)
        for rating in verdict.ratings
    }
    return [aspect for aspect in own if aspect in named or not named]


def _merge_aspect(
    aspect: str, verdicts: Sequence[Judgement], places: Sequence[int], rule: Merge, quorum: int | None
) -> tuple[Rating, str, str]:
    """The merged rating of one aspect, and the kind and detail of what is wrong with it, '' where nothing is."""
    found = {place: r for place in places for r in verdicts[place].ratings if r.aspect == aspect}
    critique = " ".join(dict.fromkeys(text for r in found.values() if (text := r.critique.strip())))
    scales = {r.scale for r in found.values()}
    if len(scales) > 1:
        return Rating(aspect, None, critique), "scales_differ", aspect
    scale = scales.pop() if scales else (-1.0, 1.0)
    given = [r.rating for r in found.values() if r.rating is not None]
    if len(given) < min(quorum or len(places), len(places)):
        failed = [place for place in places if place not in found or found[place].rating is None]
        detail = f"{aspect} {len(given)} of {len(places)} ({_why(verdicts, failed)})"
        return Rating(aspect, None, critique, scale), "no_quorum", detail
    rating = _merged(given, rule)
    return Rating(aspect, rating, critique, scale), "" if rating is not None else "no_majority", aspect


def _why(verdicts: Sequence[Judgement], places: Sequence[int]) -> str:
    return ", ".join(f"judge {place + 1}: {verdicts[place].reason or 'no rating'}" for place in places)


def _merged(given: Sequence[float], rule: Merge) -> float | None:
    """Exact in between, so that neither order nor rounding can move a rating off its scale."""
    if rule == "mean":
        return _mean(given)
    if rule == "median":
        return float(median(Fraction(rating) for rating in given))
    if rule == "min":
        return min(given)
    rating, count = Counter(given).most_common(1)[0]
    return rating if 2 * count > len(given) else None


def _mean(numbers: Sequence[float]) -> float:
    return float(sum(map(Fraction, numbers)) / len(numbers))


def _weights(members: Sequence[Judge], aspect: str) -> list[float]:
    return [member.weights[aspect] for member in members if aspect in member.aspects]


def _scale(members: Sequence[Judge], aspect: str) -> Scale | None:
    """The one scale of an aspect, as far as members know theirs. Raises ConfigError."""
    known = {
        tuple(map(float, scales[aspect])) for member in members if aspect in (scales := getattr(member, "scales", {}))
    }
    if len(known) > 1:
        raise ConfigError(
            f"judge.judges: the aspect {aspect!r} has the scales {sorted(known)!r}; rate it on one scale in all judges"
        )
    return known.pop() if known else None  # type: ignore[return-value]  # pairs by construction
