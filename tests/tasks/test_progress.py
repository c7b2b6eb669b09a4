from __future__ import annotations

import pytest

from storage.ledger import Counts
from tasks.progress import StageProgress, stage_progress


def test_counts_what_is_kept_made_and_failed() -> None:
    progress = StageProgress("explore")
    progress.begin(20, 5, "responses")
    progress.advance(8, 1, tokens=80)
    progress.advance(6, tokens=60)
    assert progress.counts() == Counts(kept=5, produced=14, failed=1, tokens=140)


def test_says_what_is_kept_only_when_something_is_and_something_is_left(capsys: pytest.CaptureFixture[str]) -> None:
    for kept, said in ((0, ""), (20, ""), (5, "  explore        5 of 20 responses kept, 15 to do\n")):
        StageProgress("explore").begin(20, kept, "responses")
        assert capsys.readouterr().err == said


def test_long_lines_are_not_broken_and_text_is_not_interpreted(capsys: pytest.CaptureFixture[str]) -> None:
    with stage_progress("judge") as progress:
        progress.say("[bold]" + "x" * 500 + "\x1b[31m")
    assert capsys.readouterr().err == "  judge          [bold]" + "x" * 500 + "\\x1b[31m\n"


def test_an_empty_stage_divides_by_nothing() -> None:
    progress = StageProgress("refine")
    progress.begin(0, 0)
    progress.advance(0)
    progress.end()
    assert progress.counts() == Counts()
