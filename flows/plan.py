"""What a run would do: per stage what is done, what is partly there, what is left, and why; nothing is started."""

from collections.abc import Generator, Iterator
from dataclasses import dataclass
from typing import Any

from flows.preflight import preflight
from rlrf import judging, stages
from rlrf.bootstrapping import demonstrations_path
from rlrf.config import RunConfig
from rlrf.exploring import plan_responses
from rlrf.fingerprints import file_digest
from rlrf.handles import Corpus, Evaluation, Handle, Policy, Run
from rlrf.ingesting import source_digests
from rlrf.stages import Key
from storage import corpora, ledger, planning, reuse, rows
from storage.store import Store, open_store
from tasks.audit_pairs import audit_pairs_key
from tasks.first_policy import configured_policy
from tasks.judge import judged_key
from tasks.refine import refine_key
from tasks.select_pairs import pairs_key
from tasks.train_policy import control_key


@dataclass(frozen=True)
class Step:
    """One stage of the plan: rows in all (None: not known yet), rows that are there, tokens left to generate."""

    iteration: int
    stage: str
    rows: int | None
    kept: int = 0
    tokens: int = 0
    why: str = ""
    key: Key | None = None


AT_MOST = "at most"
"""Why a bound isn't a count: earlier stages, which haven't run, decide."""

Chain = Generator[Step, Any, None]
"""Yields a stage with its key; is sent the stage's result, or closed where the stage isn't finished."""


def plan(config: RunConfig) -> list[Step]:
    """The steps of a run of this configuration. Raises what `preflight` raises."""
    config = preflight(config)
    return list(Planner(config, open_store(config.store_path)).steps())


