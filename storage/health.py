"""How far judges can be trusted: checks on labelled data, agreement with themselves and each other, and what is shown of it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rlrf.agreement import Agreement, alpha, two_raters
from rlrf.errors import StoreError
from rlrf.stages import judge_key as key_of
from storage.store import Store

_VARIED = {"repeat": 0, "reverse": False}
"""Ingredients that make a variant of a judge, and their usual values, which are left out."""


@dataclass(frozen=True, slots=True)
class AspectAgreement:
    """How far two judges agree on one aspect; differences are in levels, -1 to 1."""

    aspect: str
    found: Agreement


@dataclass(frozen=True, slots=True)
class PanelAgreement:
    """Krippendorff's alpha (ordinal, of levels) over the `n` responses that at least two of the judges rated."""

    aspect: str
    n: int
    alpha: float | None


@dataclass(frozen=True, slots=True)
class Variants:
    """Keys of the same judge asked once more, and of the same judge asked for its aspects in the other order."""

    repeats: tuple[str, ...]
    reversed: tuple[str, ...]


def add_check(store: Store, judge_key: str, data: str, check: Mapping[str, Any]) -> None:
    """Keep what a judge is worth on labelled data; takes the place of an earlier check of the same aspect on the same data.

    `data` is the labelled data's digest; `check` has aspect, n, unrated, agreement, interval (low, high), alpha and
    confusion, as rlrf.judge_checking.AspectCheck.plain() gives them.
    """
    low, high = check["interval"]
    values = [judge_key, data, *(check[name] for name in ("aspect", "n", "unrated", "agreement"))]
    same = [judge_key, data, check["aspect"]]
    with (
        store.connect() as connection
    ):  # a row made anew, not one overwritten: the order of rows says which check is newest
        connection.execute("DELETE FROM judge_checks WHERE judge_key = ? AND data = ? AND aspect = ?", same)
        connection.execute(
            """INSERT INTO judge_checks
               (judge_key, data, aspect, n, unrated, agreement, low, high, alpha, confusion, created_at)
               VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, now())""",
            [*values, low, high, check["alpha"], json.dumps(check["confusion"], ensure_ascii=False)],
        )


def checks_of(store: Store, judge_key: str) -> list[dict[str, Any]]:
    """All checks of a judge, newest first; `confusion` is label -> rating -> count."""
    sql = "SELECT * FROM judge_checks WHERE judge_key = ? ORDER BY rowid DESC"
    return [row | {"confusion": json.loads(row["confusion"])} for row in store.query(sql, [judge_key])]


def agreement(store: Store, judge_key: str, other_key: str, set_key: str | None = None) -> list[AspectAgreement]:
    """How far two judges agree on the responses that both rated, all or those of a set, per aspect in the judge's order.

    For a judge and its repeat this is self-agreement; for a judge and its reverse, sensitivity to the order of aspects.
    """
    sql = """SELECT a.aspect, a.level AS first, b.level AS second, min(a.place) AS place, count(*) AS n
             FROM ratings a JOIN ratings b ON b.response_id = a.response_id AND b.aspect = a.aspect
             WHERE a.judge_key = $judge AND b.judge_key = $other AND a.level IS NOT NULL AND b.level IS NOT NULL
               AND ($set IS NULL OR a.response_id IN (SELECT member_id FROM members WHERE set_key = $set))
             GROUP BY ALL ORDER BY place, a.aspect, first, second"""
    counts: dict[str, dict[tuple[float, ...], int]] = {}
    for row in store.query(sql, {"judge": judge_key, "other": other_key, "set": set_key}):
        units = counts.setdefault(row["aspect"], {})
        units[row["first"], row["second"]] = row["n"]
    return [AspectAgreement(aspect, two_raters(units)) for aspect, units in counts.items()]


def panel_agreement(store: Store, judge_keys: Sequence[str], set_key: str | None = None) -> list[PanelAgreement]:
    """How far the members of a panel agree, over all responses or those of a set, per aspect by name."""
    sql = """SELECT aspect, levels, count(*) AS n FROM (
               SELECT aspect, list(level ORDER BY level) AS levels FROM ratings
               WHERE judge_key IN (SELECT unnest($judges::UUID[])) AND level IS NOT NULL
                 AND ($set IS NULL OR response_id IN (SELECT member_id FROM members WHERE set_key = $set))
               GROUP BY response_id, aspect HAVING count(*) > 1)
             GROUP BY ALL ORDER BY aspect, levels"""
    counts: dict[str, dict[tuple[float, ...], int]] = {}
    for row in store.query(sql, {"judges": list(judge_keys), "set": set_key}):
        counts.setdefault(row["aspect"], {})[tuple(row["levels"])] = row["n"]
    return [
        PanelAgreement(aspect, sum(units.values()), alpha(units, "ordinal")) for aspect, units in sorted(counts.items())
    ]


