"""Which rows made under another key are as good as new: what keys may differ in for their rows to serve each other."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

Ingredients = Mapping[str, Any]

_OPEN: dict[str, frozenset[str]] = {
    "response": frozenset(),
    "refinement": frozenset({"feedback"}),
}
"""Per kind of key, the ingredients besides `sampling.max_tokens` that don't bear on a text under a given id.

A refinement's id has the words of its feedback in it: the judge who gave them (another weight, say) makes no difference.
"""
_WHICH_ASPECTS = frozenset({"rubric", "task", "tasks"})
"""Ingredients of a rubric judge that say which aspects it asks for; of the rubric its scale bears on every rating."""
_CHOSEN = frozenset({"choice", "choose"})
"""Ingredients of a rubric judge that names the aspects itself, so that other aspects make other choices."""


class Sibling(NamedTuple):
    """A key that differs from another in its limit, or not even in that, and in nothing else that bears on a text."""

    key: str
    max_tokens: int


def limit_of(ingredients: Ingredients) -> int:
    """The `max_tokens` that a key of responses or refinements was made with."""
    return int(ingredients["sampling"]["max_tokens"])


def is_sibling(kind: str, mine: Ingredients, theirs: Ingredients) -> bool:
    """Whether rows of one key may serve under the other, as far as their lengths allow it."""
    return kind in _OPEN and _but_for_the_limit(kind, mine) == _but_for_the_limit(kind, theirs)


def shared_aspects(mine: Ingredients, theirs: Ingredients) -> tuple[str, ...]:
    """The aspects that two judges ask for in the same words, in the first one's order; none where anything else differs.

    Only rubric judges share aspects, and of them only those whose aspects the configuration names: a weight and the
    rubric's name are not shown to the model. Takes ingredients of keys as the store has them, plain JSON.
    """
    if mine.get("type") != "rubric" or _CHOSEN & mine.keys() or _but_for_aspects(mine) != _but_for_aspects(theirs):
        return ()
    known = [_words(aspect) for aspect in theirs["rubric"]["aspects"]]
    return tuple(aspect["name"] for aspect in mine["rubric"]["aspects"] if _words(aspect) in known)


def _but_for_the_limit(kind: str, ingredients: Ingredients) -> Ingredients:
    left = {name: value for name, value in ingredients.items() if name not in _OPEN[kind]}
    return left | {"sampling": {**ingredients["sampling"], "max_tokens": None}}


def _but_for_aspects(ingredients: Ingredients) -> Ingredients:
    left = {name: value for name, value in ingredients.items() if name not in _WHICH_ASPECTS}
    return left | {"scale": ingredients.get("rubric", {}).get("scale")}


def _words(aspect: Ingredients) -> Ingredients:
    return {name: value for name, value in aspect.items() if name != "weight"}
