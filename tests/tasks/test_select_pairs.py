"""What the stage says of prompts without pairs, and what its key depends on."""

from __future__ import annotations

import re
from typing import Any, get_args

import pytest

from rlrf.config import parse_config
from rlrf.errors import ConfigError
from rlrf.fingerprints import content_id
from rlrf.handles import Handle
from rlrf.pair_config import Pairs, Rule
from rlrf.stages import select_pairs_key
from storage.aspect_bits import packing_of
from storage.pair_rules import dominance_sql, rule_sql
from tasks.select_pairs import _NEED_POSITIVES, _WHY, _too_few, pairs_key

JUDGED = (Handle(stage="judge", key=content_id("key", 1), rows=4, digest=content_id("digest", 1)),)


def config(pairs: dict[str, Any], **others: Any) -> Any:
    data = {"name": "run", "home": "runs/run", "policy": {"bootstrap": {}}, "pairs": pairs, **others}
    return parse_config(data, "here")


def reasons(name: Rule) -> set[str]:
    """Every reason that the SQL of a rule can give."""
    sql = dominance_sql(packing_of(2, 2)) if name == "dominance" else rule_sql(Pairs(type=name))
    return {"nothing_rated", *re.findall(r"'(\w+)'", sql.reasons)}


@pytest.mark.parametrize("name", get_args(Rule))
def test_every_reason_is_put_in_words(name: Rule) -> None:
    found = reasons(name)
    assert len(found) > 1
    for reason in found:
        said = _too_few(config({"type": name}), 0, {reason: 1234}, 1234)
        assert f"1,234 {_WHY[reason]}" in said
        assert "Nothing was trained" in said
        lacks_positives = name in _NEED_POSITIVES and reason in {"no_positive", "nothing_rated"}
        assert ("no prompt has a positive response" in said) is lacks_positives


def test_no_reason_has_words_without_a_rule() -> None:
    assert set(_WHY) == set().union(*map(reasons, get_args(Rule)))


def test_the_key_depends_on_rule_ratings_and_reward() -> None:
    settings = [
        {},
        {"k": 2},
        *({"type": name} for name in get_args(Rule) if name != "paper"),
        {"type": "margin", "margin": 1.0},
    ]
    keys = {pairs_key(config(one), JUDGED).key for one in settings}
    assert len(keys) == len(settings)
    plain, rewarded, other = (select_pairs_key(config({}), JUDGED, reward) for reward in (None, "one", "other"))
    assert len({plain.key, rewarded.key, other.key}) == 3
    assert plain == pairs_key(config({"type": "paper", "k": 1}), JUDGED)
    assert "reward" not in plain.ingredients
    assert pairs_key(config({}, seed=1), JUDGED).key != plain.key
    assert pairs_key(config({}), JUDGED * 2).key != plain.key


def test_own_parent_wants_refinements() -> None:
    with pytest.raises(ConfigError, match=r"refine\.m is 0"):
        config({"type": "own_parent"}, refine={"m": 0})
    assert config({"type": "own_parent"}).pairs.type == "own_parent"
