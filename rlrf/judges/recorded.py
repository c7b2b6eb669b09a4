"""A judge that gave its replies elsewhere: a file of raw replies, read by a rubric."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from rlrf.errors import ConfigError, DataError
from rlrf.fingerprints import file_digest
from rlrf.judges.batching import in_batches
from rlrf.judges.reply import parse
from rlrf.records import Case, Judgement
from rlrf.rubric import Rubric
from rlrf.tables import Table, read_rows

VERSION = 1
"""Rises with every change to this module or to `rlrf.judges.reply` that can change a verdict."""

Key = tuple[str, str]


class RecordedJudge:
    """Looks up the raw reply by the prompt's last user message and the response's text, and reads it by the rubric.

    White space at the ends of either makes no difference. The file is read when the first case is judged; a reply that is
    null counts as none.

    Unrated reasons: truncated, not_recorded (no reply), contradiction (two replies that differ), and those of
    `rlrf.judges.reply.parse`.

    Raises:
        ConfigError: there is no such file.
        DataError: the file can't be read as a table with these columns (when the first case is judged).
    """

    def __init__(
        self,
        path: Path | str,
        rubric: Rubric,
        prompt: str = "prompt",
        response: str = "response",
        reply: str = "judge_reply",
    ) -> None:
        self.path, self.rubric = Path(path), rubric
        self.columns = (prompt, response, reply)
        self.aspects = tuple(aspect.name for aspect in rubric.aspects)
        self.weights = {aspect.name: aspect.weight for aspect in rubric.aspects}
        self._replies: dict[Key, set[str]] | None = None
        try:
            self._digest = file_digest(self.path)
        except OSError as error:
            raise ConfigError(
                f"judge.path = {str(path)!r}: {error.strerror}; give a file of replies, looked up from {str(Path.cwd())!r}"
            ) from error

    def ingredients(self) -> dict[str, Any]:
        """All that bears on its verdicts, as plain JSON."""
        return {
            "type": "recorded",
            "version": VERSION,
            "file": self._digest,
            "rubric": self.rubric.model_dump(mode="json"),
            "columns": list(self.columns),
        }

    def judge(self, cases: Sequence[Case]) -> Iterator[list[Judgement]]:
        """Yield judgements in the cases' order, 512 at a time."""
        return in_batches(cases, self.judge_one)

    def judge_one(self, case: Case) -> Judgement:
        """The judgement of one complete response."""
        if self._replies is None:
            self._replies = self._read()
        asked = [message["content"] for message in case.messages if message["role"] == "user"]
        replies = self._replies.get(_key(asked[-1], case.text)) if asked else None
        if not replies:
            return Judgement(case.response_id, reason="not_recorded")
        if len(replies) > 1:
            shown = "\n\n".join(sorted(replies))
            return Judgement(case.response_id, reason="contradiction", raw_reply=shown)
        [reply] = replies
        ratings, reason = parse(reply, self.rubric)
        return Judgement(case.response_id, ratings, reason, reply)

    def close(self) -> None:
        """Forget the replies."""
        self._replies = None

    def _read(self) -> dict[Key, set[str]]:
        replies: dict[Key, set[str]] = {}
        for row in read_rows(Table(path=str(self.path)), self.columns):
            prompt, response, reply = (row.values[column] for column in self.columns)
            for column, value in zip(self.columns[:2], (prompt, response), strict=True):
                if not isinstance(value, str):
                    raise DataError(f"{row.place}: {column} is {value!r:.80}; write it as text")
            if reply is None:
                continue
            if not isinstance(reply, str):
                raise DataError(
                    f"{row.place}: {self.columns[2]} is {type(reply).__name__}; write the judge's reply as text, as it came"
                )
            replies.setdefault(_key(prompt, response), set()).add(reply)
        return replies


def _key(prompt: str, response: str) -> Key:
    return prompt.strip(), response.strip()
