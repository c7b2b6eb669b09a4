"""Ingest: source files become prompts, held-out prompts and external responses in the store."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from rlrf import stage_keys, stages
from rlrf.external import ExternalResponse
from rlrf.fingerprints import content_id
from rlrf.handles import Corpus, Handle, Policy, Run
from rlrf.ingesting import Material, read_material
from rlrf.records import Prompt
from storage import corpora, ledger, rows, sets
from storage.store import Store
from tasks.stage import Stage, stage


def _key(run: Run) -> stages.Key:
    return stage_keys.ingest_key(run.config)


@stage("ingest", _key, found=corpora.corpus)
def ingest(stage: Stage, run: Run) -> Corpus:
    """Every row of every source is in the store afterwards, or in `dropped_prompts` or `dropped_responses` with its reason."""
    material = read_material(stage.config)
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
    if counts:
        stage.progress.say(
            "dropped, with reasons in the store: " + ", ".join(f"{n:,} {why}" for why, n in counts.items())
        )
