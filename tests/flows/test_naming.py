from __future__ import annotations

from datetime import UTC, datetime

import pytest

from flows.naming import named
from tasks.titles import artifact_key, title


@pytest.mark.parametrize(
    ("as_of", "name"),
    [
        (None, "support"),
        (datetime(2026, 3, 1, tzinfo=UTC), "support as of 2026-03-01"),
        (datetime(2026, 3, 1, 2, 30, tzinfo=UTC), "support as of 2026-03-01 02:30"),
        ("2026-03-01T02:30:00Z", "support as of 2026-03-01 02:30"),
    ],
)
def test_a_run_says_its_configuration_and_its_logical_date(as_of: datetime | str | None, name: str) -> None:
    assert named("support", as_of) == name


def test_a_stage_that_is_not_known_is_called_by_its_name() -> None:
    assert title("ingest", {}) == "ingest"


@pytest.mark.parametrize(
    ("subject", "key"), [("judge of refine", "judge-of-refine"), ("select_pairs", "select-pairs"), ("A b_C.", "a-b-c")]
)
def test_keys_of_artifacts_are_such_as_prefect_takes(subject: str, key: str) -> None:
    assert artifact_key(subject) == key
