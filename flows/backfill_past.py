"""Which of the past a backfill goes over."""

from flows.rerunning import iterations_named
from rlrf.errors import StoreError
from storage import backfilling
from storage.backfilling import PastIteration
from storage.store import Store


def chosen(store: Store, numbers: str | None) -> list[PastIteration]:
    """The past iterations that are meant. Raises StoreError where there are none."""
    found = backfilling.iterations(store, iterations_named(numbers) if numbers else None)
    if not found:
        which = f"iteration {numbers}" if numbers else "iteration"
        raise StoreError(f"store {str(store.path)!r} has no finished {which} to go over; see `rlrf status`")
    return found
