"""Stage keys: the content hash of all that bears on a stage's result, and of nothing else.

A key's ingredients are stored beside it, and those of the keys among them, so that a miss can be explained. Paths, devices,
batch sizes, run ids and times are never ingredients. `CODE` is raised by hand when a stage's code changes what it produces
from the same ingredients.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

from rlrf.config import RunConfig
from rlrf.fingerprints import content_id, file_digest
from rlrf.handles import Corpus, Evaluation, Handle, Interval, Policy
from rlrf.judge_config import Sampled

CODE = {
    "ingest": 1,
    "redact": 1,
    "bootstrap": 1,
    "sample_prompts": 1,
    "response": 1,
    "engine": 1,
    "explore": 1,
    "refinement": 1,
    "judge": 1,
    "aspects": 1,
    "judged": 1,
    "refine": 2,
    "compare": 1,
    "select_pairs": 1,
    "audit_pairs": 1,
    "train_policy": 1,
    "evaluate": 1,
    "decide": 1,
}


class Key(NamedTuple):
    """A stage's key and the ingredients it was made of. `parts`: the keys among them, by dotted path; each ingredient there
    is the part's own `key`, and the part says what that was made of."""

    kind: str
    key: str
    ingredients: dict[str, Any]
    parts: Mapping[str, Key] = MappingProxyType({})

    def whole(self) -> Iterator[Key]:
        """This key and all its parts, theirs included."""
        yield self
        for part in self.parts.values():
            yield from part.whole()


def make_key(kind: str, **made_of: Any) -> Key:
    """The content hash of a kind, its code version and its ingredients; a Key among them stands for its hash."""
    parts: dict[str, Key] = {}
    ingredients = {name: _hashed(value, name, parts) for name, value in made_of.items()}
    ingredients["code"] = CODE[kind]
    return Key(kind, content_id(kind, ingredients), ingredients, parts)


def text_part(kind: str, text: str) -> Key:
    """A text that other keys know by its hash."""
    return Key("text", content_id(kind, text), {"text": text})


def file_part(path: Path) -> Key:
    """A file that other keys know by the hash of its bytes. Raises OSError as `open` does."""
    return Key("file", file_digest(path), {"name": path.name, "bytes": path.stat().st_size})


def response_key(config: RunConfig, policy: Policy, sampled: Sampled) -> Key:
    """Identity of responses apart from prompt and position: weights, sampling, seed. Not the engine: any may go on."""
    served = {"endpoint_model": policy.served_as} if policy.served_as else {}
    return make_key("response", weights=policy.policy_id, sampling=_sampling(sampled), seed=config.seed, **served)


def engine_key(settings: dict[str, Any]) -> Key:
    """How an engine makes responses; stored with each of them, part of no other key."""
    return make_key("engine", **settings)


def refinement_key(config: RunConfig, reviser: Policy, judge: Key, template: Key) -> Key:
    """Identity of refinements apart from parent and position: who rewrites, the feedback's judge, the template, and whether
    answers are hidden. Whose feedback it is of a panel's is in their ids, through its text."""
    return make_key(
        "refinement",
        **({"hide_answers": True} if config.refine.hide_answers else {}),
        weights=reviser.policy_id,
        sampling=_sampling(config.refine),
        seed=config.seed,
        feedback=judge,
        template=template,
    )


def ingest_key(
    config: RunConfig, contents: list[list[Key]], interval: Interval | None = None, redact: Key | None = None
) -> Key:
    """Contents of the source files and how they are read, not where they lie; the interval, where the run has a date."""
    prompts = config.prompts.model_dump(mode="json", include={"system", "near_duplicate"})
    held_out = config.prompts.held_out
    sources = [_how_read(source.model_dump(mode="json")) for source in (*config.prompts.sources, *held_out.sources)]
    external = [_how_read(source.model_dump(mode="json")) for source in config.external]
    split = {"fraction": held_out.fraction, "limit": held_out.limit}
    if interval is not None:
        window = interval.since if config.prompts.window == "since_last" else None
        prompts["interval"] = {"as_of": interval.as_of.isoformat(), "since": window.isoformat() if window else None}
    if redact is not None:
        prompts["redact"] = redact
    return make_key("ingest", contents=contents, sources=sources, external=external, split=split, **prompts)


def _how_read(source: dict[str, Any]) -> dict[str, Any]:
    """A source without its place, and without settings that it doesn't use and earlier versions didn't have."""
    how = {name: value for name, value in source.items() if name not in {"path", "database"}}
    for name in ("table", "log"):
        if not how.get(name):
            how.pop(name, None)
    if how["columns"].get("time") is None:
        how["columns"] = {name: value for name, value in how["columns"].items() if name != "time"}
    return how | ({"prompts": _how_read(how["prompts"])} if how.get("prompts") else {})


def bootstrap_key(config: RunConfig, demonstrations: Key) -> Key:
    """Settings of the tiny policy and the contents of its demonstrations."""
    assert config.policy.bootstrap is not None
    settings = config.policy.bootstrap.model_dump(mode="json", include={"seed", "steps"})
    return make_key("bootstrap", demonstrations=demonstrations, **settings)


