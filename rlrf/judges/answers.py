"""The final answer of a worked solution, and whether two final answers are the same."""

from __future__ import annotations

import logging
import re
from dataclasses import dataclass
from fractions import Fraction
from math import prod

from rlrf.judges.arithmetic import Value, number

MAX_ANSWER = 200

_MARKER = re.compile(
    r"####[ \t]*|^[ \t]*A:[ \t]*|\\boxed[ \t]*\{|\bfinal answer:[ \t]*|\banswer is:?[ \t]*",
    re.IGNORECASE | re.MULTILINE,
)
_SENTENCE_END = re.compile(r"[.!?](?=\s|$)|\n")
_DRESSING = str.maketrans({"−": "-", "–": "-", "\u00a0": " ", **dict.fromkeys("$€£¥`", None)})
_MARKUP = re.compile(
    r"\\(?:text|mathrm|textbf)\s*\{[^{}]*\}|\\[,;:!% ]|\{,\}|\\(?:left|right)\b|(?<!\d)\*\*|\*\*(?!\s*[\d(])"
)
_NUMBER = re.compile(
    r"(?P<sign>[-+])?\s*(?P<whole>\d[\d,]*(?:\.\d+)?|\.\d+)(?:\s*/\s*(?P<below>\d+)|\s+(?P<above>\d+)/(?P<part>\d+))?"
    r"(?P<unit>\D*)"
)
_THOUSANDS = re.compile(r"\d{1,3}(?:,\d{3})+(?:\.\d+)?|\d+(?:\.\d+)?|\.\d+")
_SCALES = {"hundred": 10**2, "thousand": 10**3, "million": 10**6, "billion": 10**9, "trillion": 10**12, "dozen": 12}
_UNIT = re.compile(r"(?![^\W\d_]\b)\s*%?\s*(?:[^\W\d_][^+*/=^\\{}()\[\]<>]*(?:/[^\W\d_]+)?)?[\s.,!]*")

_WORDS = re.compile(r"(?:[^\W\d_]|[ ,.'’-])++")
_COMMANDS = {"frac", "dfrac", "tfrac", "sqrt", "pi", "cdot", "times", "div", "pm", "infty", "cup", "cap", "circ"}
_POWER = re.compile(r"\^\s*\{?\s*-?\s*(\d{1,2})(?!\d)\s*\}?")
_MAX_POWER = 100


@dataclass(frozen=True, slots=True)
class FinalAnswer:
    """A final answer as written, and where its marker starts and its text ends in the response."""

    text: str
    start: int
    end: int


def final_answer(text: str) -> FinalAnswer | None:
    """The last answer that `text` marks by '#### N', 'A: N', '\\boxed{N}' or 'The answer is N'; None without one."""
    last = None
    for marker_found in _MARKER.finditer(text):
        last = marker_found
    if last is None:
        return None
    start = last.end()
    marker = last[0].lstrip().lower()
    if marker.startswith("\\boxed"):
        end, after = _closing_brace(text, start)
    else:
        end = _line_end(text, start) if marker.startswith(("#", "a:")) else _sentence_end(text, start)
        after = end
    answer = text[start:end].strip()
    return FinalAnswer(answer, last.start(), after) if answer else None


def plain_number(text: str) -> Value | None:
    """`text` as an exact number, currency, percent sign and unit aside ('$1,200.50 per day'); None if it is not one."""
    if len(text) > MAX_ANSWER:
        return None
    bare = _undressed(text).rpartition("=")[2].strip()
    found = _NUMBER.fullmatch(bare.rstrip("."))
    if found is None or not _THOUSANDS.fullmatch(found["whole"]) or not _UNIT.fullmatch(found["unit"]):
        return None
    size = _size(found)
    if size is None:
        return None
    words = found["unit"].split()
    size *= _SCALES.get(words[0].rstrip(".,").lower(), 1) if words else 1
    return -size if found["sign"] == "-" else size


def same_answer(answer: str, reference: str) -> bool | None:
    """Whether two final answers mean the same; None where that can't be told.

    Plain numbers are compared exactly. Other answers are the same if they are written alike, or if math-verify (sympy)
    finds them equal; it is asked only about short expressions that can't be expensive.
    """
    wanted, given = plain_number(reference), plain_number(answer)
    if wanted is not None and given is not None:
        return wanted == given
    if _bare(answer) == _bare(reference):
        return True
    if _cheap(answer) and _cheap(reference):
        return _symbolically_equal(answer, reference)
    return False if wanted is not None or _WORDS.fullmatch(reference) or _WORDS.fullmatch(answer) else None


def _size(found: re.Match[str]) -> Value | None:
    whole = number(found["whole"])
    if whole is None:
        return None
    below = number(found["below"] or found["part"] or "1")
    above = number(found["above"] or "0")
    if not below or above is None:
        return None
    return Fraction(whole) / below if found["below"] else whole + Fraction(above) / below


def _undressed(text: str) -> str:
    return _MARKUP.sub("", text.translate(_DRESSING)).strip()


def _bare(text: str) -> str:
    return _undressed(text).replace(" ", "").rstrip(".").lower()


def _cheap(text: str) -> bool:
    """Whether sympy can be given `text`: short, known commands only, no words, small numbers, small plain powers."""
    if len(text) > 100 or "!" in text or "**" in text or re.search(r"\d{16}|\^[^\d{]", text):
        return False
    if any(word not in _COMMANDS for word in re.findall(r"\\([A-Za-z]+)", text)):
        return False
    if re.search(r"[A-Za-z]{2}", re.sub(r"\\[A-Za-z]+", " ", text)):
        return False
    powers = _POWER.findall(text)
    return len(powers) == text.count("^") and prod(max(1, int(power)) for power in powers) <= _MAX_POWER


def _symbolically_equal(answer: str, reference: str) -> bool:
    # Loading sympy takes seconds, and most judges of word problems never need it.
    from math_verify import LatexExtractionConfig, parse, verify

    # The library's time limits are signals, which only a main thread may set; _cheap bounds the work instead, so its
    # warning that the limits are off says nothing here.
    logging.getLogger("math_verify").setLevel(logging.ERROR)
    read = [
        parse(f"\\boxed{{{text}}}", [LatexExtractionConfig()], parsing_timeout=None) for text in (reference, answer)
    ]
    return bool(read[0]) and bool(read[1]) and bool(verify(read[0], read[1], timeout_seconds=None))


def _line_end(text: str, start: int) -> int:
    end = text.find("\n", start)
    return len(text) if end < 0 else end


def _sentence_end(text: str, start: int) -> int:
    found = _SENTENCE_END.search(text, start)
    return found.start() if found else len(text)


def _closing_brace(text: str, start: int) -> tuple[int, int]:
    """Where the brace opened before `start` closes (and one past it); the end of the text where it never does."""
    depth = 1
    for brace in re.compile(r"[{}]").finditer(text, start):
        depth += 1 if brace[0] == "{" else -1
        if depth == 0:
            return brace.start(), brace.end()
    return len(text), len(text)
