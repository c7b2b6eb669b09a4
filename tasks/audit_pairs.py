"""Audit the pairs: measure what could make them teach the wrong thing, and stop before any training where a limit is passed."""

from __future__ import annotations

from rlrf import auditing, judging, stages
from rlrf.errors import StoppedError
from rlrf.fingerprints import content_id
from rlrf.handles import Corpus, Handle, Run
from rlrf.stage_keys import audit_pairs_key
from storage import audits
from storage.auditing import audit, check_digest
from storage.store import open_store
from tasks.signals import JUDGE_HEALTH, signal
from tasks.stage import Stage, stage

_OF_THE_JUDGE = ("ties", "label_noise")
"""Measures that say how far the judge can be trusted; -1 stands for one that could not be taken."""


def _key(run: Run, corpus: Corpus, pairs: Handle, judged: tuple[Handle, ...]) -> stages.Key:
    check = check_digest(open_store(run.config.store_path), judging.key_of(run.config.judge).key)
    return audit_pairs_key(run.config, corpus, pairs, judged, check)


@stage("audit_pairs", _key)
def audit_pairs(stage: Stage, run: Run, corpus: Corpus, pairs: Handle, judged: tuple[Handle, ...]) -> Handle:
    """Every measure of these pairs, said and kept. Raises StoppedError over a limit of `audit`, once they are kept."""
    measures = audit(
        stage.store,
        stage.key,
        pairs.key,
        judged=[part.key for part in judged],
        judge_key=judging.key_of(stage.config.judge).key,
        held_out=corpus.held_out.key,
        settings=stage.config.audit,
        seed=stage.config.seed,
    )
    stage.progress.say("\n".join(auditing.lines(measures)))
    over = [one.name for one in measures if not one.passed]
    for one in measures:
        if one.name in _OF_THE_JUDGE and not one.passed:
            found, limit = (-1.0 if number is None else number for number in (one.value, one.bound))
            signal(JUDGE_HEALTH, stage.config, measure=one.name, value=found, limit=limit)
    if over:
        rows = {name: audits.offending_rows(stage.store, stage.key, name) for name in over}
        raise StoppedError(auditing.stop_message(measures, rows))
    stage.progress.begin(pairs.rows, 0, "pairs")
    stage.progress.advance(pairs.rows)
    return stage.handle(pairs.rows, content_id("audit", [[one.name, one.value, one.low, one.high] for one in measures]))
