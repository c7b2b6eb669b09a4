"""However a server misbehaves, every planned response ends up in the store once, or as a failure with its reason."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.faults import CASES, RESPONSES, Case, play

CHATS = 4
PLANNED = CHATS * RESPONSES
FAILED = {
    "500 for ever, one prompt": {"server_error": RESPONSES},
    "hang for ever, one prompt": {"timeout": RESPONSES},
    "wrong n always, one prompt": {"wrong_choice_count": RESPONSES},
    "invalid JSON always, one prompt": {"invalid_json": RESPONSES},
    "one choice aborted": {"abort": CHATS},
    "one choice empty": {"empty_choice": CHATS},
    "one choice without content": {"null_content": CHATS},
    "max_tokens ignored by one choice": {"ignored_max_tokens": CHATS},
    "guidance ignored after the probe, one choice": {"not_guided": CHATS},
}
ENDED = {
    "wrong model": "does not serve",
    "wrong key": "status 401",
    "death in the middle for good": "unreachable",
    "guidance ignored": "does not guide",
}


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_no_response_is_lost_or_doubled(case: Case, tmp_path: Path) -> None:
    played = play(case, tmp_path, CHATS)
    assert (played.planned, played.lost, played.doubled) == (PLANNED, 0, 0)
    assert played.failed == FAILED.get(case.name, {})
    if case.name in ENDED:
        assert played.said.startswith("BackendError: ")
        assert ENDED[case.name] in played.said
        assert played.left == PLANNED - played.stored > 0
    else:
        assert played.stored + played.failed.total() == PLANNED
        assert played.said == "nothing" or played.failed
    assert played.truncated == (CHATS if "cut by max_tokens" in case.name else 0)


def test_the_table_has_every_case_once() -> None:
    names = [case.name for case in CASES]
    assert len(set(names)) == len(names)
    assert set(FAILED) | set(ENDED) <= set(names)
