"""What stages pass to each other: names of rows in the store, never the rows."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from pydantic import BaseModel, ConfigDict

from rlrf.config import RunConfig
from rlrf.fingerprints import content_id
from rlrf.judge_config import JudgeConfig, decided_by


class Record(BaseModel):
    """Base of every handle: frozen, plain JSON."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Handle(Record):
    """A finished stage's rows. `digest` covers their contents, so equal results upstream are equal inputs downstream."""

    stage: str
    key: str
    rows: int
    digest: str

    def summary(self) -> tuple[int, str]:
        """Rows and digest for the stage's receipt."""
        return self.rows, self.digest


class Corpus(Record):
    """What ingestion left in the store: prompts to learn from, prompts held out, external responses."""

    prompts: Handle
    held_out: Handle
    external: Handle

    def summary(self) -> tuple[int, str]:
        """Rows and digest for the stage's receipt."""
        parts = [part.digest for part in (self.prompts, self.held_out, self.external)]
        return self.prompts.rows + self.held_out.rows + self.external.rows, content_id("corpus", parts)


class Policy(Record):
    """A model folder and the digest of its weights, which is its id.

    `served_as` is the name under which endpoints elsewhere serve it, None where it is served here.
    """

    policy_id: str
    name: str
    folder: str
    served_as: str | None = None

    def here(self) -> Policy:
        """The same policy, to be served by an engine of this run."""
        return self.model_copy(update={"served_as": None})

    def summary(self) -> tuple[int, str]:
        """Rows and digest for the stage's receipt."""
        return 1, self.policy_id


class Interval(Record):
    """What a run on a schedule works on: prompts that arrived after `since` and until `as_of`, both in UTC.

    `since`: None where all earlier ones count. `policy_id`: the champion that the run starts from, None for the configured
    policy. Settled by the first run of its `as_of`, so that every later one has the same keys.
    """

    as_of: datetime
    since: datetime | None = None
    policy_id: str | None = None

    def __str__(self) -> str:
        since = f"after {self.since:%Y-%m-%d %H:%M:%S} " if self.since else ""
        return f"{since}until {self.as_of:%Y-%m-%d %H:%M:%S} UTC"


class Run(Record):
    """One run of a flow: which store, under which configuration, and the policy that it started from.

    `stop_after`: the key of the stage that ends the run as soon as it is done; none where the run goes to its end.
    `interval`: which prompts count and which champion is the start, in a run that has a date.
    """

    run_id: str
    store_id: str
    config: RunConfig
    first: Policy | None = None
    stop_after: str | None = None
    interval: Interval | None = None

    def judged_by(self, policy: Policy | None) -> Run:
        """The run with its judges' weights settled, where the policy is its own judge: `policy`, or the first one."""
        first = self.first or policy
        if policy is None or first is None:
            return self

        def settled(judge: JudgeConfig) -> JudgeConfig:
            return decided_by(decided_by(judge, first.folder, {"first"}), policy.folder, {"current"})

        changes = {"judge": settled(self.config.judge), "observers": tuple(map(settled, self.config.observers))}
        return self.model_copy(update={"config": self.config.model_copy(update=changes)})


class Trained(Record):
    """A policy that a training made, and the optimiser steps it took."""

    policy: Policy
    base: Policy
    key: str
    steps: int

    def summary(self) -> tuple[int, str]:
        """Rows and digest for the stage's receipt."""
        return self.steps, self.policy.policy_id


class Evaluation(Record):
    """One policy's answers to the held-out prompts; accuracy in [0, 1] with a 95 % Wilson interval."""

    key: str
    policy: Policy
    judge_key: str
    digest: str
    questions: int
    accuracy: float
    low: float
    high: float
    tokens_mean: float

    def summary(self) -> tuple[int, str]:
        """Rows and digest for the stage's receipt."""
        return self.questions, self.digest


class Decision(Record):
    """The gate's verdict over two evaluations, and who is champion after it."""

    key: str
    verdict: str
    champion: Policy
    reason: str

    def summary(self) -> tuple[int, str]:
        """Rows and digest for the stage's receipt."""
        return 1, self.champion.policy_id


class Outcome(Record):
    """What one iteration made: the policy it started from (none for the first evaluation), the evaluation of the
    policy it made, the optimiser steps that it took, and the key of every stage."""

    iteration: int
    base: Policy | None
    evaluation: Evaluation
    steps: int
    stages: dict[str, str]

    @classmethod
    def of(
        cls, iteration: int, base: Policy | None, evaluation: Evaluation, made: Sequence[Handle | Trained | Evaluation]
    ) -> Outcome:
        """An outcome from everything that its stages returned, in order."""
        keys: dict[str, str] = {}
        for one in made:
            name = _stage_name(one)
            while name in keys:
                name += " again"
            keys[name] = one.key
        steps = sum(one.steps for one in made if isinstance(one, Trained))
        return cls(iteration=iteration, base=base, evaluation=evaluation, steps=steps, stages=keys)


def _stage_name(made: Handle | Trained | Evaluation) -> str:
    if isinstance(made, Handle):
        return made.stage
    return "train_policy" if isinstance(made, Trained) else "evaluate"
