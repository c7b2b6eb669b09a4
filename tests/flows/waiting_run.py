"""A flow, run as a module, that comes to a promotion which a person is to approve, and decides on it: no other stage."""

import sys
from pathlib import Path
from uuid import uuid4

from prefect import flow

from flows.approval import await_approval
from rlrf.config import load_config
from rlrf.handles import Evaluation, Outcome, Run
from storage import ledger
from storage.approvals import pairs_behind
from storage.store import open_store
from tasks.decide import decide


@flow(name="flywheel", validate_parameters=False, persist_result=False)
def wheel(run: Run, outcome: Outcome, old: Evaluation) -> str:
    """What the flywheel does after an iteration."""
    await_approval(run, 1, outcome, old)
    return decide(run, 1, outcome.evaluation, old).verdict


if __name__ == "__main__":
    config = load_config(Path(sys.argv[1]))
    store = open_store(config.store_path)
    new, old = (ledger.evaluation(store, key) for key in sys.argv[2:4])
    assert new is not None
    assert old is not None
    pairs = pairs_behind(store, new.policy.policy_id)
    made = {"select_pairs": pairs} if pairs else {}
    outcome = Outcome(iteration=1, base=old.policy, evaluation=new, steps=1, stages=made)
    print(wheel(Run(run_id=str(uuid4()), store_id=store.store_id, config=config), outcome, old))
