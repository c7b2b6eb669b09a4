"""The stages of a configuration's run, in order, each with what tells its rows from others'."""

from collections.abc import Iterator
from dataclasses import dataclass

from flows.dates import latest
from flows.plan import Planner
from flows.steps import Step
from rlrf import judging, stages
from rlrf.config import RunConfig
from rlrf.fingerprints import content_id
from rlrf.handles import Corpus, Evaluation, Policy, Run
from rlrf.judge_config import JudgeConfig, PanelJudge, repeats_of
from storage import ledger
from storage.invalidating import Target
from storage.store import Store

STAGES = (
    "ingest",
    "bootstrap",
    "sample_prompts",
    "explore",
    "judge",
    "refine",
    "compare",
    "select_pairs",
    "audit_pairs",
    "train_policy",
    "evaluate",
    "decide",
    "train_control",
)
PARTS = ("judge:explore", "judge:refine", "judge:compare", "evaluate:base", "evaluate:control")
"""Of the stages that occur several times in an iteration, or before and after all of them: which."""


@dataclass(frozen=True)
class Place:
    """One stage of a configuration's run. `target` is None where it hasn't started. `group`: start, iteration or control."""

    iteration: int
    group: str
    stage: str
    name: str
    target: Target | None
    finished: bool

    def is_named(self, name: str) -> bool:
        """Whether the name means this stage."""
        return name in (self.stage, self.name)

    def __str__(self) -> str:
        return f"{self.name} of iteration {self.iteration}" if self.iteration else self.name


def places(config: RunConfig, store: Store) -> list[Place]:
    """Every stage of the run in order, as far as it can be known. `config` has passed `preflight`."""
    return list(_Walk(config, store).places())


class _Walk:
    """Goes through the stages as the planner finds them, and remembers what tells each one's rows from others'."""

    def __init__(self, config: RunConfig, store: Store) -> None:
        self.config, self.store, self.planner = config, store, Planner(config, store, latest(config, store))
        self.corpus: Corpus | None = None
        self.first: Policy | None = None
        self.best: Evaluation | None = None
        self.new: Evaluation | None = None
        self.keys: dict[str, str] = {}
        self.group, self.number = "start", 0

    def places(self) -> Iterator[Place]:
        """Every stage in order."""
        for step in self.planner.steps():
            if step.iteration and step.iteration != self.number:
                self.group, self.number, self.keys = "iteration", step.iteration, {}
            elif not step.iteration and (self.number or step.stage == "train_control"):
                self.group = "control"
            name = self._name(step)
            target = self._target(step, name) if step.key else None
            if step.key:
                self.keys[name] = step.key.key
            else:
                self.keys[name] = ""
            done = ledger.receipt(self.store, step.key.key) if step.key else None
            result = self.planner.result(step, done)
            self._remember(step.stage, result)
            yield Place(step.iteration, self.group, step.stage, name, target, result is not None)

    def _name(self, step: Step) -> str:
        if step.stage == "judge":
            return next(one for one in PARTS if one.startswith("judge:") and one not in self.keys)
        if step.stage == "evaluate" and not step.iteration:
            return "evaluate:base" if self.group == "start" else "evaluate:control"
        return step.stage

    def _remember(self, stage: str, result: object) -> None:
        if isinstance(result, Corpus):
            self.corpus = result
        elif isinstance(result, Evaluation):
            self.new = result
            if self.group == "start":
                self.best, self.first = result, result.policy
        elif stage == "decide" and getattr(result, "verdict", "") == "promote":
            self.best = self.new

    def _target(self, step: Step, name: str) -> Target:
        assert step.key is not None
        key, about = step.key.key, step.key.ingredients
        if step.stage == "ingest":
            return Target(
                step.stage, key, sets=tuple(content_id(part, key) for part in ("prompts", "held_out", "external"))
            )
        if step.stage == "explore":
            return Target(step.stage, key, about["responses"], self.keys["sample_prompts"], (0, about["n"] - 1))
        if step.stage == "refine":
            return Target(step.stage, key, about["refinements"], self.keys["judge:explore"])
        if step.stage == "compare" and about.get("responses"):
            asked = content_id("compared prompts", key)
            return Target(
                step.stage,
                key,
                about["responses"],
                asked,
                (about["n"], about["n"] + about["m"] - 1),
                sets=(asked,),
            )
        if step.stage == "judge":
            return self._judging(step, key, name)
        if step.stage == "evaluate" and self.corpus is not None:
            answering = Policy(policy_id=about["weights"], name="", folder="")
            made = stages.response_key(self.config, answering, self.config.evaluate).key
            return Target(step.stage, key, made, self.corpus.held_out.key)
        return Target(step.stage, key)

    def _judging(self, step: Step, key: str, name: str) -> Target:
        """Everyone who judges: the judge, a panel's members, the reward model, observers, and the repetitions."""
        policy = self.best.policy if self.best else None
        config = Run(run_id="", store_id="", config=self.config, first=self.first).judged_by(policy).config
        heads = [config.judge, *([config.reward] if config.reward else []), *config.observers]
        judges = [one for head in heads for one in _members(head)] + list(repeats_of(config.judge))
        choosers = [judging.chooser_key(one) for one in judges] if name == "judge:explore" else []
        sample = config.judge_health.sample
        return Target(
            step.stage,
            key,
            judges=tuple(dict.fromkeys(judging.key_of(one).key for one in judges)),
            choosers=tuple(one.key for one in choosers if one is not None),
            sets=(content_id("judge health", [key, sample]),),
        )


def _members(judge: JudgeConfig) -> list[JudgeConfig]:
    return [judge, *(judge.judges if isinstance(judge, PanelJudge) else ())]
