"""Champions by hand: promote and roll back, each a row with who and why."""

import getpass

from rlrf.backends.weights import is_whole
from rlrf.errors import StoreError
from storage import ledger
from storage.store import Store


def promote_by_hand(store: Store, prefix: str, reason: str) -> str:
    """Make the policy whose id starts with `prefix` the champion. Raises StoreError for none or several."""
    found = ledger.policies_like(store, prefix)
    if len(found) != 1:
        raise StoreError(f"{prefix!r} starts the ids of {len(found)} policies {found!r}; see `rlrf status`")
    policy = ledger.policy(store, found[0])
    if not is_whole(policy.folder):
        raise StoreError(
            f"policy {policy.name!r} ({policy.policy_id}) is not in {policy.folder!r} any more; run the configuration that "
            "made it again, and its training is done again"
        )
    ledger.decide(store, "promote", policy, policy, reason, getpass.getuser())
    return f"champion: {policy.name} ({policy.policy_id}) in {policy.folder}"


def roll_back(store: Store, reason: str) -> str:
    """Put the champion before the present one back. Raises StoreError when there was none."""
    before, now = ledger.champion_before(store), ledger.champion(store)
    if before is None or now is None:
        raise StoreError("there is no champion before the present one to go back to; see `SELECT * FROM decisions`")
    ledger.decide(store, "rollback", now, before, reason, getpass.getuser())
    return f"champion: {before.name} ({before.policy_id}) in {before.folder}, instead of {now.name}"
