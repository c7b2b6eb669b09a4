"""Ingest: source files become prompts, held-out prompts and external responses in the store."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from rlrf import arriving, stage_keys, stages
from rlrf.arriving import Arrivals
from rlrf.config import RunConfig
from rlrf.external import ExternalResponse
from rlrf.fingerprints import content_id
from rlrf.handles import Corpus, Handle, Policy, Run
from rlrf.ingesting import Material, Rows, held_out_sources, learn_sources, read_sources, settle_material
from rlrf.records import Prompt
from storage import corpora, intervals, ledger, rows, sets
from storage.source_tables import exported
from storage.store import Store
from tasks.stage import Stage, stage


def _key(run: Run) -> stages.Key:
    return stage_keys.ingest_key(run.config, run.interval)


@stage("ingest", _key, found=corpora.corpus)
def ingest(stage: Stage, run: Run) -> Corpus:
    """Every row of every source is in the store afterwards, or in `dropped_prompts`, `dropped_responses` or `dropped_rows` with
    its reason. A run with a date takes the rows that had arrived; the others are read again by later ones."""
    read = _read(stage.config)
    material = settle_material(stage.config, read, _arrivals(stage, run, read))
    total = len(material.learn) + len(material.held_out) + len(material.external)
    stage.progress.begin(total, 0, "prompts and external responses")
    corpora.add_dropped(stage.store, material)
    corpus = Corpus(
        prompts=_add_prompts(stage, stage.store, "prompts", material.learn),
        held_out=_add_prompts(stage, stage.store.held_out(), "held_out", material.held_out),
        external=_add_external(stage, material),
    )
    _say_dropped(stage, material)
    corpora.add_corpus(stage.store, stage.key, corpus)
    return corpus


def _read(config: RunConfig) -> Rows:
    learn, held_out = learn_sources(config), held_out_sources(config)
    with exported([*learn, *held_out]) as files, exported(config.external) as external:
        settled = config.model_copy(update={"external": tuple(external)})
        return read_sources(settled, files[: len(learn)], files[len(learn) :])


def _arrivals(stage: Stage, run: Run, read: Rows) -> Arrivals | None:
    """When each prompt first arrived, remembered from now on; None for a run without a date."""
    if run.interval is None:
        return None
    name, as_of = stage.config.name, run.interval.as_of
    reading = arriving.reading_id(stage.config, stage_keys.redact_part(stage.config.prompts.redact))
    seen = arriving.times([*read.learn, *read.held_out], intervals.seen_at(stage.store, name, as_of))
    first = intervals.first_seen(stage.store, reading, seen, name, as_of)
    earlier = [intervals.arrived(store, reading) for store in (stage.store, stage.store.held_out())]
    return Arrivals(run.interval, first, tuple(earlier[0]), tuple(earlier[1]))


def _add_prompts(stage: Stage, store: Store, part: str, prompts: Sequence[Prompt]) -> Handle:
    key = content_id(part, stage.key)
    rows.add_prompts(store, prompts)
    sets.add_members(store, key, [prompt.prompt_id for prompt in prompts])
    stage.progress.advance(len(prompts))
    return Handle(stage=part, key=key, rows=len(prompts), digest=sets.digest(store, "prompts", key))


def _add_external(stage: Stage, material: Material) -> Handle:
    key, usable = content_id("external", stage.key), [one for one in material.external if one.text is not None]
    for name in sorted({one.policy for one in usable}):
        ledger.add_policy(stage.store, _external_policy(name), "external")
    rows.add_external(stage.store, [_row(stage, one) for one in usable])
    sets.add_members(stage.store, key, [one.response_id for one in usable])
    stage.progress.advance(len(usable), len(material.external) - len(usable))
    return Handle(stage="external", key=key, rows=len(usable), digest=sets.digest(stage.store, "responses", key))


def _external_policy(name: str) -> Policy:
    return Policy(policy_id=content_id("external policy", name), name=name, folder="")


def _row(stage: Stage, one: ExternalResponse) -> dict[str, Any]:
    policy = _external_policy(one.policy)
    return {
        "response_id": one.response_id,
        "prompt_id": one.prompt.prompt_id,
        "parent_id": None,
        "gen_key": policy.policy_id,
        "policy_id": policy.policy_id,
        "position": 0,
        "text": one.text,
        "finish_reason": "stop",
        "backend": "external",
        "metadata": json.dumps(one.metadata, ensure_ascii=False),
        "run_id": stage.run.run_id,
    }


def _say_dropped(stage: Stage, material: Material) -> None:
    counts: dict[str, int] = {}
    for one in material.dropped:
        counts[one.reason] = counts.get(one.reason, 0) + 1
    unusable = sum(one.text is None for one in material.external)
    counts |= {"external response without usable text": unusable} if unusable else {}
    counts |= {"row of a log that can't be used": len(material.refused)} if material.refused else {}
    if counts:
        stage.progress.say(
            "dropped, with reasons in the store: " + ", ".join(f"{n:,} {why}" for why, n in counts.items())
        )
