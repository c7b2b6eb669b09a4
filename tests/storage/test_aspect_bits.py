"""Packed levels are compared as the levels themselves are."""

from __future__ import annotations

from collections.abc import Iterator

import duckdb
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from storage.aspect_bits import WORD, pack_aspects, packing_of
from tests.storage.builders import JUDGE, uid


@pytest.fixture(scope="module")
def connection() -> Iterator[duckdb.DuckDBPyConnection]:
    """The two tables that packing reads, without a store."""
    with duckdb.connect() as found:
        found.execute("CREATE TABLE ratings (response_id UUID, judge_key UUID, aspect VARCHAR, level DOUBLE)")
        found.execute(
            "CREATE TABLE candidates AS SELECT uuid() AS prompt_id, unnest($ids::UUID[]) AS response_id, 0.5 AS score, "
            "0.5 AS rank, '' AS draw",
            {"ids": [uid("0"), uid("1")]},
        )
        yield found


@given(aspects=st.integers(1, 200), highest=st.integers(0, 2**40))
def test_every_field_has_room_in_a_word(aspects: int, highest: int) -> None:
    packing = packing_of(aspects, highest)
    assert sum(guards.bit_count() for guards in packing.words) == aspects
    assert 2 ** (packing.width - 1) > highest
    assert all(0 < guards < 2**WORD for guards in packing.words)


# The ratings of two responses on up to 40 aspects, None where an aspect isn't rated; 40 of 7 levels need three words.
levels = st.sampled_from([-1.0, -0.5, 0.0, 0.25, 0.5, 0.75, 1.0])
pairs = st.integers(1, 40).flatmap(
    lambda n: st.tuples(*[st.lists(st.one_of(st.none(), levels, levels), min_size=n, max_size=n)] * 2)
)
Levels = list[float | None]
Compared = tuple[bool, bool, int]


def compared(connection: duckdb.DuckDBPyConnection, both: list[Levels]) -> list[Compared]:
    """(alike, no worse, aspects better) of the first against the second, and of the second against the first."""
    connection.execute("DELETE FROM ratings; DROP TABLE IF EXISTS codes; DROP TABLE IF EXISTS packed")
    rated = [(uid(str(at)), JUDGE, f"aspect {i}", level) for at, one in enumerate(both) for i, level in enumerate(one)]
    connection.executemany("INSERT INTO ratings VALUES (?, ?, ?, ?)", rated)
    packing = pack_aspects(connection, JUDGE)
    sql = f"""SELECT {packing.alike}, {packing.no_worse}, {packing.better} FROM packed c, packed r
              WHERE c.response_id <> r.response_id ORDER BY c.response_id = $second"""
    return connection.execute(sql, {"second": uid("1")}).fetchall()


@settings(max_examples=60)
@given(both=pairs, same=st.booleans())
def test_one_subtraction_compares_every_aspect(
    connection: duckdb.DuckDBPyConnection, both: tuple[Levels, Levels], same: bool
) -> None:
    one, other = both
    if same:  # rated on the same aspects
        other = [None if mine is None else theirs or 0.0 for mine, theirs in zip(one, other, strict=True)]
    assume(all(any(level is not None for level in several) for several in (one, other)))
    found = compared(connection, [one, other])
    alike = [level is None for level in one] == [level is None for level in other]
    for (said_alike, no_worse, better), (mine, theirs) in zip(found, [(one, other), (other, one)], strict=True):
        assert said_alike is alike
        if alike:
            gains = [a - b for a, b in zip(mine, theirs, strict=True) if a is not None and b is not None]
            assert no_worse is (min(gains) >= 0)
            assert better == sum(gain > 0 for gain in gains)


def test_levels_without_end_take_as_many_words_as_they_need(connection: duckdb.DuckDBPyConnection) -> None:
    one: Levels = [at / 7 for at in range(40)]
    other: Levels = [level and level - 1e-12 for level in one]
    assert compared(connection, [one, other]) == [(True, True, 39), (True, False, 0)]
