"""How much room a store takes: rows and bytes per table."""

from __future__ import annotations

from dataclasses import dataclass

import duckdb

from storage.store import Store

_TABLES = "SELECT schema_name, table_name FROM duckdb_tables() WHERE NOT internal AND NOT temporary ORDER BY ALL"
_BLOCKS = """
    INSERT INTO block_of SELECT DISTINCT $name, unnest(list_prepend(block_id, additional_block_ids))
    FROM pragma_storage_info($table) WHERE persistent
"""
_SHARES = """
    SELECT name, sum($size / users) AS bytes
    FROM (SELECT name, count(*) OVER (PARTITION BY block) AS users FROM block_of WHERE block >= 0) GROUP BY name
"""


@dataclass(frozen=True)
class Table:
    """A table's rows and the bytes of its blocks in the file; one that several tables share counts in parts."""

    name: str
    rows: int
    bytes: int


def tables(store: Store) -> list[Table]:
    """Every table, those of the held-out side as `held_out.NAME`; the largest first."""
    with store.connect() as connection:
        names = [(schema, name) for schema, name in connection.execute(_TABLES).fetchall()]
        rows = {one: _value(connection, f'SELECT count(*) FROM "{one[0]}"."{one[1]}"') for one in names}
        connection.execute("CREATE TEMP TABLE block_of (name VARCHAR, block BIGINT)")
        for schema, name in names:
            if rows[schema, name]:
                connection.execute(_BLOCKS, {"name": f"{schema}.{name}", "table": f"{schema}.{name}"})
        size = _value(
            connection, "SELECT block_size FROM pragma_database_size() WHERE database_name = current_database()"
        )
        shares = dict(connection.execute(_SHARES, {"size": size}).fetchall())
        connection.execute("DROP TABLE block_of")
    found = [
        Table(f"{schema}.{name}".removeprefix("main."), count, round(shares.get(f"{schema}.{name}", 0)))
        for (schema, name), count in rows.items()
    ]
    return sorted(found, key=lambda one: (-one.bytes, -one.rows, one.name))


def _value(connection: duckdb.DuckDBPyConnection, sql: str) -> int:
    row = connection.execute(sql).fetchone()
    return int(row[0]) if row else 0
