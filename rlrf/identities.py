"""Who answers, by content: the identity of a model that judges or rewrites, and the teacher as a policy."""

from __future__ import annotations

from rlrf.backends.weights import resolve_model, weights_digest
from rlrf.config import RunConfig, Teacher
from rlrf.engine_config import AnyEngine, Endpoint, Scripted
from rlrf.errors import ConfigError
from rlrf.fingerprints import content_id
from rlrf.handles import Policy
from rlrf.stages import Key


def model_part(engine: AnyEngine, model: str | None) -> Key:
    """Weights where we hold them; else what the user calls the thing that answers.

    Raises ConfigError where nothing says who answers, BackendError for a folder without weights.
    """
    if isinstance(engine, Endpoint):
        named = [engine.base_url, engine.model]
        return Key("endpoint", content_id("endpoint", named), {"base_url": engine.base_url, "model": engine.model})
    if isinstance(engine, Scripted) and model is None:
        return Key("scripted", content_id("scripted", engine.reply), {"reply": engine.reply})
    if model is None:
        raise ConfigError(f"engine `{engine.type}` needs `model`, the folder of the weights that are to answer")
    folder = resolve_model(model)
    return Key("weights", weights_digest(folder), {"name": folder.name})


def configured_policy(config: RunConfig) -> Policy:
    """The policy that `policy.model` names. Raises BackendError where there is no such model."""
    assert config.policy.model is not None, "only called for a policy with `model`"
    folder, name = resolve_model(config.policy.model), config.policy.model.rstrip("/").split("/")[-1]
    served_as = config.engine.model if isinstance(config.engine, Endpoint) else None
    return Policy(policy_id=weights_digest(folder), name=name, folder=str(folder), served_as=served_as)


def reviser(config: RunConfig, policy: Policy) -> Policy:
    """Who rewrites: the teacher where there is one, else the policy."""
    return teacher_policy(config.refine.teacher) if config.refine.teacher else policy


def teacher_policy(teacher: Teacher) -> Policy:
    """The teacher as a policy; its folder is "" where it is served elsewhere. Raises as `model_part`."""
    engine, identity = teacher.engine, model_part(teacher.engine, teacher.model).key
    if isinstance(engine, Endpoint):
        return Policy(policy_id=identity, name=engine.model, folder="", served_as=engine.model)
    if teacher.model is None:
        return Policy(policy_id=identity, name=getattr(engine, "reply", engine.type), folder="")
    name = teacher.model.rstrip("/").split("/")[-1]
    return Policy(policy_id=identity, name=name, folder=str(resolve_model(teacher.model)))
