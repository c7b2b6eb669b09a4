"""A judge of plain form, for prompts without a reference: is the text finished, an answer, and free of repetition?

    [judge]
    type = "python"
    function = "deployments/plain_form.py:rate"
    aspects = ["complete", "on_task", "clean"]

It knows English refusals only, and says nothing about whether an answer is right.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from typing import Any

Verdict = tuple[int, str]

FINE = "Nothing to object to."
MIN_WORDS = 3
LOOP_WORDS = 6
MAX_WORD = 100

_ENDS = re.compile(r"[.!?…。！？:;)\]}\"'”’»*`|$>~-]\Z|[.!?]\s*[^\w\s]{1,4}\Z")
_CUT = re.compile(r"(?:[,(\[{–-]|\b(?:and|or|but|the|a|an|of|to|in|with|for|because|that|which))\Z", re.IGNORECASE)
_LIST_LINE = re.compile(r"\s*(?:[-*+•]|\d{1,3}[.)])\s")
_REFUSAL = re.compile(
    r"\bI(?:['’]m| am) (?:sorry|afraid|unable)\b|\bI (?:can(?:['’]t|not| not)|won['’]t|will not|am not able to|must decline)\b"
    r"|\bas an? (?:ai|language model)\b|\bI apologi[sz]e\b",
    re.IGNORECASE,
)
_REFUSAL_REACH = 120
_WORDS = re.compile(r"\w+")
_SENTENCES = re.compile(r"\n+|(?<=[.!?])\s+")


def rate(
    messages: Sequence[dict[str, str]], response: str, reference: str | None, metadata: dict[str, Any]
) -> dict[str, Verdict]:
    """Ratings -1, 0 or 1 with critiques for `complete`, `on_task` and `clean`; the reference isn't looked at."""
    asked = next((one["content"] for one in reversed(messages) if one["role"] == "user"), "")
    text = response.strip()
    return {"complete": rate_complete(text), "on_task": rate_on_task(asked, text), "clean": rate_clean(text)}


def rate_complete(text: str) -> Verdict:
    """Whether it ends like a finished text: a closing mark, a list's last line, or a short answer."""
    if not text:
        return -1, "There is no text."
    if text.count("```") % 2:
        return -1, "A code block is not closed."
    last = text.rpartition("\n")[2]
    if _CUT.search(text):
        return -1, "It breaks off in mid-sentence."
    if _ENDS.search(text) or _LIST_LINE.match(last) or len(text.split()) <= 10:
        return 1, FINE
    return 0, "The last sentence has no closing mark."


def rate_on_task(asked: str, text: str) -> Verdict:
    """Whether it is an answer: not empty, not a refusal, not the instruction over again."""
    if not text:
        return -1, "There is no answer."
    refusal = _REFUSAL.search(text[:_REFUSAL_REACH])
    if refusal and len(_WORDS.findall(text)) <= 80:
        return -1, "It refuses instead of answering."
    said, wanted = _bare(text), _bare(asked)
    if wanted and len(wanted) >= MIN_WORDS and said[: len(wanted)] == wanted:
        if len(said) <= 1.2 * len(wanted):
            return -1, "It repeats the instruction instead of answering."
        return 0, "It repeats the instruction before it answers."
    if refusal:
        return 0, "It begins with a refusal or an apology."
    return 1, FINE


def rate_clean(text: str) -> Verdict:
    """Whether it says everything once: no sentence twice, no phrase in a loop."""
    if _loops(text):
        return -1, "It goes round in a loop."
    counts = Counter(" ".join(words) for part in _SENTENCES.split(text) if len(words := _bare(part)) > MIN_WORDS)
    repeated = sum(count - 1 for count in counts.values())
    if repeated > 1:
        return -1, "Sentences repeat."
    return (0, "One sentence repeats.") if repeated else (1, FINE)


def _bare(text: str) -> list[str]:
    return [word.lower() for word in _WORDS.findall(text)]


def _loops(text: str) -> bool:
    """Whether one word is endless (links aside), or some words follow upon themselves at least three times running."""
    if any(len(word) > MAX_WORD and "://" not in word and len(set(word)) < 12 for word in text.split()):
        return True
    words = _bare(text)
    return any(_runs(words, size) for size in range(1, LOOP_WORDS + 1))


def _runs(words: list[str], size: int) -> bool:
    """Whether `size` words stand three times in a row (four times where it is one word: 'no, no, no' is speech)."""
    needed = size * (3 if size == 1 else 2)
    run = 0
    for one, later in zip(words, words[size:], strict=False):
        run = run + 1 if one == later and not one.isdigit() else 0
        if run >= needed:
            return True
    return False
