"""What backfills go over: the sets of past iterations, the policies of a home, and what is left to do of each."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from rlrf.backends.weights import is_whole
from rlrf.handles import Handle, Policy
from storage import ledger, planning
from storage.planning import Rate
from storage.store import Store


@dataclass(frozen=True)
class PastIteration:
    """An iteration that was done: its number, and what its stages left."""

    number: int
    prompts: Handle
    explored: Handle
    refined: Handle | None
    compared: Handle | None

    @property
    def responses(self) -> list[Handle]:
        """Every set of responses, those that have any."""
        sets = (self.explored, self.refined, self.compared)
        return [one for one in sets if one is not None and one.rows]


def iterations(store: Store, numbers: range | None = None) -> list[PastIteration]:
    """Those of the policy's arm, of all runs, each once; with `numbers` those of these numbers alone."""
    sql = "SELECT iteration, stage_keys FROM iterations WHERE arm = 'policy' ORDER BY rowid"
    found: dict[str, PastIteration] = {}
    for row in store.query(sql):
        keys: dict[str, str] = json.loads(row["stage_keys"])
        there = {name: ledger.receipt(store, key) for name, key in keys.items()}
        prompts, explored = there.get("sample_prompts"), there.get("explore")
        if prompts and explored and (numbers is None or row["iteration"] in numbers):
            one = PastIteration(row["iteration"], prompts, explored, there.get("refine"), there.get("compare"))
            found.setdefault(explored.key, one)
    return list(found.values())


def policies(store: Store) -> list[tuple[Policy, bool]]:
    """Every policy of ours, oldest first, and whether its folder is whole."""
    sql = "SELECT policy_id, name, folder FROM policies WHERE kind NOT IN ('external', 'teacher') ORDER BY created_at, name"
    found = [Policy(**row) for row in store.query(sql)]
    return [(one, is_whole(one.folder)) for one in found]


def unjudged(store: Store, handle: Handle, judge_key: str) -> int:
    """How many responses of a set this judge has yet to rate."""
    sql = """SELECT count(*) FROM members m WHERE m.set_key = $set AND NOT EXISTS (
             FROM judgements j WHERE j.response_id = m.member_id AND j.judge_key = $judge)"""
    return int(store.value(sql, {"set": handle.key, "judge": judge_key}))


def mean_judge_tokens(store: Store) -> float:
    """Mean tokens of a judge's reply, of those that took any."""
    return float(store.value("SELECT avg(completion_tokens) FROM judgements WHERE completion_tokens > 0") or 0)


def rates(store: Store) -> dict[str, Rate]:
    """Per stage what its rows took so far."""
    return planning.rates(planning.past(store))


def run_seconds(store: Store, name: str) -> float | None:
    """What a completed run of this name took on average, of those that made something."""
    sql = """SELECT avg(epoch(ended_at - started_at)) FROM runs r WHERE name = ? AND status = 'completed'
             AND EXISTS (FROM responses p WHERE p.run_id = r.run_id)"""
    found = store.value(sql, [name])
    return None if found is None else float(found)


def disagreements(store: Store, judge: str, other: str, limit: int) -> list[dict[str, Any]]:
    """The largest ones between two judges."""
    sql = """SELECT d.*, r.text FROM judge_disagreements d JOIN responses r USING (response_id)
             WHERE d.judge = ? AND d.other = ? ORDER BY difference DESC, response_id, aspect LIMIT ?"""
    return store.query(sql, [judge, other, limit])


def pairs_under(store: Store, judge_key: str) -> list[dict[str, Any]]:
    """Per pair set how many of its pairs this judge agrees with, flips, ties, or doesn't rate."""
    sql = """SELECT pair_set, count(*) FILTER (outcome = 'agrees') AS agrees, count(*) FILTER (outcome = 'flips') AS flips,
                    count(*) FILTER (outcome = 'ties') AS ties, count(*) FILTER (outcome = 'unrated') AS unrated
             FROM pairs_by_judge WHERE judge_key = ? GROUP BY pair_set ORDER BY pair_set"""
    return store.query(sql, [judge_key])


def latest_judges(store: Store) -> list[str]:
    """Keys of the judges that said something, the newest first."""
    sql = "SELECT judge_key FROM judgements GROUP BY judge_key ORDER BY min(created_at) DESC"
    return [row["judge_key"] for row in store.query(sql)]