def variants(store: Store, judge_key: str) -> Variants:
    """Which keys of this store are repeats of the judge, and which ask for its aspects in the other order.

    Told from the keys' ingredients: equal but for `repeat`, or but for `reverse`, of the judge or of a panel's members.
    """
    known = _judges(store)
    if judge_key not in known:
        return Variants((), ())
    own, own_variation = _split(known[judge_key])
    repeats, turned = [], []
    for key, ingredients in known.items():
        plain, variation = _split(ingredients)
        if key == judge_key or plain != own or len(variation) != len(own_variation):
            continue
        differs = {name for a, b in zip(own_variation, variation, strict=True) for name in a if a[name] != b[name]}
        if differs == {"repeat"}:
            repeats.append(key)
        elif differs == {"reverse"}:
            turned.append(key)
    return Variants(tuple(repeats), tuple(turned))


def panel_members(store: Store, judge_key: str) -> tuple[str, ...]:
    """The keys of a panel's judges, told from its ingredients; empty for any other judge."""
    ingredients = _judges(store).get(judge_key, {})
    parts = ingredients.get("judges") if ingredients.get("type") == "panel" else None
    return tuple(key_of(part).key for part in parts or () if isinstance(part, dict))


def health_sample(store: Store, set_key: str, judge_key: str, n: int, seed: int) -> list[str]:
    """Ids of `n` responses of a set that the judge judged, rated or not, sorted; fewer where there are fewer.

    Drawn by a seeded hash of the id: the same on every machine and day, and a larger n keeps those of a smaller one.
    """
    sql = """SELECT response_id FROM (
               SELECT j.response_id FROM members m JOIN judgements j ON j.response_id = m.member_id
               WHERE m.set_key = $set AND j.judge_key = $judge
               ORDER BY md5($seed || j.response_id::VARCHAR), j.response_id LIMIT $n) ORDER BY response_id"""
    rows = store.query(sql, {"set": set_key, "judge": judge_key, "seed": f"{seed}:", "n": n})
    return [row["response_id"] for row in rows]


def judges_called(store: Store, prefix: str = "") -> list[dict[str, Any]]:
    """The judges whose key starts with this, with a name for people, by key. Raises StoreError where there is none."""
    sql = """SELECT j.judge_key, coalesce(k.ingredients ->> 'type', '?') AS type, k.ingredients -> 'rubric' ->> 'name' AS rubric,
                    k.ingredients ->> 'repeat' AS repeat, k.ingredients ->> 'reverse' AS reverse
             FROM (SELECT DISTINCT judge_key FROM judgements UNION SELECT judge_key FROM judge_checks) j
             LEFT JOIN keys k ON k.key = j.judge_key WHERE starts_with(j.judge_key::VARCHAR, lower($prefix))
             ORDER BY j.judge_key"""
    rows = store.query(sql, {"prefix": prefix})
    if not rows:
        what = f"no judge whose key starts with {prefix!r}" if prefix else "no judge has judged anything yet"
        raise StoreError(f"{what} in {str(store.path)!r}; `rlrf judge health HOME` lists all judges")
    return rows


def _judges(store: Store) -> dict[str, dict[str, Any]]:
    rows = store.query("SELECT key, ingredients FROM keys WHERE kind = 'judge' ORDER BY key")
    return {row["key"]: json.loads(row["ingredients"]) for row in rows}


def _split(ingredients: dict[str, Any]) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """A judge without what makes it a variant, and that of the judge and of each member of a panel."""
    plain = {name: value for name, value in ingredients.items() if name not in _VARIED}
    variation = [{name: ingredients.get(name, usual) for name, usual in _VARIED.items()}]
    members = plain.get("judges")
    if isinstance(members, list) and all(isinstance(member, dict) for member in members):
        split = [_split(member) for member in members]
        plain["judges"] = [member for member, _ in split]
        variation += [one for _, varied in split for one in varied]
    return plain, variation
