"""What a plan asks of the store: what was done before, which rows are there, how long texts are and what they took."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from rlrf.handles import Corpus, Handle
from rlrf.past import Maker, Past, Receipt, Start
from storage.store import Store, fetch


@dataclass(frozen=True)
class There:
    """Rows that are there already, and the tokens that they took."""

    rows: int = 0
    tokens: int = 0


@dataclass(frozen=True)
class Rate:
    """What a stage took so far, all runs together: how often it produced rows, how many, in how many seconds."""

    times: int
    rows: int
    seconds: float

    def of(self, rows: int | None) -> float:
        """The seconds of so many rows at this rate; of one more time, where it isn't known how many rows."""
        return self.seconds / self.times if rows is None else self.seconds * rows / self.rows


def past(store: Store) -> Past:
    """Everything that was done in this store, as far as keys, receipts and policies tell."""
    with store.connect() as connection:
        keys = fetch(connection, "SELECT key, kind, ingredients FROM keys")
        receipts = fetch(connection, "SELECT * FROM receipts ORDER BY rowid")
        starts = fetch(connection, "SELECT stage_key, run_id, started_at FROM starts ORDER BY rowid DESC")
        corpora = fetch(connection, "SELECT stage_key, sets FROM corpora")
        policies = fetch(connection, "SELECT policy_id, name, stage_key FROM policies")
        iterations = fetch(
            connection, "SELECT iteration, stage_keys FROM iterations WHERE arm = 'policy' ORDER BY rowid"
        )
    numbers = {key: row["iteration"] for row in iterations for key in json.loads(row["stage_keys"]).values()}
    return Past(
        keys={row["key"]: (row["kind"], row["ingredients"]) for row in keys},
        receipts={row["stage_key"]: _receipt(row, order) for order, row in enumerate(receipts)},
        starts={row["stage_key"]: Start(row["run_id"], row["started_at"]) for row in starts},
        corpora={row["stage_key"]: Corpus.model_validate_json(row["sets"]) for row in corpora},
        policies={row["policy_id"]: Maker(row["name"], row["stage_key"]) for row in policies},
        iterations=numbers,
    )


def rates(known: Past) -> dict[str, Rate]:
    """Per stage what its rows took, from all receipts that produced any."""
    found: dict[str, Rate] = {}
    for one in known.receipts.values():
        if one.produced:
            before = found.get(one.handle.stage, Rate(0, 0, 0.0))
            sums = (before.times + 1, before.rows + one.produced, before.seconds + one.seconds)
            found[one.handle.stage] = Rate(*sums)
    return found


def responses_there(store: Store, gen_key: str, prompts_key: str, until: int, first: int = 0) -> There:
    """The responses to a set of prompts that were made under this key, at positions from `first` until before `until`.

    An id is the hash of the key, the prompt and the position: these rows are the planned ones, and no id has to be made.
    """
    sql = """SELECT count(*) AS rows, coalesce(sum(r.completion_tokens), 0)::BIGINT AS tokens
             FROM responses r JOIN members m ON m.member_id = r.prompt_id AND m.set_key = $prompts
             WHERE r.gen_key = $key AND r.parent_id IS NULL AND r.position >= $first AND r.position < $until"""
    return _there(store, sql, {"prompts": prompts_key, "key": gen_key, "first": first, "until": until})


def ids_there(store: Store, response_ids: Sequence[str]) -> There:
    """Those of these responses that there are."""
    sql = """SELECT count(*) AS rows, coalesce(sum(r.completion_tokens), 0)::BIGINT AS tokens
             FROM responses r JOIN asked ON r.response_id = asked.response_id::UUID"""
    with store.connect() as connection:
        connection.register("asked", pa.table({"response_id": pa.array(response_ids, pa.string())}))
        row = fetch(connection, sql)[0]
        connection.unregister("asked")
    return There(int(row["rows"]), int(row["tokens"]))