def sample_prompts_key(config: RunConfig, corpus: Corpus, iteration: int) -> Key:
    """Which prompts there are, how many are taken, in which seeded order."""
    drawn = 1 if config.prompts.reuse else iteration
    return make_key(
        "sample_prompts",
        prompts=corpus.prompts.digest,
        external=corpus.external.digest if not config.explore.n else None,
        per_iteration=config.prompts.per_iteration,
        draw=drawn,
        seed=config.seed,
    )


def explore_key(config: RunConfig, corpus: Corpus, policy: Policy | None, prompts: Handle) -> Key:
    """The prompts, n, how responses are made, and the external responses that join them."""
    responses = response_key(config, policy, config.explore) if policy and config.explore.n else None
    return make_key(
        "explore", prompts=prompts.digest, responses=responses, n=config.explore.n, external=corpus.external.digest
    )


def judge_key(judge_ingredients: dict[str, Any]) -> Key:
    """Identity of a judge: rubric, code, model, sampling."""
    return make_key("judge", **judge_ingredients)


def judged_key(judge: Key, responses: Handle, beside: Sequence[Key] = (), sample: int = 0) -> Key:
    """One judge over one set of responses; also who else judges, and how many are judged again."""
    further = {name: value for name, value in (("beside", list(beside)), ("again", sample)) if value}
    return make_key("judged", judge=judge, responses=responses.digest, **further)


def refine_key(config: RunConfig, feedback: Handle, refinements: Key, reward: Key | None = None) -> Key:
    """The judged responses, which of them are promising and worth it, m, whose feedback, and how they are rewritten.

    `reward`: the reward judge, where it picks. Hidden answers are the references': the feedback's key covers them.
    """
    settings = config.refine
    return make_key(
        "refine",
        feedback=feedback.digest,
        references=feedback.key if settings.hide_answers else None,
        refinements=refinements if settings.m else None,
        m=settings.m,
        promising=settings.promising,
        reward=reward if settings.promising == "reward" else None,
        each=settings.feedback,
        budget=settings.budget.model_dump(mode="json"),
    )


def compare_key(config: RunConfig, policy: Policy, refined: Handle) -> Key:
    """Which prompts were refined, how many of them are asked again, and how; nothing where none is."""
    settings = config.refine
    if not settings.compare or not settings.m:
        return make_key("compare", compare=0)
    return make_key(
        "compare",
        refined=refined.digest,
        responses=response_key(config, policy, settings),
        n=config.explore.n,
        m=settings.m,
        compare=settings.compare,
        seed=config.seed,
    )


def select_pairs_key(config: RunConfig, judged: tuple[Handle, ...], reward: Key | None) -> Key:
    """The ratings, the rule, and the judge whose rewards rank responses, where there is one."""
    rule = config.pairs.model_dump(mode="json") | ({"reward": reward} if reward is not None else {})
    return make_key("select_pairs", judged=[part.digest for part in judged], seed=config.seed, **rule)


def audit_pairs_key(
    config: RunConfig, corpus: Corpus, pairs: Handle, judged: tuple[Handle, ...], judge: Key, check: str | None
) -> Key:
    """The pairs, what they were drawn from, the held-out prompts, the judge with its latest check, and the limits."""
    return make_key(
        "audit_pairs",
        pairs=pairs.digest,
        judged=[part.digest for part in judged],
        held_out=corpus.held_out.digest,
        judge=judge,
        check=check,
        limits=config.audit.model_dump(mode="json"),
        seed=config.seed,
    )


def train_policy_key(config: RunConfig, base: Policy, data: str | Key, **overrides: Any) -> Key:
    """The base's weights, the training data's contents and every training value that bears on the result."""
    neutral = {"save_every", "gradient_checkpointing", "report_to", "health", "accelerate_config"}
    values = config.train.model_dump(mode="json", exclude=neutral) | overrides
    if values["precision"] == "auto":
        del values["precision"]
    if config.train.lora is not None:
        values["adapter"] = "of the starting policy, trained on"
    if config.train.accelerate_config is not None:
        values["accelerate"] = file_digest(config.train.accelerate_config)
    return make_key("train_policy", base=base.policy_id, data=data, seed=config.seed, **values)


def evaluate_key(config: RunConfig, policy: Policy, held_out: Handle, judge: Key) -> Key:
    """The policy, the held-out prompts, the judge, and how answers are drawn."""
    return make_key(
        "evaluate",
        weights=policy.policy_id,
        held_out=held_out.digest,
        judge=judge,
        sampling=_sampling(config.evaluate),
        aspect=config.evaluate.aspect,
    )


def decide_key(config: RunConfig, new: Evaluation, old: Evaluation) -> Key:
    """Both evaluations and the gate's rules; also that a person is asked, where that is so, but not how long."""
    rules = config.gate.model_dump(mode="json", exclude={"patience", "approval"})
    asked = {"approval": True} if config.gate.approval is not None else {}
    return make_key("decide", new=new.key, old=old.key, **rules, **asked)


def _sampling(sampled: Sampled) -> dict[str, Any]:
    return sampled.model_dump(mode="json", include=set(Sampled.model_fields))


def _hashed(value: Any, path: str, parts: dict[str, Key]) -> Any:
    """The value with hashes for keys, which go to `parts`."""
    if isinstance(value, Key):
        parts[path] = value
        return value.key
    if isinstance(value, (list, tuple)):
        return [_hashed(item, f"{path}.{place}", parts) for place, item in enumerate(value)]
    return value
