"""What a run would do: per stage what is done, what is partly there, what is left, and why; nothing is started."""

from collections.abc import Generator, Iterator
from dataclasses import replace
from datetime import datetime
from functools import cached_property
from typing import Any

from flows.dates import expected
from flows.preflight import preflight
from flows.steps import AT_MOST, FINISHED, FRESH, OPEN, PARTLY, STALE, Step
from rlrf import explaining, judging, stage_keys, stages
from rlrf.config import RunConfig
from rlrf.exploring import plan_responses
from rlrf.handles import Corpus, Evaluation, Handle, Interval, Policy, Run
from rlrf.identities import configured_policy
from rlrf.past import Maker, Past
from rlrf.stages import Key
from rlrf.tracing import Tracer
from storage import approvals, corpora, ledger, planning, refining, reuse, rows
from storage.auditing import check_digest
from storage.planning import There
from storage.store import Store, open_store

Chain = Generator[Step, Any, None]
"""Yields a stage with its key; is sent the stage's result, or closed where the stage isn't finished."""


def plan(config: RunConfig) -> list[Step]:
    """The steps of a run of this configuration. Raises what `preflight` raises."""
    return list(planner(config).steps())


def planner(config: RunConfig, as_of: datetime | None = None) -> "Planner":
    """A planner over the configuration's store, once all is checked that can be. Raises what `preflight` raises.

    `as_of`: the run's date; where the configuration needs one and none is given, that of a run that is started now.
    """
    config = preflight(config)
    store = open_store(config.store_path)
    return Planner(config, store, expected(config, store, as_of))


