"""The policy that iteration 1 starts from: a model folder, or one that is made here."""

from __future__ import annotations

from prefect import task
from prefect.cache_policies import NO_CACHE

from rlrf import stage_keys, stages
from rlrf.backends.weights import weights_digest
from rlrf.curriculum import build_curriculum
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


def first_policy(run: Run) -> Policy:
    """The policy of iteration 0."""
    return bootstrap(run) if run.config.policy.bootstrap else load_policy(run)