def judged_ahead(store: Store, gen_key: str, prompts_key: str, until: int, judge_key: str) -> There:
    """The judgements that this judge has given on the responses that `responses_there` counts."""
    sql = """SELECT count(*) AS rows, coalesce(sum(j.completion_tokens), 0)::BIGINT AS tokens
             FROM responses r JOIN members m ON m.member_id = r.prompt_id AND m.set_key = $prompts
             JOIN judgements j ON j.response_id = r.response_id AND j.judge_key = $judge
             WHERE r.gen_key = $key AND r.parent_id IS NULL AND r.position < $until"""
    return _there(store, sql, {"prompts": prompts_key, "key": gen_key, "until": until, "judge": judge_key})


def judged_there(store: Store, set_key: str, judge_key: str) -> There:
    """The judgements that this judge has given on the members of a set."""
    sql = """SELECT count(*) AS rows, coalesce(sum(j.completion_tokens), 0)::BIGINT AS tokens
             FROM members m JOIN judgements j ON j.response_id = m.member_id
             WHERE m.set_key = $set AND j.judge_key = $judge"""
    return _there(store, sql, {"set": set_key, "judge": judge_key})


def tokens_of(store: Store, sets: Iterable[str], judges: Mapping[str, Sequence[str]]) -> dict[str, int]:
    """Per set of responses, the tokens that its members took, external ones aside; per judged set those of the judgements
    that these judges gave on it."""
    responses = """SELECT m.set_key, sum(r.completion_tokens)::BIGINT AS tokens
                   FROM members m JOIN responses r ON r.response_id = m.member_id
                   WHERE m.set_key IN (SELECT unnest($sets::UUID[])) AND r.backend <> 'external' GROUP BY m.set_key"""
    judgements = """SELECT a.set_key, sum(j.completion_tokens)::BIGINT AS tokens
                    FROM (SELECT unnest($sets::UUID[]) AS set_key, unnest($judges::UUID[]) AS judge_key) a
                    JOIN members m ON m.set_key = a.set_key
                    JOIN judgements j ON j.response_id = m.member_id AND j.judge_key = a.judge_key GROUP BY a.set_key"""
    found: dict[str, int] = {}
    pairs = [(one, judge) for one, several in judges.items() for judge in several]
    with store.connect() as connection:
        rows = fetch(connection, responses, {"sets": list(sets)})
        values = {"sets": [one for one, _ in pairs], "judges": [judge for _, judge in pairs]}
        rows += fetch(connection, judgements, values) if pairs else []
    for row in rows:
        found[row["set_key"]] = found.get(row["set_key"], 0) + int(row["tokens"] or 0)
    return found


def overlap(store: Store, old: str, new: str) -> tuple[int, int, int]:
    """Members of one set, of another, and of both, of either split."""
    sql = """SELECT count(*) FILTER (before) AS old, count(*) FILTER (after) AS new, count(*) FILTER (before AND after) AS both
             FROM (SELECT bool_or(set_key = $old) AS before, bool_or(set_key = $new) AS after
                   FROM (FROM main.members UNION ALL FROM held_out.members)
                   WHERE set_key IN ($old, $new) GROUP BY member_id)"""
    row = store.query(sql, {"old": old, "new": new})[0]
    return row["old"], row["new"], row["both"]


def mean_tokens(store: Store) -> float | None:
    """Mean length of the store's own responses so far; None where there are none."""
    found = store.value("SELECT avg(completion_tokens) FROM responses WHERE backend <> 'external'")
    return None if found is None else float(found)


def run_name(store: Store, run_id: str) -> str | None:
    """What a run was called."""
    found: str | None = store.value("SELECT name FROM runs WHERE run_id = ?", [run_id])
    return found


def _there(store: Store, sql: str, values: dict[str, Any]) -> There:
    row = store.query(sql, values)[0]
    return There(int(row["rows"]), int(row["tokens"]))


def _receipt(row: dict[str, Any], order: int) -> Receipt:
    handle = Handle(stage=row["stage"], key=row["stage_key"], rows=row["rows"], digest=row["digest"])
    numbers = {name: row[name] for name in ("kept", "produced", "tokens", "seconds", "run_id")}
    return Receipt(handle, finished_at=row["created_at"], order=order, **numbers)
