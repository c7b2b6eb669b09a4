"""A judge against labels that people gave: reading the labelled responses, judging them, and how far both agree."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, cast

from rlrf import labels
from rlrf.agreement import alpha, confusion, count_units
from rlrf.errors import ConfigError, DataError
from rlrf.evaluating import wilson
from rlrf.fingerprints import content_id
from rlrf.judges.protocol import Chooser, Judge
from rlrf.labels import Kind, Label, Labelled
from rlrf.prompts import prompt_id_of, unstorable
from rlrf.readers import Row
from rlrf.records import UNBOUNDED, Case, Choice, Judgement, Prompt, Rating
from rlrf.sources import read_messages, read_metadata, read_reference
from rlrf.stages import judge_key
from rlrf.tables import Table, read_rows

Done = Callable[[int, int], None]
"""Told after every batch: how many responses were judged, and how many of them are unrated."""


@dataclass(frozen=True, slots=True)
class Columns:
    """Which column of a file of labelled responses holds what."""

    prompt: str
    response: str
    label: str
    reference: str | None = None
    metadata: tuple[str, ...] = ()

    def names(self) -> list[str]:
        """Every column that is read."""
        optional = [] if self.reference is None else [self.reference]
        return [self.prompt, self.response, self.label, *optional, *self.metadata]


@dataclass(frozen=True, slots=True)
class Example:
    """One labelled response: what the judge sees, and the labels of it by aspect."""

    case: Case
    labels: Mapping[str, Label]
    place: str


@dataclass(frozen=True, slots=True)
class AspectCheck:
    """How far a judge's ratings of one aspect agree with the labels.

    Attributes:
        labels: binary or scale (rlrf.labels.Kind).
        n: labelled responses that the judge rated; only they are in `agreement`, its interval (Wilson, 95 %) and `alpha`.
        unrated: labelled responses that it didn't rate, by reason in `reasons`.
        agreement: share of the n that are equal, None for none.
        agreement_of_all: the same if every unrated response counted as a disagreement.
        alpha: Krippendorff's alpha, nominal for binary labels and ordinal for others; None where it is undefined.
        confusion: label -> rating (or "unrated") -> responses.
    """

    aspect: str
    labels: Kind
    n: int
    unrated: int
    agreement: float | None
    interval: tuple[float, float]
    agreement_of_all: float | None
    alpha: float | None
    confusion: dict[str, dict[str, int]]
    reasons: dict[str, int]

    def plain(self) -> dict[str, Any]:
        """The same as plain JSON."""
        return asdict(self) | {"interval": list(self.interval)}


def read_examples(
    table: Table, columns: Columns, aspects: Sequence[str], aspect: str | None, limit: int | None, seed: int
) -> list[Example]:
    """The file's rows in their order, or a seeded draw of `limit` of them; `aspect` is the judge's first when unset.

    Raises:
        ConfigError: the judge doesn't rate the aspect.
        DataError: as rlrf.tables.read_rows; a cell that can't be used; names file and line.
    """
    if aspect is not None and aspect not in aspects:
        raise ConfigError(f"aspect {aspect!r}: the judge doesn't rate it; it rates {list(aspects)!r}")
    main = aspects[0] if aspect is None else aspect
    examples = [
        _example(row, columns, main, aspects, number) for number, row in enumerate(read_rows(table, columns.names()))
    ]
    if aspect is not None and not any(aspect in one.labels for one in examples):
        raise DataError(
            f"{table.path}, column {columns.label!r}: no row has a label of {aspect!r}; name another aspect"
        )
    if limit is None or limit >= len(examples):
        return examples
    return [examples[at] for at in sorted(random.Random(seed).sample(range(len(examples)), limit))]


def data_digest(examples: Sequence[Example]) -> str:
    """What was judged and how it was labelled, whatever the order of rows and the name of the file."""
    return content_id("labelled responses", sorted(map(_content, examples)))


def check(judge: Judge, examples: Sequence[Example], done: Done) -> tuple[list[AspectCheck], list[Judgement]]:
    """Judge every example and compare; one check per labelled aspect, in the judge's order, and the judgements.

    Raises:
        ConfigError: the judge's ratings have no top, so that they can't agree with a label.
        DataError: labels of two kinds, or off the judge's scale; the latter is known when the first response is rated.
    """
    columns = {
        aspect: [Labelled(one.place, one.labels[aspect]) for one in examples if aspect in one.labels]
        for aspect in judge.aspects
    }
    kinds = {aspect: labels.as_one_kind(column)[0] for aspect, column in columns.items() if column}
    on_scale = {aspect: column for aspect, column in columns.items() if kinds.get(aspect) == "scale"}
    unchecked = set(kinds)
    found: dict[str, Judgement] = {}
    for batch in judge.judge([one.case for one in examples]):
        for judgement in batch:
            for rating in judgement.ratings if unchecked else ():
                if rating.aspect in unchecked:
                    _check_scale(rating, on_scale.get(rating.aspect, ()))
                    unchecked.discard(rating.aspect)
            found[judgement.response_id] = judgement
        done(len(batch), sum(not judgement.rated for judgement in batch))
    judged = [found[one.case.response_id] for one in examples]
    return [_compare(aspect, kind, examples, judged) for aspect, kind in kinds.items()], judged


def with_chosen_aspects(judge: Judge, examples: Sequence[Example]) -> tuple[list[Example], list[Choice]]:
    """The examples with the aspects that the judge names for each prompt, for one that names them once per prompt."""
    cases = {one.case.prompt_id: one.case for one in examples}
    prompts = [Prompt(key, "labelled", case.messages, case.reference, case.metadata) for key, case in cases.items()]
    choices = {choice.prompt_id: choice for batch in cast(Chooser, judge).choose(prompts) for choice in batch}
    told = [replace(one, case=replace(one.case, aspects=choices[one.case.prompt_id].aspects)) for one in examples]
    return told, list(choices.values())


def result(
    judge: Judge, checks: Sequence[AspectCheck], spent: Sequence[Judgement | Choice], rows: int, seconds: float
) -> dict[str, Any]:
    """What a check found, as plain JSON: the first check's values, those of every aspect, and what it cost.

    Tokens are those of judgements and of naming aspects; responses per second include the opening of a model.
    """
    ingredients = judge.ingredients()
    return {
        "judge": ingredients.get("type", type(judge).__name__),
        "judge_key": judge_key(ingredients).key,
        **checks[0].plain(),
        "aspects": {one.aspect: one.plain() for one in checks},
        "rows": rows,
        "tokens": {
            "prompt": sum(one.prompt_tokens for one in spent),
            "completion": sum(one.completion_tokens for one in spent),
        },
        "seconds": round(seconds, 3),
        "responses_per_second": round(rows / seconds, 1) if seconds else None,
    }


def _example(row: Row, columns: Columns, aspect: str, aspects: Sequence[str], number: int) -> Example:
    text = row.values[columns.response]
    place = f"{row.place}, column {columns.response!r}"
    if not isinstance(text, str):
        raise DataError(f"{place} is {text!r} ({type(text).__name__}); a response is text: fill it or remove the row")
    if problem := unstorable(text):
        raise DataError(f"{place} holds {problem}; remove the character")
    messages = read_messages(row, columns.prompt, None, None)
    case = Case(
        response_id=content_id("labelled response", number),
        messages=messages,
        reference=read_reference(row, columns.reference),
        text=text,
        metadata=read_metadata(row, columns.metadata),
        prompt_id=prompt_id_of(messages),
    )
    place = f"{row.place}, column {columns.label!r}"
    return Example(case, labels.read_labels(row.values[columns.label], place, aspect, aspects), place)


def _content(example: Example) -> str:
    case = example.case
    given = {aspect: float(label) for aspect, label in example.labels.items()}
    return content_id("labelled", [list(case.messages), case.reference, case.text, case.metadata, given])


def _check_scale(rating: Rating, labelled: Sequence[Labelled]) -> None:
    if rating.scale == UNBOUNDED:
        raise ConfigError(
            f"the judge's {rating.aspect!r} has no highest value, so that it can't agree with a label; check a judge whose "
            "scale has ends"
        )
    labels.check_on_scale(labelled, rating.scale)


def _compare(aspect: str, kind: Kind, examples: Sequence[Example], judged: Sequence[Judgement]) -> AspectCheck:
    asked = [(one, judgement) for one, judgement in zip(examples, judged, strict=True) if aspect in one.labels]
    given = labels.as_one_kind([Labelled(one.place, one.labels[aspect]) for one, _ in asked])[1]
    ratings = [_rating(judgement, aspect) for _, judgement in asked]
    reasons = Counter(rating for rating in ratings if isinstance(rating, str))
    rated = [
        (float(label), labels.compared(rating, kind))
        for label, rating in zip(given, ratings, strict=True)
        if isinstance(rating, Rating)
    ]
    equal = sum(label == rating for label, rating in rated)
    table = confusion(
        (labels.shown(label), labels.shown(rating.rating if isinstance(rating, Rating) else None))
        for label, rating in zip(given, ratings, strict=True)
    )
    return AspectCheck(
        aspect,
        kind,
        n=len(rated),
        unrated=len(asked) - len(rated),
        agreement=equal / len(rated) if rated else None,
        interval=wilson(equal, len(rated)),
        agreement_of_all=equal / len(asked) if asked else None,
        alpha=alpha(count_units(rated), "nominal" if kind == "binary" else "ordinal"),
        confusion=table,
        reasons=dict(reasons.most_common()),
    )


def _rating(judgement: Judgement, aspect: str) -> Rating | str:
    """The rating of an aspect, or why there is none. An unrated judgement's other ratings don't count: it enters no pair."""
    if judgement.reason is not None:
        return judgement.reason
    found = next((one for one in judgement.ratings if one.aspect == aspect and one.rating is not None), None)
    return found or "aspect_not_rated"
