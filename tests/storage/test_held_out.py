"""The split: no row, query or view of the learning side reaches what evaluation asks."""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import storage
from rlrf.errors import StoreError
from storage import promising, reading, rows, sets
from storage.store import Store
from tests.storage.builders import JUDGE, completion, failure, judge, judgement, members, prompt, respond, uid
from tests.storage.test_rows import external

SIDES = ["main", "held_out"]


def sides(store: Store, scope: str) -> tuple[Store, Store]:
    """This side and the other."""
    both = (store, store.held_out())
    return both if scope == "main" else both[::-1]


@pytest.mark.parametrize("scope", SIDES)
def test_a_row_that_names_a_prompt_of_the_other_side_is_refused(store: Store, scope: str) -> None:
    here, there = sides(store, scope)
    rows.add_prompts(there, [prompt("theirs")])
    rows.add_prompts(here, [prompt("ours")])
    writes: list[Callable[[], int]] = [
        lambda: rows.add_prompts(here, [prompt("new"), prompt("theirs")]),
        lambda: respond(here, "theirs", [completion("x")]),
        lambda: respond(here, "theirs", [failure("x")]),
        lambda: rows.add_external(here, [external("ours"), external("theirs")]),
    ]
    for write in writes:
        with pytest.raises(StoreError, match=f"{uid('theirs')}.*keep training and held-out files apart"):
            write()
    counts = {name: here.value(f"SELECT count(*) FROM {name}") for name in ("prompts", "responses", "failures")}
    assert counts == {"prompts": 1, "responses": 0, "failures": 0}


def test_scopes_see_their_own_rows_alone(store: Store) -> None:
    for side, name in ((store, "a"), (store.held_out(), "b")):
        rows.add_prompts(side, [prompt(name)])
        respond(side, name, [completion(f"{name} answer")])
        judge(side, judgement(f"{name} answer", 1, 1))
        members(side, "prompts", [name])
        members(side, "answers", [f"{name} answer"])
    for side, name in ((store, "a"), (store.held_out(), "b")):
        assert [one.prompt_id for one in rows.prompts_of(side, uid("prompts"))] == [uid(name)]
        assert sets.members(side, uid("answers")) == [uid(f"{name} answer")]
        assert rows.existing(side, [uid("a answer"), uid("b answer")]) == {uid(f"{name} answer")}
        assert [row["response_id"] for row in promising.promising(side, uid("answers"), JUDGE, "best", 0)] == [
            uid(f"{name} answer")
        ]


@pytest.mark.parametrize("scope", SIDES)
def test_no_table_or_view_of_the_learning_side_holds_a_held_out_row(store: Store, scope: str) -> None:
    held_out = store.held_out()
    rows.add_prompts(held_out, [prompt("secret", text="the secret question")])
    respond(held_out, "secret", [completion("x"), completion("y"), failure("z")])
    respond(held_out, "secret", [completion("x better")], parent="x")
    judge(held_out, judgement("x", 1, 0), judgement("y", reason="no reply"), judgement("x better", 1, 1))
    members(held_out, "secret set", ["x", "y", "x better"])
    seen = sides(store, scope)[0]
    names = store.query(
        """SELECT table_name AS name FROM duckdb_tables() WHERE schema_name = 'main' AND table_name <> 'meta'
           UNION ALL SELECT view_name FROM duckdb_views() WHERE schema_name = 'main' AND NOT internal"""
    )
    assert len(names) > 20
    for row in names:
        assert seen.query(f"SELECT * FROM main.{row['name']}") == [], row["name"]
    assert reading.counts(store)["held_out.responses"] == 3


def test_the_same_database_view_reads_the_learning_side_from_either_scope(store: Store) -> None:
    rows.add_prompts(store, [prompt("p")])
    respond(store, "p", [completion("x")])
    assert store.value("SELECT count(*) FROM lineage") == store.held_out().value("SELECT count(*) FROM lineage") == 1


ALLOWED = {
    ("rows", "_refuse_other_split"),
    *(("reading", name) for name in ("counts", "produced")),
    ("planning", "overlap"),
    *(("invalidating", name) for name in ("_evaluation", "_sets")),
}
"""The guard of the split, counts, and what takes an evaluation away with its answers."""


def functions_that_name_held_out() -> Iterator[tuple[str, str]]:
    """Module and function of every text in storage/ that holds `held_out.` or a lone `held_out`, docstrings aside."""
    for path in sorted(Path(storage.__file__).parent.glob("*.py")):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        docstrings = {
            ast.get_docstring(node, clean=False)
            for node in ast.walk(tree)
            if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef))
        }
        for top in tree.body:
            for node in ast.walk(top):
                text = node.value if isinstance(node, ast.Constant) and isinstance(node.value, str) else ""
                if text not in docstrings and ("held_out." in text or text == "held_out"):
                    yield path.stem, getattr(top, "name", "")


def test_only_the_guard_counts_and_invalidation_name_the_held_out_schema() -> None:
    found = set(functions_that_name_held_out())
    assert found - {("schema", ""), ("store", "Store")} == ALLOWED


def test_only_the_store_package_holds_sql() -> None:
    root = Path(storage.__file__).parents[1]
    words = ("INSERT INTO ", "DELETE FROM ", "UPDATE pairs", "CREATE TABLE ", "import duckdb")
    for package in ("rlrf", "tasks", "flows"):
        for path in (root / package).rglob("*.py"):
            text = path.read_text(encoding="utf-8")
            assert not [word for word in words if word in text], path
