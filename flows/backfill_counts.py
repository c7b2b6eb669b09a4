"""What a backfill would take: rows, tokens and hours, from what is there and what stages took so far. Nothing is started."""

from dataclasses import dataclass, field
from typing import Any

from flows import backfill_dates
from flows.backfill_past import chosen
from flows.backfill_work import Dates, Reevaluate, Reexplore, Rejudge, Rerefine, Work
from flows.dates import latest
from flows.evaluate_policy import named_policy
from rlrf import judging, stage_keys, stages
from rlrf.config import RunConfig
from rlrf.handles import Policy
from storage import backfilling, corpora, ledger, planning
from storage.store import Store


@dataclass(frozen=True)
class Part:
    """One thing that would be done: how many rows at most are missing, the tokens that they take about, and seconds; None
    where nothing says it."""

    what: str
    rows: int | None
    tokens: int | None
    seconds: float | None


@dataclass
class Counted:
    """All of it."""

    parts: list[Part] = field(default_factory=list)

    def plain(self) -> dict[str, Any]:
        """The same as plain JSON, with sums of what is known."""
        seconds = sum(one.seconds or 0 for one in self.parts)
        return {
            "would_make": [vars(one) for one in self.parts],
            "rows": sum(one.rows or 0 for one in self.parts),
            "tokens": sum(one.tokens or 0 for one in self.parts),
            "hours": round(seconds / 3600, 3),
        }


def count(config: RunConfig, store: Store, work: Work) -> Counted:
    """Count; raises StoreError as the backfill itself does."""
    return Counted(_WAYS[type(work)](_Counter(config, store), work))


class _Counter:
    def __init__(self, config: RunConfig, store: Store) -> None:
        self.config, self.store = config, store
        self.rates = backfilling.rates(store)
        self.mean, self.said = planning.mean_tokens(store) or 0.0, backfilling.mean_judge_tokens(store)
        self.judge = judging.key_of(config.judge).key

    def part(self, what: str, stage: str, rows: int, mean: float) -> Part:
        rate = self.rates.get(stage)
        return Part(what, rows, round(rows * mean), rate.of(rows) if rate else None)

    def judged(self, work: Rejudge) -> list[Part]:
        return [
            self.part(
                f"judge {handle.stage} of iteration {one.number}",
                "judge",
                backfilling.unjudged(self.store, handle, self.judge),
                self.said,
            )
            for one in chosen(self.store, work.iterations)
            for handle in one.responses
        ]

    def explored(self, work: Reexplore) -> list[Part]:
        policy, found = named_policy(self.store, work.policy), list[Part]()
        key, n = stages.response_key(self.config, policy, self.config.explore).key, self.config.explore.n
        for one in chosen(self.store, work.iterations):
            there = planning.responses_there(self.store, key, one.prompts.key, n).rows
            missing = n * one.prompts.rows - there
            found.append(self.part(f"explore iteration {one.number}", "explore", missing, self.mean))
            if work.judge:
                judged = planning.judged_ahead(self.store, key, one.prompts.key, n, self.judge).rows
                rows = n * one.prompts.rows - judged
                found.append(self.part(f"judge explore of iteration {one.number}", "judge", rows, self.said))
        return found

    def refined(self, work: Rerefine) -> list[Part]:
        found = []
        for one in chosen(self.store, work.iterations):
            left = backfilling.unjudged(self.store, one.explored, self.judge)
            found.append(self.part(f"judge explore of iteration {one.number}", "judge", left, self.said))
            most = self.config.refine.m * one.prompts.rows
            found.append(self.part(f"refine iteration {one.number}, at most", "refine", most, self.mean))
            if work.judge:
                found.append(self.part(f"judge refine of iteration {one.number}, at most", "judge", most, self.said))
        return found

    def evaluated(self, work: Reevaluate) -> list[Part]:
        key = stage_keys.ingest_key(self.config, latest(self.config, self.store)).key
        corpus, found = corpora.corpus(self.store, key), list[Part]()
        names = [named_policy(self.store, one) for one in work.policies]
        policies: list[Policy] = names or [one for one, whole in backfilling.policies(self.store) if whole]
        for one in policies:
            if corpus is None:
                found.append(Part(f"evaluate {one.name}: the benchmark isn't read yet", None, None, None))
                continue
            done = ledger.receipt(self.store, stage_keys.evaluate_key(self.config, one, corpus.held_out).key)
            rows = 0 if done else corpus.held_out.rows
            found.append(self.part(f"evaluate {one.name}", "evaluate", rows, self.mean))
        return found

    def dates(self, work: Dates) -> list[Part]:
        each = backfilling.run_seconds(self.store, self.config.name)
        missed = backfill_dates.missed(self.config, self.store, work)
        return [Part(f"run of {one:%Y-%m-%d %H:%M} UTC", None, None, each) for one in missed]


_WAYS: dict[type, Any] = {
    Rejudge: _Counter.judged,
    Reexplore: _Counter.explored,
    Rerefine: _Counter.refined,
    Reevaluate: _Counter.evaluated,
    Dates: _Counter.dates,
}