class Planner:
    """Walks the stages with the keys that the run would use, as far as finished stages reach."""

    def __init__(self, config: RunConfig, store: Store, interval: Interval | None = None) -> None:
        self.config, self.store, self.interval = config, store, interval
        self.corpus: Corpus | None = None
        self.base: Policy | None = None
        self.best: Evaluation | None = None
        self.trained_steps = self.idle = 0
        self.now: dict[str, str] = {}
        self.ahead: dict[tuple[int, str], There] = {}

    @cached_property
    def past(self) -> Past:
        """What was done in this store before."""
        return planning.past(self.store)

    @cached_property
    def tracer(self) -> Tracer:
        """Explains keys by what was done before."""
        return Tracer(self.past, self.now, lambda old, new: compared(self.store, old, new))

    @cached_property
    def mean_tokens(self) -> float | None:
        """Mean length of the responses so far."""
        return planning.mean_tokens(self.store)

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
                done = self.done(step.key)
                result = self.result(step, done)
                yield self.explained(step, done if result is not None else None)
                if result is None:
                    break
        except StopIteration:
            return
        yield from map(self.unknown, bounds[passed:])

    def start(self) -> Chain:
        """Ingestion, the first policy and its evaluation."""
        self.corpus = yield Step(0, "ingest", None, key=stage_keys.ingest_key(self.config, self.interval))
        assert self.corpus is not None, "the walk ends at an unfinished ingestion"
        self.now |= {
            part.digest: part.key for part in (self.corpus.prompts, self.corpus.held_out, self.corpus.external)
        }
        if self.interval is not None and self.interval.policy_id is not None:
            self.base = ledger.policy(self.store, self.interval.policy_id)
        elif self.config.policy.bootstrap is not None:
            self.base = yield Step(0, "bootstrap", 1, key=stage_keys.bootstrap_key(self.config))
        else:
            self.base = configured_policy(self.config)
        assert self.base is not None, "the walk ends at an unfinished bootstrap"
        self.past.policies.setdefault(self.base.policy_id, Maker(self.base.name, None))
        self.best = yield self.evaluation(0, self.base)

    def iteration(self, number: int) -> Chain:
        """The stages of one iteration, in the order of `flows/iteration.py`."""
        config, best, corpus = self.config, self.best, self.corpus
        self.best = None
        if best is None or corpus is None:
            yield self.unknown(self.bounds(number)[0])
            return
        policy, asked = best.policy, config.prompts.per_iteration or corpus.prompts.rows
        config = self.judged_by(policy)
        prompts = yield Step(number, "sample_prompts", asked, key=stages.sample_prompts_key(config, corpus, number))
        explored = yield self.explore(number, corpus, policy, prompts)
        feedback = yield self.judged(number, config, explored)
        refined = yield self.refined(number, config, policy, prompts, feedback)
        plain = yield self.compared(number, config, policy, refined)
        verdicts = yield self.judged(number, config, refined)
        yield self.judged(number, config, plain)
        pairs = yield Step(number, "select_pairs", None, key=stage_keys.pairs_key(config, (feedback, verdicts)))
        check = check_digest(self.store, judging.key_of(config.judge).key)
        key = stage_keys.audit_pairs_key(config, corpus, pairs, (feedback, verdicts), check)
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
            yield self.unknown(Step(0, "train_control", None, why=AT_MOST))
            return
        key = stage_keys.control_key(self.config, self.base, self.trained_steps)
        trained = yield Step(0, "train_control", self.trained_steps, key=key)
        yield replace(self.evaluation(0, trained.policy), of="train_control")

    def explore(self, number: int, corpus: Corpus, policy: Policy, prompts: Handle) -> Step:
        """Exactly which responses are there and which are missing."""
        config, key = self.config, stages.explore_key(self.config, corpus, policy, prompts)
        if not config.explore.n or self.done(key) is not None:
            return Step(number, "explore", None, key=key)
        responses, judge = (
            stages.response_key(config, policy, config.explore),
            judging.key_of(self.judged_by(policy).judge),
        )
        asked = (responses.key, prompts.key, config.explore.n)
        self.ahead[number, "judge of explore"] = planning.judged_ahead(self.store, *asked, judge.key)
        step = Step(number, "explore", prompts.rows * config.explore.n, key=key)
        if reuse.has_siblings(self.store, responses):
            texts = rows.prompts_of(self.store, prompts.key)
            plan_of: reuse.PlanOf = lambda one: plan_responses(one, texts, config.explore.n)  # noqa: E731
            step = self.reusable(self.store, step, responses, plan_of, config.explore.max_tokens)
        else:  # what is there is counted, without an id being made
            step = self.partly(step, planning.responses_there(self.store, *asked), config.explore.max_tokens)
        written = (
            len(rows.responses_within(self.store, corpus.external.key, prompts.key)) if corpus.external.rows else 0
        )
        return replace(step, rows=(step.rows or 0) + written, kept=step.kept + written)

    def judged_by(self, policy: Policy) -> RunConfig:
        """The configuration with the judge's weights settled, where a policy is its own judge."""
        return Run(run_id="", store_id="", config=self.config, first=self.base).judged_by(policy).config

    def judged(self, number: int, config: RunConfig, responses: Handle) -> Step:
        """One judging, with what this judge already rated."""
        step = Step(number, "judge", responses.rows, key=stage_keys.judged_key(config, responses), of=responses.stage)
        if self.done(step.key) is not None:
            return step
        return self.partly(step, planning.judged_there(self.store, responses.key, judging.key_of(config.judge).key), 0)

    def refined(self, number: int, config: RunConfig, policy: Policy, prompts: Handle, feedback: Handle) -> Step:
        """Exactly which refinements are there and which are missing."""
        step = Step(
            number, "refine", prompts.rows * config.refine.m, key=stage_keys.refine_key(config, policy, feedback)
        )
        if not config.refine.m or self.done(step.key) is not None:
            return step
        plan_of = refining.plan_of_refinements(self.store, config, feedback)
        refinements = stage_keys.refinement_key(config, policy)
        return self.reusable(self.store, step, refinements, plan_of, config.refine.max_tokens)

    def compared(self, number: int, config: RunConfig, policy: Policy, refined: Handle) -> Step:
        """The plain responses that refinements are compared with; refined prompts are no more than refinements."""
        key, settings = stages.compare_key(config, policy, refined), config.refine
        most = min(settings.compare, refined.rows) * settings.m
        return self.partly(Step(number, "compare", most, key=key), There(), settings.max_tokens)

    def evaluation(self, number: int, policy: Policy) -> Step:
        """One evaluation, with the answers that are there."""
        assert self.corpus is not None
        held_out, settings = self.corpus.held_out, self.config.evaluate
        config = self.judged_by(self.base or policy)
        step = Step(number, "evaluate", held_out.rows, key=stage_keys.evaluate_key(config, policy, held_out))
        if self.done(step.key) is not None:
            return step
        answers = stages.response_key(config, policy.here(), settings)
        store = self.store.held_out()
        questions = rows.prompts_of(store, held_out.key)
        return self.reusable(store, step, answers, lambda one: plan_responses(one, questions, 1), settings.max_tokens)

    def reusable(self, store: Store, step: Step, key: Key, plan_of: reuse.PlanOf, max_tokens: int) -> Step:
        """The step with the rows that serve it, those of sibling keys included."""
        found = reuse.reusable(store, key, plan_of)
        there = planning.ids_there(store, list(found.there.values()))
        return self.partly(replace(step, rows=len(found.plan)), there, max_tokens)

    def partly(self, step: Step, there: There, max_tokens: int) -> Step:
        """The step with the rows that are there, and what the others will take: no more than `max_tokens` each."""
        left = max(0, (step.rows or 0) - there.rows)
        each = max_tokens if self.mean_tokens is None else min(self.mean_tokens, max_tokens)
        return replace(step, kept=there.rows, kept_tokens=there.tokens, tokens=round(left * each))

    def done(self, key: Key | None) -> Handle | None:
        """The handle of a finished stage."""
        found = self.past.receipts.get(key.key) if key else None
        return found.handle if found else None

    def result(self, step: Step, done: Handle | None) -> Any:
        """What the finished stage returned, or None."""
        if done is None or step.key is None:
            return None
        self.now[done.digest] = done.key
        load = {
            "ingest": corpora.corpus,
            "bootstrap": ledger.made_policy,
            "train_policy": ledger.training,
            "train_control": ledger.training,
            "evaluate": ledger.evaluation,
            "decide": ledger.decision,
        }
        return load[step.stage](self.store, step.key.key) if step.stage in load else done

    def explained(self, step: Step, done: Handle | None) -> Step:
        """The step with its state, and why it is to be done or that it is done."""
        if step.key is None:
            return step
        if done is not None:
            return replace(step, rows=done.rows, kept=done.rows, tokens=0, why=FINISHED, state=FINISHED)
        self.past.know([step.key])
        old = self.tracer.nearest(step.stage, step.key, step.iteration)
        changes = self.tracer.explain(old, step.key) if old else ()
        started = step.key.key in self.past.keys
        state = PARTLY if started or step.kept else STALE if old else FRESH
        why = "; ".join(map(explaining.said, explaining.roots(changes)[:3])) or "never run"
        if step.stage == "decide" and approvals.awaits(self.store, step.key.key):
            return replace(step, state=PARTLY, changes=changes, why="awaits approval: rlrf approve, or rlrf reject")
        return replace(step, state=state, changes=changes, why="started, not finished" if started else why)

    def unknown(self, step: Step) -> Step:
        """A step whose key earlier stages decide: rows may be there already; fresh where the stage never ran at all."""
        there = self.ahead.get((step.iteration, step.title), There())
        if there.rows:
            return replace(step, kept=there.rows, kept_tokens=there.tokens, state=PARTLY)
        ran = any(one.handle.stage == step.stage for one in self.past.receipts.values())
        return replace(step, state=OPEN if ran else FRESH)

    def start_bounds(self) -> list[Step]:
        """What comes before the first iteration, as long as it hasn't run."""
        bootstrap = [Step(0, "bootstrap", 1, why=AT_MOST)] if self.config.policy.bootstrap is not None else []
        return [Step(0, "ingest", None, why=AT_MOST), *bootstrap, Step(0, "evaluate", None, why=AT_MOST)]

    def bounds(self, number: int) -> list[Step]:
        """At most this much, as long as earlier stages haven't run."""
        config, prompts = self.config, self.config.prompts.per_iteration
        n, m, asked = config.explore.n, config.refine.m, self.config.prompts.per_iteration or 0
        plain = min(config.refine.compare, asked) * m
        made = [("sample_prompts", "", asked, 0), ("explore", "", asked * n, config.explore.max_tokens)]
        made += [("judge", "explore", asked * n, 0), ("refine", "", asked * m, config.refine.max_tokens)]
        made += [("compare", "", plain, config.refine.max_tokens), ("judge", "refine", asked * m, 0)]
        made += [("judge", "compare", plain, 0), ("select_pairs", "", asked * config.pairs.k, 0)]
        steps = [Step(number, name, most if prompts else None, of=of, why=AT_MOST) for name, of, most, _ in made]
        counted = [self.partly(step, There(), limit) for step, (*_, limit) in zip(steps, made, strict=True)]
        last = ("audit_pairs", "train_policy", "evaluate", "decide")
        return [*counted, *(Step(number, name, None, why=AT_MOST) for name in last)]


def compared(store: Store, old: Handle, new: Handle) -> str:
    """How the members of two sets compare."""
    before, after, both = planning.overlap(store, old.key, new.key)
    if not before and not after:
        return f"{old.rows:,} -> {new.rows:,} rows"
    if before == after == both:
        return f"the same {both:,} rows with other contents"
    return f"{before:,} -> {after:,} rows, {both:,} of them in both"
