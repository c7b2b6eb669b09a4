"""The reference's answer out of a judge's words: what a critique gives away, a reviser would copy instead of find."""

from __future__ import annotations

import re
from collections.abc import Iterator
from fractions import Fraction
from itertools import pairwise

from rlrf.judges.answers import final_answer, plain_number
from rlrf.judges.arithmetic import NUMBER, Value

HIDDEN = "[...]"
"""What stands in the place of words that were taken out."""

COPIED = 8
"""So many words in a row that also follow each other in the reference are copied from it."""

_WORD = re.compile(r"\[\.\.\.\]|\d+(?:[.,]\d+)*|[^\W\d_]+(?:['’-][^\W\d_]+)*")
_TOKEN = re.compile(NUMBER)
_SPACED = re.compile(r"\d{1,3}(?:(?:[ \u00a0\u2009\u202f'’_]|\{,\})\d{3})+(?!\d)(?:\.\d+)?")
_FRACTION = re.compile(r"(?:(?:\d+\s+)?\d+\s*/\s*\d+)(?![\d.,]*\d)")
_WRAPPED = re.compile(r"\\(?:text|mathrm|textbf)\s*\{(.*)\}", re.DOTALL)
_SCALED = re.compile(rf"(?:{NUMBER})\s*(?:hundred|thousand|million|billion|trillion|dozen)\b", re.IGNORECASE)


def without_answers(critique: str, reference: str | None) -> str:
    """The critique without the reference's final answer and without what it copies from the reference.

    Taken out, each replaced by "[...]": every number of the same size as the answer, however it is spelled in digits
    ("1,200", "$1200.00", "1.2 thousand"), its sign aside; for an answer that is no number, its text, in any case where it
    has more than one letter; and every run of eight or more words of the reference. All else stays as it is, and without a
    reference the whole critique does. The answer is the one that the reference marks, or the reference itself.
    """
    if not reference:
        return critique
    answer = answer_of(reference)
    size = plain_number(answer)
    while True:  # what is left may hold something anew; each turn takes away characters that no mark has
        shorter = _cut(critique, copied_runs(critique, reference))
        spans = occurrences(shorter, answer) if size is None else numbers_of_size(shorter, size)
        shorter = _cut(shorter, spans)
        if shorter == critique:
            return critique
        critique = shorter


def answer_of(reference: str) -> str:
    """The final answer that a reference marks, or all of it where it marks none; LaTeX's text command aside."""
    marked = final_answer(reference)
    answer = marked.text if marked else reference.strip()
    wrapped = _WRAPPED.fullmatch(answer)
    return wrapped[1].strip() if wrapped else answer


def copied_runs(text: str, reference: str) -> list[tuple[int, int]]:
    """Where `text` has eight or more words in a row that follow each other in the reference, as spans of characters.

    Case and punctuation between words make no difference; "[...]" ends a run.
    """
    theirs = [word[0].casefold() for word in _WORD.finditer(reference)]
    known = {tuple(theirs[at : at + COPIED]) for at in range(len(theirs) - COPIED + 1)}
    words = list(_WORD.finditer(text))
    ours = [word[0].casefold() for word in words]
    spans: list[tuple[int, int]] = []
    for at in range(len(ours) - COPIED + 1):
        run = tuple(ours[at : at + COPIED])
        if run in known and HIDDEN not in run:
            spans.append((words[at].start(), words[at + COPIED - 1].end()))
    return _merged(spans)


def numbers_of_size(text: str, wanted: Value) -> list[tuple[int, int]]:
    """Where `text` has numbers as large as `wanted`, signs aside, as spans of characters.

    A fraction counts as a number only where `wanted` is none that is whole: '2400/2' is a step, '1/2' a number.
    """
    spans: list[tuple[int, int]] = []
    at, size = 0, abs(Fraction(wanted))
    while found := _TOKEN.search(text, at):
        span = next((span for span, read in _spellings(text, found, size) if plain_number(read) == size), None)
        spans += [span] if span else []
        at = span[1] if span else found.end()
    return spans


def occurrences(text: str, answer: str) -> list[tuple[int, int]]:
    """Where `text` has `answer` as words of its own, as spans of characters; case counts for a single letter alone."""
    if not answer.strip("[.] \t\n"):
        return []  # every mark of something taken out has it
    words = r"\s+".join(map(re.escape, answer.split()))
    before, after = (r"(?<!\w)" if answer[0].isalnum() else ""), (r"(?!\w)" if answer[-1].isalnum() else "")
    pattern = re.compile(before + words + after, re.IGNORECASE if len(answer) > 1 else 0)
    return [found.span() for found in pattern.finditer(text)]


def _spellings(text: str, found: re.Match[str], size: Fraction) -> Iterator[tuple[tuple[int, int], str]]:
    """The numbers that may begin where a plain one was found, the longest first, each with a text that can be read."""
    if scaled := _SCALED.match(text, found.start()):
        yield scaled.span(), scaled[0]
    if spaced := _SPACED.match(text, found.start()):
        yield spaced.span(), re.sub(r"[^\d.]", "", spaced[0])
    if size.denominator > 1 and (fraction := _FRACTION.match(text, found.start())):
        yield fraction.span(), fraction[0]
    whole, _, decimals = found[0].partition(".")
    yield found.span(), (whole.lstrip("0,") or "0") + "." + (decimals.rstrip("0") or "0")


def _merged(spans: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """Spans that overlap, as one; they come ordered by their starts."""
    merged: list[tuple[int, int]] = []
    for start, end in spans:
        if merged and start < merged[-1][1]:
            merged[-1] = (merged[-1][0], max(end, merged[-1][1]))
        else:
            merged.append((start, end))
    return merged


def _cut(text: str, spans: list[tuple[int, int]]) -> str:
    edges = [0, *(edge for span in spans for edge in span), len(text)]
    kept = [text[start:end] for start, end in list(pairwise(edges))[::2]]
    return HIDDEN.join(kept)
