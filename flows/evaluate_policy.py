"""The exam of any policy on the held-out prompts of a home, outside of a wheel."""

from pathlib import Path
from uuid import uuid4

from prefect import flow

from flows.dates import latest
from flows.preflight import check_secrets, preflight
from rlrf.backends.opening import stop_engine
from rlrf.backends.weights import is_whole, resolve_model, weights_digest
from rlrf.config import RunConfig
from rlrf.errors import StoreError
from rlrf.handles import Evaluation, Policy
from storage import ledger
from storage.store import Store, open_store
from tasks.evaluate import evaluate
from tasks.ingest import ingest
from tasks.outbox import outbox
from tasks.record import begin_run, finish_run


@flow(
    name="evaluate",
    flow_run_name="evaluate {policy} on {config.name}",
    persist_result=False,
    result_serializer="json",
)
def evaluate_policy(config: RunConfig, policy: str = "champion") -> Evaluation:
    """Let a policy answer the configuration's held-out prompts; kept as an evaluation, and done once.

    `policy`: "champion", the start of a policy's id or its whole name in the store, or a model's folder or hub name.
    """
    config = preflight(config)
    check_secrets(config)
    store = open_store(config.store_path)
    chosen = named_policy(store, policy)
    run = begin_run(config, str(uuid4()))
    run = run.model_copy(update={"first": chosen, "interval": latest(config, store)})
    try:
        found = evaluate(run.judged_by(chosen), ingest(run), chosen)
    except BaseException as error:
        finish_run(run, "failed", f"{type(error).__name__}: {error}")
        raise
    finally:
        stop_engine(lambda text: None)
        outbox.flush()
    said = f"{chosen.name}: accuracy {found.accuracy:.1%} ({found.low:.1%} to {found.high:.1%})"
    finish_run(run, "completed", said)
    return found


def named_policy(store: Store, name: str) -> Policy:
    """The policy that a name means. Raises StoreError where none or several are meant, or the folder is gone."""
    if name == "champion":
        found = ledger.champion(store)
        if found is None:
            raise StoreError("there is no champion yet; name a policy, or run the wheel first")
        return _whole(found)
    ids = ledger.policies_called(store, name)
    if len(ids) > 1:
        raise StoreError(f"policy {name!r} may be any of {ids!r}; give more of an id")
    if ids:
        return _whole(ledger.policy(store, ids[0]))
    folder = resolve_model(name)
    made = Policy(policy_id=weights_digest(folder), name=Path(name.rstrip("/")).name, folder=str(folder))
    ledger.add_policy(store, made, "model")
    return made


def _whole(policy: Policy) -> Policy:
    if not is_whole(policy.folder):
        raise StoreError(f"policy {policy.name!r} ({policy.policy_id}) is not in {policy.folder!r} any more")
    return policy
