"""What a plan asks of the store."""

from __future__ import annotations

from rlrf.handles import Handle
from rlrf.stages import Key
from rlrf.tracing import Tracer
from storage import ledger, planning, rows
from storage.ledger import Counts
from storage.planning import Rate, There
from storage.store import Store
from tests.storage.builders import GEN, JUDGE, RUN, completion, judge, judgement, members, prompt, respond, uid


def finish(store: Store, key: Key, digest: str = "d", seconds: float = 2.0) -> None:
    handle = Handle(stage="explore", key=key.key, rows=3, digest=uid(digest))
    ledger.write_receipt(store, handle, Counts(kept=1, produced=2, tokens=14), seconds, RUN)


def test_rows_that_are_there_are_counted_with_their_tokens(store: Store) -> None:
    rows.add_prompts(store, [prompt("p"), prompt("q")])
    respond(store, "p", [completion("a"), completion("b"), completion("c")])
    asked = members(store, "prompts", ["p", "q"])
    assert planning.responses_there(store, GEN, asked, 2) == There(2, 14)
    assert planning.responses_there(store, GEN, asked, 3, first=2) == There(1, 7)
    assert planning.responses_there(store, uid("another key"), asked, 3) == There()
    assert planning.ids_there(store, [uid("a"), uid("nobody")]) == There(1, 7)
    assert planning.ids_there(store, []) == There()


def test_judgements_that_are_there_are_counted_before_their_set_is(store: Store) -> None:
    rows.add_prompts(store, [prompt("p")])
    respond(store, "p", [completion("a"), completion("b")])
    judge(store, judgement("a", 1, 1))
    asked, made = members(store, "prompts", ["p"]), members(store, "made", ["a", "b"])
    assert planning.judged_ahead(store, GEN, asked, 2, JUDGE) == There(1, 13)
    assert planning.judged_there(store, made, JUDGE) == There(1, 13)
    assert planning.tokens_of(store, [made], {made: [JUDGE]}) == {made: 27}
    assert planning.tokens_of(store, [], {}) == {}


def test_sets_overlap_in_either_split(store: Store) -> None:
    old, new = members(store, "old", ["a", "b"]), members(store, "new", ["b", "c", "d"])
    assert planning.overlap(store, old, new) == (2, 3, 1)
    members(store.held_out(), "exam", ["x"])
    assert planning.overlap(store, uid("exam"), uid("nothing")) == (1, 0, 0)


def test_the_past_is_ordered_as_it_was_written(store: Store) -> None:
    keys = [Key("explore", uid(f"k{n}"), {"n": n}) for n in (2, 3, 4)]
    for key in keys[:2]:
        ledger.record_start(store, "explore", key, RUN)
        finish(store, key)
    ledger.record_start(store, "explore", keys[2], RUN)
    past = planning.past(store)
    assert [past.receipts[key.key].order for key in keys[:2]] == [0, 1]
    assert past.starts[keys[2].key].run_id == RUN
    assert [key.ingredients["n"] for key in past.finished("explore", "explore")] == [2, 3]
    assert planning.rates(past) == {"explore": Rate(2, 4, 4.0)}
    assert planning.rates(past)["explore"].of(10) == 10.0
    assert planning.rates(past)["explore"].of(None) == 2.0
    tracer = Tracer(past, {}, lambda old, new: "")
    nearest = tracer.nearest("explore", keys[2], 1)
    assert nearest is not None
    assert nearest.key == keys[1].key, "both differ in one ingredient: the later one"
    assert [(one.name, one.was, one.now) for one in tracer.explain(nearest, keys[2])] == [("n", 3, 4)]
    before = tracer.nearest("explore", keys[1], 1)
    assert before is not None
    assert before.key == keys[0].key, "what came later doesn't explain what was there before"
    assert tracer.nearest("explore", keys[0], 1) is None


def test_parts_are_recorded_with_their_key(store: Store) -> None:
    part = Key("text", uid("template"), {"text": "Rewrite."})
    ledger.record_start(store, "refine", Key("refine", uid("k"), {"template": part.key}, {"template": part}), RUN)
    found = planning.past(store).key(part.key)
    assert found == part
