"""Train: fine-tune the policy on the pairs, in a process of its own; and the control on the original demonstrations."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rlrf import stages
from rlrf.backends.training.spec import TrainSpec
from rlrf.backends.training.train import Progress, train
from rlrf.backends.weights import weights_digest
from rlrf.bootstrapping import demonstrations_path
from rlrf.handles import Handle, Policy, Run, Trained
from rlrf.stage_keys import control_key
from storage import exports, ledger
from tasks.engines import give_back
from tasks.models import set_aside
from tasks.stage import Stage, stage


def _key(run: Run, base: Policy, pairs: Handle, iteration: int) -> stages.Key:
    return stages.train_policy_key(run.config, base, pairs.digest)


@stage("train_policy", _key, found=ledger.training)
def train_policy(stage: Stage, run: Run, base: Policy, pairs: Handle, iteration: int) -> Trained:
    """DPO or RS on the pairs; the reference is the base. The result is a Hugging Face folder with card and lineage."""
    data = _work_folder(stage) / "pairs.jsonl"
    exports.write_jsonl(data, exports.trl_rows(stage.store, pairs.key))
    spec = _spec(stage, base, data)
    name = f"{stage.config.name}-{iteration}"
    lineage = {"pairs": pairs.rows, "pair_set": pairs.key, "iteration": iteration, "run": run.run_id}
    return _train(stage, base, spec, name, "trained", lineage, pairs.key)


def _control_key(run: Run, base: Policy, steps: int) -> stages.Key:
    return control_key(run.config, base, steps)


@stage("train_control", _control_key, found=ledger.training)
def train_control(stage: Stage, run: Run, base: Policy, steps: int) -> Trained:
    """The control arm: as many steps at the same learning rate on the demonstrations that the base already knows."""
    data = _work_folder(stage) / "demonstrations.jsonl"
    exports.write_jsonl(data, exports.demonstration_rows(demonstrations_path(stage.config), stage.config.seed))
    spec = _spec(stage, base, data).model_copy(update={"method": "rs", "epochs": None, "max_steps": steps})
    return _train(stage, base, spec, f"{stage.config.name}-control", "control", {"steps": steps}, None)


def _work_folder(stage: Stage) -> Path:
    folder = stage.config.home / "training" / stage.key
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _spec(stage: Stage, base: Policy, data: Path) -> TrainSpec:
    values = stage.config.train.model_dump()
    output = stage.config.home / "models" / f"{stage.config.name}-{stage.key[:8]}"
    return TrainSpec(model=Path(base.folder), data=data, output=output, seed=stage.config.seed, log_every=1, **values)


def _train(
    stage: Stage, base: Policy, spec: TrainSpec, name: str, kind: str, lineage: dict[str, Any], pair_set: str | None
) -> Trained:
    set_aside(stage.progress, spec.output)
    give_back(stage)
    result = train(spec, lambda event: _show(stage, event))
    stage.progress.advance(max(0, result.steps - stage.progress.kept - stage.progress.produced))
    policy = Policy(policy_id=weights_digest(result.folder), name=name, folder=str(result.folder))
    trained = Trained(policy=policy, base=base, key=stage.key, steps=result.steps)
    if result.excluded:
        left_out = ", ".join(f"{n:,} {why}" for why, n in result.excluded.items())
        stage.progress.say(
            f"{left_out} of {result.rows + sum(result.excluded.values()):,} rows could not be trained on"
        )
    settings = spec.model_dump(mode="json")
    exports.write_card(result.folder, trained, settings, lineage | {"rows": result.rows, "excluded": result.excluded})
    ledger.add_policy(stage.store, policy, kind, base.policy_id, stage.key)
    record = {"pair_set": pair_set, "spec": settings, "rows": result.rows, "excluded": result.excluded}
    ledger.add_training(stage.store, trained, record, result.metrics, result.seconds)
    return trained


def _show(stage: Stage, event: Progress) -> None:
    """One event of the training process."""
    if event["event"] == "started":
        stage.progress.begin(event["steps"], event["resumed_from"] or 0, "steps")
        facts = [f"{event['processes']} process(es) on {event['device']}", event["precision"]]
        facts += [f"{name} {event[name]}" for name in ("adapter", "reference") if event.get(name)]
        stage.progress.say(", ".join(facts))
        for refused in event["refused"]:
            stage.progress.say(f"not gone on from: {refused}")
    elif event["event"] == "step":
        stage.progress.advance(event["step"] - stage.progress.kept - stage.progress.produced)
