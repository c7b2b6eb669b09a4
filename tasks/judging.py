"""Bring a judge's verdicts on a set of responses into the store: what it hasn't seen yet, micro-batch by micro-batch."""

from __future__ import annotations

from typing import Any

from rlrf.errors import StoppedError
from rlrf.judge_config import ChoiceJudge, JudgeConfig, MatchJudge, MathJudge, PanelJudge, RecordedJudge
from rlrf.judges.panel import merge
from rlrf.judges.protocol import Chooser, Judge
from rlrf.judging import build_judge, chooser_key, described, key_of
from rlrf.records import Prompt
from storage import judgements, ledger
from storage.store import Store
from tasks.claiming import share
from tasks.engines import open_engine, read_secret
from tasks.progress import StageProgress, stage_progress
from tasks.signals import JUDGE_HEALTH, signal
from tasks.stage import Stage

MERGED_TOGETHER = 4096

_CHEAP = (MathJudge, ChoiceJudge, MatchJudge, RecordedJudge)
"""Judges that are faster than a claim: two that judge the same at once lose less than claiming would cost."""


def judge_set(
    stage: Stage, store: Store, set_key: str, judge: JudgeConfig, progress: StageProgress, *, limited: bool = True
) -> None:
    """Judge what this judge hasn't seen of a set; each batch is one transaction. A panel's members judge one by one.

    Raises StoppedError as soon as more responses stay unrated, truncated ones aside, than `limits.unrated` allows;
    never with `limited` off, for judges that decide nothing.
    """
    key = key_of(judge)
    ledger.record_keys(store, key)
    total = int(store.value("SELECT count(*) FROM members WHERE set_key = ?", [set_key]))
    limit = _Limit(stage, store, set_key, key.key, total) if limited else None
    if isinstance(judge, PanelJudge):
        for number, member in enumerate(judge.judges, 1):
            with stage_progress(f"judge {number}") as own:
                judge_set(stage, store, set_key, member, own, limited=False)
        _merge(stage, store, set_key, judge, total, progress)
    else:
        _judge_each(stage, store, set_key, judge, key.key, total, progress, limit)
    if limit is not None:
        limit.check()
    _say_unread(store, set_key, key.key, total, progress)


class _Limit:
    """Stops a stage whose judge leaves too much unrated, before it burns the rest of its calls."""

    def __init__(self, stage: Stage, store: Store, set_key: str, judge_key: str, total: int) -> None:
        self.stage, self.total, self._of = stage, total, (store, set_key, judge_key)
        self.share = stage.config.limits.unrated

    def check(self) -> None:
        """Raise StoppedError over the limit."""
        reasons = judgements.unread(*self._of)
        unread = sum(n for reason, n in reasons.items() if reason != "truncated")
        if unread > self.share * self.total:
            said = ", ".join(f"{n:,} {reason}" for reason, n in list(reasons.items())[:5])
            signal(JUDGE_HEALTH, self.stage.config, measure="unrated", value=unread / self.total, limit=self.share)
            raise StoppedError(
                f"{self.stage.name}: {unread:,} of {self.total:,} responses could not be rated, limits.unrated is "
                f"{self.share:.0%}: {said}. See `SELECT reason, raw_reply FROM judgements`; mend the judge or the "
                "references and run again"
            )


def _judge_each(
    stage: Stage,
    store: Store,
    set_key: str,
    judge: JudgeConfig,
    key: str,
    total: int,
    progress: StageProgress,
    limit: _Limit | None,
) -> None:
    opened = build_judge(judge, lambda engine, folder: open_engine(stage, engine, folder), read_secret)
    chooser = chooser_key(judge)

    def rate(ours: set[str]) -> None:
        unjudged = judgements.unjudged(store, set_key, key, chooser.key if chooser else None) if ours else []
        cases = [case for case in unjudged if case.response_id in ours]
        if known := sum(len(case.known) for case in cases):
            progress.say(f"{known:,} ratings of aspects that stayed are kept; only the other aspects are asked for")
        for batch in opened.judge(cases) if cases else ():
            judgements.add_judgements(store, key, batch, opened.weights, stage.run.run_id)
            progress.advance(len(batch), 0, sum(one.completion_tokens for one in batch))
            if limit is not None and any(one.reason not in {None, "truncated"} for one in batch):
                limit.check()

    try:
        if chooser is not None:
            ledger.record_keys(store, chooser)
            _choose(stage, store, set_key, opened, chooser.key)
        wanted = judgements.unjudged_ids(store, set_key, key)
        progress.begin(total, total - len(wanted), "judgements")
        if isinstance(judge, _CHEAP):
            rate(wanted)
        else:
            unjudged_ids = judgements.unjudged_ids
            share(stage.claimant, progress, key, wanted, lambda ids: ids - unjudged_ids(store, set_key, key), rate)
    finally:
        opened.close()


def _choose(stage: Stage, store: Store, set_key: str, judge: Judge, chooser: str) -> None:
    """The aspects of every prompt that has none yet."""

    def missing() -> dict[str, Prompt]:
        return {one.prompt_id: one for one in judgements.unchosen(store, set_key, chooser)}

    prompts = missing()
    if not prompts:
        return
    naming: Any = judge
    with stage_progress("choose aspects") as progress:
        progress.begin(len(prompts), 0, "prompts")

        def choose(ours: set[str]) -> None:
            for batch in _as_chooser(naming).choose([one for name, one in prompts.items() if name in ours]):
                judgements.add_choices(store, chooser, batch, stage.run.run_id)
                failed = sum(one.reason is not None for one in batch)
                progress.advance(len(batch) - failed, failed, sum(one.completion_tokens for one in batch))

        share(stage.claimant, progress, chooser, prompts, lambda ids: ids - missing().keys(), choose)


def _as_chooser(judge: Any) -> Chooser:
    return judge  # type: ignore[no-any-return]  # `chooser_key` is None for every other judge


def _merge(stage: Stage, store: Store, set_key: str, panel: PanelJudge, total: int, progress: StageProgress) -> None:
    """One verdict per response from those of the members, wherever there is none yet.

    Ratings are merged by their places on their scales, from -1 to 1, which is what the store compares.
    """
    of, key = described(panel), key_of(panel).key
    aspects = [described(member).aspects for member in panel.judges]
    missing = judgements.unmerged(store, set_key, key)
    progress.begin(total, total - len(missing), "verdicts")
    said = judgements.judgements_of(store, set_key, [key_of(member).key for member in panel.judges])
    whole = [verdicts for one, verdicts in said.items() if one in missing and len(verdicts) == len(aspects)]
    for start in range(0, len(whole), MERGED_TOGETHER):
        batch = [merge(one, panel.merge, panel.quorum, aspects) for one in whole[start : start + MERGED_TOGETHER]]
        judgements.add_judgements(store, key, batch, of.weights, stage.run.run_id, over_unrated=True)
        progress.advance(len(batch))


def _say_unread(store: Store, set_key: str, judge_key: str, total: int, progress: StageProgress) -> None:
    reasons = judgements.unread(store, set_key, judge_key)
    if reasons:
        said = ", ".join(f"{n:,} {reason}" for reason, n in list(reasons.items())[:5])
        progress.say(f"unrated, never scored: {said} of {total:,}")
