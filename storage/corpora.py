"""What ingestion left in the store, and what it dropped."""

from __future__ import annotations

import json

from rlrf.handles import Corpus
from rlrf.ingesting import Material
from storage.store import Store, insert


def add_dropped(store: Store, material: Material) -> None:
    """Record every prompt and external response that was left out, with its reason."""
    responses = [
        {"source": one.prompt.source, "place": one.place, "reason": one.reason}
        for one in material.external
        if one.text is None
    ]
    with store.connect() as connection:
        insert(connection, "dropped_prompts", [vars(one) for one in material.dropped])
        insert(connection, "dropped_responses", responses)
        names = ("source", "place", "reason")
        insert(connection, "dropped_rows", [dict(zip(names, one, strict=True)) for one in material.refused])


def add_corpus(store: Store, stage_key: str, corpus: Corpus) -> None:
    """Remember the three sets of one ingestion."""
    with store.connect() as connection:
        insert(connection, "corpora", [{"stage_key": stage_key, "sets": corpus.model_dump_json()}])


def corpus(store: Store, stage_key: str) -> Corpus | None:
    """A recorded ingestion, or None."""
    found = store.value("SELECT sets FROM corpora WHERE stage_key = ?", [stage_key])
    return Corpus.model_validate(json.loads(found)) if found else None
