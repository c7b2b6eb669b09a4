from __future__ import annotations

from datetime import UTC, datetime, timedelta

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from storage import intervals, rows
from storage.store import Store
from tests.storage.builders import prompt, uid

FIRST = datetime(2026, 11, 1, 2, tzinfo=UTC)


def day(number: int) -> datetime:
    return FIRST + timedelta(days=number)


def done(store: Store, number: int) -> None:
    intervals.settle(store, "nightly", day(number), None)
    intervals.finish(store, "nightly", day(number))


def test_the_first_date_counts_from_the_beginning(store: Store) -> None:
    found = intervals.settle(store, "nightly", day(0), None)
    assert (found.as_of, found.since, found.policy_id) == (day(0), None, None)


def test_a_date_counts_from_the_last_finished_one_before_it(store: Store) -> None:
    done(store, 0)
    done(store, 5)
    intervals.settle(store, "nightly", day(2), None)  # and never finished
    assert intervals.settle(store, "nightly", day(3), None).since == day(0)
    assert intervals.settle(store, "nightly", day(6), None).since == day(5)
    assert intervals.settle(store, "weekly", day(6), None).since is None


def test_what_was_settled_stays(store: Store) -> None:
    first = intervals.settle(store, "nightly", day(3), uid("champion"))
    done(store, 2)
    assert intervals.settle(store, "nightly", day(3), uid("other")) == first
    assert (
        intervals.proposed(store, "nightly", day(3), uid("other"))
        == first
        == intervals.interval(store, "nightly", day(3))
    )


def test_a_proposal_settles_nothing(store: Store) -> None:
    assert intervals.proposed(store, "nightly", day(3), None).since is None
    assert intervals.interval(store, "nightly", day(3)) is None
    assert intervals.newest(store, "nightly") is None


def test_only_the_newest_unfinished_date_is_gone_on_with(store: Store) -> None:
    assert intervals.unfinished(store, "nightly") is None
    intervals.settle(store, "nightly", day(1), None)
    assert intervals.unfinished(store, "nightly") == day(1)
    done(store, 2)
    assert intervals.unfinished(store, "nightly") is None
    assert intervals.finished(store, "nightly") == {day(2)}
    assert intervals.newest(store, "nightly") == day(2)


def test_what_comes_without_a_time_counts_for_the_date_that_saw_it_first(store: Store) -> None:
    intervals.settle(store, "nightly", day(1), None)
    assert intervals.seen_at(store, "nightly", day(1)) == day(1)
    intervals.first_seen(store, uid("reading"), {uid("a"): day(1)}, "nightly", day(1))
    later = intervals.seen_at(store, "nightly", day(1))
    assert later > day(1), "what is new when the date is read again arrived after it"


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=4)
@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 9)), max_size=12), st.integers(0, 10**9))
def test_an_arrival_never_changes(store: Store, seen: list[tuple[int, int]], salt: int) -> None:
    reading, expected = uid(f"reading {salt}"), dict[str, datetime]()
    for name, number in seen:
        expected.setdefault(uid(str(name)), day(number))
        found = intervals.first_seen(store, reading, {uid(str(name)): day(number)}, "nightly", day(0))
        assert found == expected


def test_prompts_whose_files_are_gone_are_still_there(store: Store) -> None:
    rows.add_prompts(store, [prompt("a"), prompt("b")])
    rows.add_prompts(store.held_out(), [prompt("c")])
    intervals.first_seen(store, uid("reading"), {uid(name): day(0) for name in "ac"}, "nightly", day(0))
    assert [one.prompt_id for one in intervals.arrived(store, uid("reading"))] == [uid("a")]
    assert [one.prompt_id for one in intervals.arrived(store.held_out(), uid("reading"))] == [uid("c")]
