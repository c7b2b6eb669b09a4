"""What serves on of a plan under another token limit."""

from __future__ import annotations

from itertools import count
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rlrf.exploring import Planned, plan_responses
from rlrf.fingerprints import content_id
from rlrf.records import Completion
from rlrf.stages import Key, make_key
from storage import ledger, reuse, rows
from storage.store import Store
from tests.storage.builders import RUN, prompt

PROMPTS = [prompt("a"), prompt("b")]
FRESH = count(1)


def key(max_tokens: int, **more: Any) -> Key:
    sampling = {"temperature": 1.0, "top_p": 1.0, "max_tokens": max_tokens, "stop": []}
    return make_key("response", **({"weights": "w", "sampling": sampling, "seed": 0} | more))


def plan(gen_key: str) -> list[Planned]:
    return plan_responses(gen_key, PROMPTS, 2)


def put(store: Store, made: Key, slot: int, finish: str, tokens: int, seed: int | None = None) -> str:
    """A row in one slot of the plan under a key."""
    one = plan(made.key)[slot]
    where = {"prompt_id": one.prompt_id, "parent_id": None, "position": one.position}
    common = {"gen_key": made.key, "policy_id": content_id("m", 0), "backend": "test", "run_id": RUN}
    done = Completion(one.response_id, f"text {tokens}", finish, 3, tokens)  # type: ignore[arg-type]
    ledger.record_keys(store, made)
    rows.add_results(store, [done], {one.response_id: {**where, "seed": one.seed if seed is None else seed}}, common)
    return one.response_id


def found(store: Store, wanted: Key) -> tuple[list[str | None], list[int]]:
    """Per slot the id of the row that serves, None where it is to be generated; and the seeds of those."""
    ledger.record_keys(store, wanted)
    one = reuse.reusable(store, wanted, plan)
    assert [slot.response_id for slot in one.missing] == [
        slot.response_id for slot in one.plan if slot.response_id not in one.there
    ]
    return [one.there.get(slot.response_id) for slot in one.plan], [slot.seed for slot in one.missing]


def test_complete_rows_serve_and_cut_ones_are_asked_for_with_their_seed(store: Store) -> None:
    small, large = key(64), key(128)
    whole = put(store, small, 0, "stop", 20)
    put(store, small, 1, "length", 64, seed=77)
    own = [one.seed for one in plan(large.key)]
    assert found(store, large) == ([whole, None, None, None], [77, own[2], own[3]])
    assert own[1] != 77


def test_its_own_row_comes_first(store: Store) -> None:
    put(store, key(64), 0, "stop", 20)
    own = put(store, key(128), 0, "length", 128)
    assert found(store, key(128))[0] == [own, None, None, None]


def test_under_a_lower_limit_only_what_is_within_it_serves(store: Store) -> None:
    fits = put(store, key(128), 0, "stop", 64)
    put(store, key(128), 1, "stop", 65, seed=78)
    put(store, key(128), 2, "length", 128, seed=79)
    own = plan(key(64).key)[3].seed
    assert found(store, key(64)) == ([fits, None, None, None], [78, 79, own])


def test_of_several_the_complete_one_of_the_largest_limit_serves(store: Store) -> None:
    put(store, key(32), 0, "stop", 10)
    best = put(store, key(128), 0, "stop", 11)
    put(store, key(128), 1, "length", 128)
    only = put(store, key(32), 1, "stop", 12)
    put(store, key(32), 2, "length", 32, seed=80)
    put(store, key(128), 2, "length", 128, seed=81)
    served, seeds = found(store, key(256))
    assert served == [best, only, None, None]
    assert seeds[0] == 81


def test_a_key_that_differs_in_anything_else_lends_nothing(store: Store) -> None:
    for more in ({"weights": "v"}, {"seed": 1}, {"endpoint_model": "x"}):
        put(store, key(64, **more), 0, "stop", 10)
    hotter = {"temperature": 0.5, "top_p": 1.0, "max_tokens": 64, "stop": []}
    put(store, key(64, sampling=hotter), 0, "stop", 10)
    assert found(store, key(128))[0] == [None] * 4


def test_a_refinement_serves_whoever_gave_the_same_feedback(store: Store) -> None:
    sampling = {"temperature": 1.0, "top_p": 1.0, "max_tokens": 64, "stop": []}
    old, new, other = (
        make_key("refinement", weights="w", sampling=sampling, seed=0, feedback=judge, template=template)
        for judge, template in (("one", "t"), ("two", "t"), ("two", "u"))
    )
    served = [put(store, old, 0, "stop", 10), put(store, old, 1, "length", 64)]
    assert found(store, new)[0] == [*served, None, None]
    assert found(store, other)[0] == [None] * 4


@settings(max_examples=12, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    made=st.dictionaries(
        st.tuples(st.sampled_from([16, 32, 64]), st.integers(0, 3)),
        st.tuples(st.integers(1, 64), st.booleans()),
        max_size=6,
    ),
    now=st.sampled_from([16, 32, 64]),
)
def test_what_serves_is_complete_and_every_slot_is_served_or_asked_for(
    store: Store, made: dict[tuple[int, int], tuple[int, bool]], now: int
) -> None:
    seed = next(FRESH)
    lengths: dict[str, tuple[str, int]] = {}
    for (limit, slot), (tokens, cut) in made.items():
        length = ("length", limit) if cut else ("stop", min(tokens, limit))
        lengths[put(store, key(limit, seed=seed), slot, *length)] = length
    one = reuse.reusable(store, key(now, seed=seed), plan)
    assert len(one.there) + len(one.missing) == 4
    for planned, serving in one.there.items():
        assert serving == planned or fits(lengths[serving], now)
    plans = [plan(key(limit, seed=seed).key) for limit in (16, 32, 64)]
    whole = {slot for other in plans for slot in range(4) if fits(lengths.get(other[slot].response_id), now)}
    own = {slot for slot, other in enumerate(one.plan) if other.response_id in lengths}
    assert {slot for slot, other in enumerate(one.plan) if other.response_id in one.there} == whole | own


def fits(length: tuple[str, int] | None, limit: int) -> bool:
    return length is not None and length[0] == "stop" and length[1] <= limit