class Planner:
    """Walks the stages with the keys that the run would use, as far as finished stages reach."""

    def __init__(self, config: RunConfig, store: Store) -> None:
        self.config, self.store = config, store
        self.corpus: Corpus | None = None
        self.base: Policy | None = None
        self.best: Evaluation | None = None
        self.trained_steps = self.idle = 0

    def steps(self) -> Iterator[Step]:
        """Every stage in order; after an iteration's first unfinished one, only upper bounds are known."""
        yield from self.walk(self.start(), self.start_bounds())
        for number in range(1, self.config.iterations + 1):
            if self.idle < self.config.gate.patience:
                yield from self.walk(self.iteration(number), self.bounds(number))
        if self.config.evaluate.control:
            yield from self.walk(self.control(), [])

    def walk(self, chain: Chain, bounds: list[Step]) -> Iterator[Step]:
        """The chain's steps up to the first unfinished one, then the bounds of what comes after it."""
        passed, result = 0, None
        try:
            while True:
                step = chain.send(result)
                passed += 1
                done = ledger.receipt(self.store, step.key.key) if step.key else None
                result = self.result(step, done)
                yield self.explained(step, done if result is not None else None)
                if result is None:
                    break
        except StopIteration:
            return
        yield from bounds[passed:]

    def start(self) -> Chain:
        """Ingestion, the first policy and its evaluation."""
        self.corpus = yield Step(0, "ingest", None, key=stages.ingest_key(self.config, source_digests(self.config)))
        if self.config.policy.bootstrap is not None:
            digest = file_digest(demonstrations_path(self.config))
            self.base = yield Step(0, "bootstrap", 1, key=stages.bootstrap_key(self.config, digest))
        else:
            self.base = self.loaded_policy()
        assert self.base is not None, "the walk ends at an unfinished bootstrap"
        self.best = yield self.evaluation(0, self.base)

    def iteration(self, number: int) -> Chain:
        """The stages of one iteration, in the order of `flows/iteration.py`."""
        config, best, corpus = self.config, self.best, self.corpus
        self.best = None
        if best is None or corpus is None:
            yield self.bounds(number)[0]
            return
        policy, asked = best.policy, config.prompts.per_iteration or corpus.prompts.rows
        config = self.judged_by(policy)
        prompts = yield Step(number, "sample_prompts", asked, key=stages.sample_prompts_key(config, corpus, number))
        explored = yield self.explore(number, corpus, policy, prompts)
        feedback = yield self.judged(number, config, explored)
        key = refine_key(config, policy, feedback)
        refined = yield Step(
            number, "refine", *self.most(prompts.rows * config.refine.m, config.refine.max_tokens), key=key
        )
        plain = yield self.compared(number, config, policy, refined)
        verdicts = yield self.judged(number, config, refined)
        yield self.judged(number, config, plain)
        pairs = yield Step(number, "select_pairs", None, key=pairs_key(config, (feedback, verdicts)))
        key = audit_pairs_key(config, self.store, corpus, pairs, (feedback, verdicts))
        yield Step(number, "audit_pairs", pairs.rows, key=key)
        key = stages.train_policy_key(config, policy, pairs.digest)
        trained = yield Step(number, "train_policy", None, key=key)
        new = yield self.evaluation(number, trained.policy)
        decision = yield Step(number, "decide", 1, key=stages.decide_key(config, new, best))
        self.trained_steps += trained.steps
        self.idle = 0 if decision.verdict == "promote" else self.idle + 1
        self.best = new if decision.verdict == "promote" else best

    def control(self) -> Chain:
        """The control arm, whose length the iterations decide."""
        if self.base is None or self.best is None:
            yield Step(0, "train_control", None, why=AT_MOST)
            return
        trained = yield Step(
            0, "train_control", self.trained_steps, key=control_key(self.config, self.base, self.trained_steps)
        )
        yield self.evaluation(0, trained.policy)

    def explore(self, number: int, corpus: Corpus, policy: Policy, prompts: Handle) -> Step:
        """Exactly which responses are there and which are missing."""
        config, key = self.config, stages.explore_key(self.config, corpus, policy, prompts)
        if not config.explore.n or ledger.receipt(self.store, key.key) is not None:
            return Step(number, "explore", None, key=key)
        responses = stages.response_key(config, policy, config.explore)
        asked = rows.prompts_of(self.store, prompts.key)
        found = reuse.reusable(self.store, responses, lambda one: plan_responses(one, asked, config.explore.n))
        tokens = round(len(found.missing) * planning.mean_tokens(self.store, config.explore.max_tokens))
        return Step(number, "explore", len(found.plan), len(found.there), tokens, key=key)

    def judged_by(self, policy: Policy) -> RunConfig:
        """The configuration with the judge's weights settled, where a policy is its own judge."""
        return Run(run_id="", store_id="", config=self.config, first=self.base).judged_by(policy).config

    def judged(self, number: int, config: RunConfig, responses: Handle) -> Step:
        """One judging, with what this judge already rated."""
        have = planning.judged(self.store, responses.key, judging.key_of(config.judge).key)
        return Step(number, "judge", responses.rows, have, key=judged_key(config, responses))

    def compared(self, number: int, config: RunConfig, policy: Policy, refined: Handle) -> Step:
        """The plain responses that refinements are compared with; refined prompts are no more than refinements."""
        key, settings = stages.compare_key(config, policy, refined), config.refine
        most = min(settings.compare, refined.rows) * settings.m
        return Step(number, "compare", *self.most(most, settings.max_tokens), key=key)

    def evaluation(self, number: int, policy: Policy) -> Step:
        """One evaluation."""
        assert self.corpus is not None
        held_out = self.corpus.held_out
        config = self.judged_by(self.base or policy)
        key = stages.evaluate_key(config, policy, held_out, judging.key_of(config.judge).key)
        return Step(number, "evaluate", *self.most(held_out.rows, self.config.evaluate.max_tokens), key=key)

    def most(self, responses: int, max_tokens: int) -> tuple[int, int, int]:
        """Rows, kept rows and estimated tokens of responses that are still to be planned."""
        return responses, 0, round(responses * planning.mean_tokens(self.store, max_tokens))

    def loaded_policy(self) -> Policy:
        """The configured model."""
        return configured_policy(self.config)

    def result(self, step: Step, done: Handle | None) -> Any:
        """What the finished stage returned, or None."""
        if done is None or step.key is None:
            return None
        load = {
            "ingest": corpora.corpus,
            "bootstrap": ledger.made_policy,
            "train_policy": ledger.training,
            "train_control": ledger.training,
            "evaluate": ledger.evaluation,
            "decide": ledger.decision,
        }
        return load.get(step.stage, ledger.receipt)(self.store, step.key.key)

    def explained(self, step: Step, done: Handle | None) -> Step:
        """The step with why it is to be done, or that it is done."""
        if step.key is None:
            return step
        if done is not None:
            return Step(step.iteration, step.stage, done.rows, done.rows, 0, "finished", step.key)
        why = planning.why_missing(self.store, step.stage, step.key)
        return Step(step.iteration, step.stage, step.rows, step.kept, step.tokens, why, step.key)

    def start_bounds(self) -> list[Step]:
        """What comes before the first iteration, as long as it hasn't run."""
        bootstrap = [Step(0, "bootstrap", 1, why=AT_MOST)] if self.config.policy.bootstrap is not None else []
        return [Step(0, "ingest", None, why=AT_MOST), *bootstrap, Step(0, "evaluate", None, why=AT_MOST)]

    def bounds(self, number: int) -> list[Step]:
        """At most this much, as long as earlier stages haven't run."""
        config, prompts = self.config, self.config.prompts.per_iteration
        n, m, k = config.explore.n, config.refine.m, config.pairs.k
        asked = prompts or 0
        plain = min(config.refine.compare, asked) * m
        most = {
            "sample_prompts": asked,
            "explore": asked * n,
            "judge": asked * n,
            "refine": asked * m,
            "compare": plain,
        }
        most |= {"judge again": asked * m, "judge again again": plain, "select_pairs": asked * k}
        limits = {"explore": config.explore.max_tokens}
        limits |= dict.fromkeys(["refine", "compare"], config.refine.max_tokens)
        steps = []
        for name in [*most, "audit_pairs", "train_policy", "evaluate", "decide"]:
            rows, tokens = None, 0
            if prompts and name in most:
                rows, _, tokens = self.most(most[name], limits.get(name, 0))
            steps.append(Step(number, name.split()[0], rows, 0, tokens, AT_MOST))
        return steps
