from __future__ import annotations

import pytest
from pydantic import ValidationError

from rlrf.pair_config import Audit, Pairs


def test_a_limit_that_has_a_default_can_be_switched_off() -> None:
    names = ("ties", "length_ratio", "near_duplicate_prompts", "evaluation_overlap")
    audit = Audit.model_validate(dict.fromkeys(names, "off"))
    assert all(getattr(audit, name) is None for name in names)
    assert all(getattr(Audit(), name) is not None for name in names)


@pytest.mark.parametrize(
    ("name", "value"), [("ties", 1.5), ("length_ratio", 1.0), ("equal_texts", "off"), ("ngram", 1)]
)
def test_a_limit_that_makes_no_sense_is_refused(name: str, value: object) -> None:
    with pytest.raises(ValidationError, match=name):
        Audit.model_validate({name: value})


def test_a_margin_belongs_to_its_rule() -> None:
    assert Pairs(type="margin", margin=0.2).margin == 0.2
    with pytest.raises(ValidationError, match="margin"):
        Pairs(type="paper", margin=0.2)
