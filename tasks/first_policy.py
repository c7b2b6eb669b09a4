"""The policy that iteration 1 starts from: a model folder, or one that is made here."""

from __future__ import annotations

from prefect import task
from prefect.cache_policies import NO_CACHE

from rlrf import stage_keys, stages
from rlrf.backends.weights import is_whole, weights_digest
from rlrf.curriculum import build_curriculum
from rlrf.errors import StoreError
from rlrf.handles import Policy, Run
from rlrf.identities import configured_policy
from storage import ledger
from storage.store import open_store
from tasks.models import set_aside
from tasks.stage import Stage, stage


def _key(run: Run) -> stages.Key:
    return stage_keys.bootstrap_key(run.config)


@stage("bootstrap", _key, found=ledger.made_policy)
def bootstrap(stage: Stage, run: Run) -> Policy:
    """Train the tiny policy on its demonstrations; the folder exists only when it is complete."""
    from rlrf.backends.bootstrap import bootstrap as train_tiny

    settings = stage.config.policy.bootstrap
    assert settings is not None, "only called for a policy with [policy.bootstrap]"
    folder = stage.config.home / "models" / f"tiny-{stage.key[:8]}"
    set_aside(stage.progress, folder)
    if not folder.exists():  # it exists only when it is complete; a kill can fall between it and its receipt
        train_tiny(
            folder,
            demonstrations=build_curriculum(seed=settings.seed),
            seed=settings.seed,
            steps=settings.steps,
            begin=lambda kept: stage.progress.begin(settings.steps, kept, "steps"),
            progress=lambda *_: stage.progress.advance(1),
            say=stage.progress.say,
        )
    policy = Policy(policy_id=weights_digest(folder), name="tiny", folder=str(folder))
    ledger.add_policy(stage.store, policy, "bootstrap", stage_key=stage.key)
    return policy


@task(name="load_policy", task_run_name="load_policy", cache_policy=NO_CACHE, persist_result=False)
def load_policy(run: Run) -> Policy:
    """Find the configured model and take the digest of its weights."""
    policy = configured_policy(run.config)
    ledger.add_policy(open_store(run.config.store_path), policy, "model")
    return policy


@task(name="load_champion", cache_policy=NO_CACHE, persist_result=False)
def load_champion(run: Run, policy_id: str) -> Policy:
    """The champion that a run with a date starts from. Raises StoreError where its folder is there no longer."""
    policy = ledger.policy(open_store(run.config.store_path), policy_id)
    if not is_whole(policy.folder):
        raise StoreError(
            f"champion {policy.name!r} ({policy.policy_id}) is not in {policy.folder!r} any more; put the folder back, or put "
            'another champion in office with `rlrf rollback` or `rlrf promote` for the next date; policy.start = "model" does '
            "without"
        )
    return policy


def first_policy(run: Run) -> Policy:
    """The policy of iteration 0: the champion where the run's date has one to start from."""
    if run.interval is not None and run.interval.policy_id is not None:
        return load_champion(run, run.interval.policy_id)
    return bootstrap(run) if run.config.policy.bootstrap else load_policy(run)
