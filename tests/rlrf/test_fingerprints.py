"""Ids: frozen values, canonical form, refusals, seeds."""

from __future__ import annotations

import json
import re
import uuid
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlrf.fingerprints import (
    SEED_SPAN,
    canonical_json,
    content_id,
    file_digest,
    numbered_ids,
    response_seed,
    response_seeds,
)

TEXT = st.text(st.characters(exclude_categories=["Cs"]))
LEAVES = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | TEXT
JSON_VALUES = st.recursive(
    LEAVES, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXT, inner, max_size=4), max_leaves=5
)


def test_ids_never_change() -> None:
    """Every store in the world is keyed by these: a failure here means that old stores would be done again."""
    chat = {"messages": [{"role": "user", "content": "Wie viel ist 2 + 2? ½ 🙂"}]}
    assert content_id("prompt", chat) == "4a55108e-c09c-69cf-db32-0e51ee3af991"
    assert content_id("prompt", []) == "a6a3a990-696d-aeec-f4d4-061211e96338"
    assert content_id("x", {"b": [1, 1.0, True, None, "\n\x00"], "a": 1e-6}) == "2c30a6b7-65ea-59ff-60be-35f79978f31c"


def test_seeds_never_change() -> None:
    assert response_seed("g", "p", None, 0) == 126019856
    assert response_seed("g", "p", "r", 3) == 151165192


def test_file_digest_never_changes(tmp_path: Path) -> None:
    path = tmp_path / "weights.bin"
    path.write_bytes(b"\x00\xff" * 1_000_000)
    assert file_digest(path) == file_digest(str(path)) == "9295cb20-f0f7-ffe6-a363-b4068e424e8d"


@given(JSON_VALUES)
def test_an_id_is_a_lower_case_uuid(value: Any) -> None:
    identity = content_id("kind", value)
    assert str(uuid.UUID(identity)) == identity


@given(st.dictionaries(TEXT, JSON_VALUES, max_size=4))
def test_the_order_of_keys_does_not_matter(value: dict[str, Any]) -> None:
    assert content_id("kind", value) == content_id("kind", dict(reversed(value.items())))


def test_tuples_count_as_lists() -> None:
    assert content_id("kind", {"a": (1, (2, 3))}) == content_id("kind", {"a": [1, [2, 3]]})


def test_values_that_differ_have_ids_that_differ() -> None:
    values: list[Any] = [1, 1.0, True, "1", [1], {"1": 1}, None, "", [], {}, "a\nb", "a\\nb"]
    assert len({content_id("kind", value) for value in values}) == len(values)


@given(TEXT, TEXT, JSON_VALUES)
def test_the_kind_is_part_of_the_id(one: str, other: str, value: Any) -> None:
    assert (content_id(one, value) == content_id(other, value)) == (one == other)


def test_canonical_json_keeps_letters_and_drops_spaces() -> None:
    assert canonical_json({"b": ["ü", 1.5], "a": None}) == '{"a":null,"b":["ü",1.5]}'


@pytest.mark.parametrize(
    ("value", "error", "message"),
    [
        ({"a": [0, {"b": {1, 2}}]}, TypeError, "$.a[1].b is {1, 2} (set)"),
        ({"a": {1: "x"}}, TypeError, "$.a has the key 1 (int): keys must be text"),
        ({"path": Path("x")}, TypeError, "$.path is PosixPath('x') (PosixPath): turn it into text"),
        (b"x", TypeError, "$ is b'x' (bytes)"),
        ({"lr": float("nan")}, ValueError, "$.lr is nan"),
        ([float("inf")], ValueError, "$[0] is inf"),
        ({"text": "ab\ud800"}, ValueError, "$.text holds the lone surrogate '\\ud800' at 2"),
        ({"\udfff": 1}, ValueError, "$ holds the lone surrogate '\\udfff' at 0"),
    ],
)
def test_what_is_not_plain_json_is_refused_with_its_path(value: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=re.escape(message)):
        content_id("kind", value)


@given(TEXT, st.lists(LEAVES, max_size=3), st.lists(st.integers(0, 2**40), max_size=3))
def test_numbered_ids_are_those_that_each_would_have_alone(kind: str, given: list[Any], numbers: list[int]) -> None:
    assert numbered_ids(kind, given, numbers) == [content_id(kind, [*given, number]) for number in numbers]


@given(JSON_VALUES)
def test_the_bytes_are_those_of_plain_json(value: Any) -> None:
    plain = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    assert canonical_json(value) == plain


@given(TEXT, TEXT, st.none() | TEXT, st.integers(0, 2**20 - 1))
def test_a_seed_is_the_base_plus_the_index(gen_key: str, prompt_id: str, parent_id: str | None, index: int) -> None:
    base = response_seed(gen_key, prompt_id, parent_id, 0)
    assert 0 <= base < SEED_SPAN
    assert response_seed(gen_key, prompt_id, parent_id, index) == base + index < 2**31


def test_every_ingredient_moves_the_seed() -> None:
    seeds = [response_seed(*key, 0) for key in [("g", "p", None), ("h", "p", None), ("g", "q", None), ("g", "p", "r")]]
    assert len(set(seeds)) == len(seeds)


@given(st.integers(0, 50), st.integers(0, 50))
def test_seeds_of_several_indices_are_those_that_each_would_have_alone(first: int, count: int) -> None:
    indices = range(first, first + count)
    assert response_seeds("g", "p", None, indices) == [response_seed("g", "p", None, index) for index in indices]


@pytest.mark.parametrize("index", [-1, 2**20])
def test_an_index_that_would_leave_the_seed_range_is_refused(index: int) -> None:
    with pytest.raises(ValueError, match=f"response index {index} is outside"):
        response_seed("g", "p", None, index)
