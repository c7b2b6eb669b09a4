"""A response's levels on all its aspects in few integers, so that one subtraction compares two responses on every aspect.

Each aspect has a field of bits: its level's rank among the levels that occur on it, and above that a guard bit, set where the
aspect is rated. Two responses are rated on the same aspects if their guard bits agree. If one's ranks are then taken from the
other's fields, guards included, a guard survives exactly where the other's level is no lower (comparing in parallel within a
word: Knuth, The Art of Computer Programming 4A, 7.1.3).
"""

from __future__ import annotations

from dataclasses import dataclass

import duckdb

WORD = 62
"""Bits used of a BIGINT: sums and differences stay within it."""

_CODES = """
CREATE TEMP TABLE codes AS
    SELECT aspect, level, dense_rank() OVER (ORDER BY aspect) - 1 AS field,
           dense_rank() OVER (PARTITION BY aspect ORDER BY level) - 1 AS code
    FROM (SELECT DISTINCT aspect, level FROM ratings WHERE judge_key = $judge AND level IS NOT NULL)
"""
_PACKED = """
CREATE TEMP TABLE packed AS
    SELECT c.*, {words}
    FROM (SELECT prompt_id, response_id, score, row_number() OVER (ORDER BY rank DESC NULLS LAST, draw, response_id) AS turn
          FROM candidates) c JOIN
         (SELECT t.response_id, {sums} FROM ratings t JOIN
              (SELECT aspect, level, field // {fields} AS word, ({guard} + code) << (field % {fields} * {width})::INTEGER AS bits
               FROM codes) USING (aspect, level)
          WHERE t.judge_key = $judge AND t.response_id IN (SELECT response_id FROM candidates) GROUP BY t.response_id)
         USING (response_id)
"""


@dataclass(frozen=True)
class Packing:
    """How fields lie in words, and the SQL that compares rows `c` and `r` of `packed`."""

    width: int
    """Bits of a field, its guard included."""
    words: tuple[int, ...]
    """The guard bits of each word."""

    @property
    def alike(self) -> str:
        """Whether both are rated on the same aspects."""
        return self._all("(c.w{i} & {guards}) = (r.w{i} & {guards})")

    @property
    def no_worse(self) -> str:
        """Whether c is no worse on any aspect; only where they are alike."""
        return self._all("((c.w{i} - (r.w{i} & ~{guards})) & {guards}) = (c.w{i} & {guards})")

    @property
    def better(self) -> str:
        """On how many aspects c is better; only where they are alike."""
        counts = "bit_count(c.w{i} & {guards}) - bit_count((r.w{i} - (c.w{i} & ~{guards})) & {guards})"
        return " + ".join(self._each(counts))

    def _all(self, condition: str) -> str:
        return " AND ".join(self._each(condition))

    def _each(self, sql: str) -> list[str]:
        return [sql.format(i=i, guards=f"{guards}::BIGINT") for i, guards in enumerate(self.words)]


def pack_aspects(connection: duckdb.DuckDBPyConnection, judge_key: str) -> Packing:
    """Make the table `packed` (prompt_id, response_id, score, turn, w0, w1, ...) of the candidates' ratings by this judge."""
    connection.execute(_CODES, {"judge": judge_key})
    found = connection.execute("SELECT coalesce(max(field) + 1, 1), coalesce(max(code), 0) FROM codes").fetchone()
    assert found is not None, "an aggregate has one row"
    packing = packing_of(*found)
    fields = WORD // packing.width
    words = ", ".join(f"w{i}" for i in range(len(packing.words)))
    sums = ", ".join(
        f"coalesce(bit_or(bits) FILTER (word = {i}), 0)::BIGINT AS w{i}" for i in range(len(packing.words))
    )
    guard = f"{1 << (packing.width - 1)}::BIGINT"
    connection.execute(
        _PACKED.format(words=words, sums=sums, fields=fields, width=packing.width, guard=guard), {"judge": judge_key}
    )
    return packing


def packing_of(aspects: int, highest: int) -> Packing:
    """The packing of this many aspects whose levels have ranks 0 to `highest`."""
    width = max(highest, 1).bit_length() + 1
    guards = [1 << (at * width + width - 1) for at in range(WORD // width)]
    words, rest = divmod(aspects, len(guards))
    return Packing(width, tuple([sum(guards)] * words + ([sum(guards[:rest])] if rest else [])))
