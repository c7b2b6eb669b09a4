"""The equations that a worked solution shows, and whether each holds.

Read are 'Step 2: 13 + 28 = 41', calculator annotations ('<<48/2=24>>24'), and chains ('2 * 3 + 4 = 6 + 4 = 10').
Words cut an equation: where the cut may have taken an operand ('2 weeks * 3 = 42', '2x + 3 = 11', 'half of 10 + 3 = 8')
nothing is checked, because an equation that is misread must never count as wrong.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction

from rlrf.judges.arithmetic import PLAIN, SYMBOL, Value, holds, plain, value

MAX_RUN = 300
MAX_QUOTED = 60

_LABEL = re.compile(r"\s*(?:[-*•]\s+)?\**(?:(?:step\s+(\d{1,3})\s*[:.)-]|\d{1,3}[.)](?=\s))\**\s*)?", re.IGNORECASE)
_ANNOTATION = re.compile(r"<<([^<>\n]{1,200})>>")
_RUN = re.compile(r"(?:[0-9.,+\-*/%()= \t]++|(?<![^\W\d_])x(?![^\W\d_]))++")
_LATEX = re.compile(r"\\(times|cdot|div|[()\[\]$%,!])")
_LATEX_PLAIN = {"times": "*", "cdot": "*", "div": "/", "%": "%"}
_TAKES_AN_OPERAND = re.compile(
    r"(?:\b(?:half|twice|double|triple|times|plus|minus|by|over|per|percent|third|quarter|fourth|fifth|sixth|tenth)s?"
    r"(?: (?:of|as))?|\b[^\W\d_]|[%\d] of|[\^_}\]\\{&~√]) ?$",
    re.IGNORECASE,
)
_OPERATORS = frozenset(["+", "-", "minus", "*", "/", "x", "%"])
_OPERATOR_ENDS = [[operator] for operator in _OPERATORS - {"%"}]
_GOES_ON = re.compile(r"hundred|thousand|million|billion|trillion|dozen|cents?\b|¢|and \(?\d", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Check:
    """One equation: the step it stands in, its left side, the result shown, and the exact result."""

    step: int
    expression: str
    shown: str
    exact: Value
    holds: bool

    def critique(self, reveal: bool) -> str:
        """What is wrong with it in one sentence, with the right value only if `reveal`."""
        right = plain(self.exact)
        if max(len(self.expression), len(self.shown), len(right)) > MAX_QUOTED:
            return f"Step {self.step} is wrong."
        if reveal:
            return f"Step {self.step}: {self.expression} = {right}, not {self.shown}."
        return f"Step {self.step}: {self.expression} is not {self.shown}."


def check_steps(text: str) -> list[Check]:
    """Every equation of `text` that can be read, in order; a line's step is its 'Step k' label, else its place."""
    checks: dict[tuple[int, str, str], Check] = {}
    lines = [line for line in text.splitlines() if line and not line.isspace()]
    for place, line in enumerate(lines, start=1):
        if "=" not in line:
            continue
        label = _LABEL.match(line)
        step = int(label[1]) if label and label[1] else place
        for check in _checks_of(step, line[label.end() :] if label else line):
            checks.setdefault((step, check.expression.replace(" ", ""), check.shown), check)
    return list(checks.values())


def _checks_of(step: int, line: str) -> Iterator[Check]:
    line = line.translate(PLAIN)
    if "\\" in line:
        line = _LATEX.sub(lambda found: _LATEX_PLAIN.get(found[1], " "), line)
    if "<<" in line:
        for annotation in _ANNOTATION.finditer(line):
            yield from _checks_of(step, annotation[1])
        line = _ANNOTATION.sub("", line)
    line = line.replace("**", " ")
    for run in _RUN.finditer(line):
        found = run[0]
        if "=" not in found or len(found) > MAX_RUN:
            continue
        whole_left = _whole_left(line[max(0, run.start() - 20) : run.start()], found)
        whole_right = _whole_right(line[run.end() : run.end() + 20], found)
        yield from _checks_of_run(step, found, whole_left, whole_right)


def _checks_of_run(step: int, run: str, whole_left: bool, whole_right: bool) -> Iterator[Check]:
    sentences = _sentences(run)
    for at, symbols in enumerate(sentences):
        parts = _parts(symbols)
        # '.8 + . 84 = 1': a stop behind an operator ends no sentence.
        start = 0 if (whole_left if at == 0 else sentences[at - 1][-1:] not in _OPERATOR_ENDS) else 1
        stop = len(parts) - 1 if whole_right or at < len(sentences) - 1 else len(parts) - 2
        for pair in range(start, stop):
            check = _compare(step, parts[pair], parts[pair + 1])
            if check:
                yield check


def _whole_left(before: str, run: str) -> bool:
    """Whether the equation's first operand can't have been cut off by what stands before it."""
    if not before:
        return True
    spaced = run[0] in " \t"
    last = before[-1]
    if last.isalpha() and (not spaced or run.lstrip()[:1] == "-"):
        return False
    if last == ":" and not spaced and before[-2:-1].isdigit():
        return False
    return not _TAKES_AN_OPERAND.search(before)


def _whole_right(after: str, run: str) -> bool:
    """Whether the equation's last number can't go on in what stands behind it."""
    if not after:
        return True
    if run[-1] in " \t":
        return not _GOES_ON.match(after)
    return not (after[0].isalnum() or after[0] in "^_{\\" or (after[0] == ":" and after[1:2].isdigit()))


def _sentences(run: str) -> list[list[str]]:
    """The run's symbols, cut at commas and full stops; [] where one stands inside a number ('1.2.3', '1,00')."""
    sentences: list[list[str]] = [[]]
    for found in SYMBOL.finditer(run):
        symbol = found[0]
        if symbol in ".,":
            if run[found.end() : found.end() + 1].isdigit():
                return []
            sentences.append([])
        elif symbol == "-" and run[found.end() : found.end() + 1].isspace():
            sentences[-1].append("minus")
        elif not symbol.isspace():
            sentences[-1].append(symbol)
    while len(sentences) > 1 and not sentences[-1]:
        sentences.pop()
    return sentences


def _parts(symbols: list[str]) -> list[list[str]]:
    """The sides of a chain of equalities, less a parenthesis around all of it."""
    parts: list[list[str]] = [[]]
    for symbol in symbols:
        if symbol == "=":
            parts.append([])
        else:
            parts[-1].append(symbol)
    if parts[0][:1] == ["("] and parts[0].count("(") > parts[0].count(")"):
        parts[0] = parts[0][1:]
    if parts[-1][-1:] == [")"] and parts[-1].count(")") > parts[-1].count("("):
        parts[-1] = parts[-1][:-1]
    return parts


def _compare(step: int, left: list[str], right: list[str]) -> Check | None:
    """The check of `left = right`, or None where there is nothing to compute or it can't be read."""
    exact = value(left) if _computes(left) else None
    shown = value(right) if exact is not None else None
    if exact is None or shown is None:
        return None
    if 0 < exact < 1 <= shown and left[1:2] == ["/"]:
        return None  # '1/4 = 15': a part and its size, not a division
    return Check(step, _text(left), _text(right), exact, _agree(left, exact, right, shown))


def _agree(left: list[str], exact: Value, right: list[str], shown: Value) -> bool:
    if _computes(right):
        # '3 + 4 = 7 * 2 = 14' is a calculation that goes on, not a false statement.
        return exact == shown or value(right[:1]) == exact
    digits = "".join(symbol for symbol in right if symbol not in "%()")
    if digits.startswith("--"):
        return exact == shown
    if "%" in left or "%" in right:
        return any(holds(exact * scale, digits) for scale in (1, 100, Fraction(1, 100)))
    return holds(exact, digits)


def _computes(symbols: list[str]) -> bool:
    """Whether there is an operator between operands: neither a sign nor a closing percent."""
    return not _OPERATORS.isdisjoint(symbols[1:-1])


def _text(symbols: list[str]) -> str:
    """Tokens as text, operators between spaces, signs and percents tight."""
    spaced = []
    for at, symbol in enumerate(symbols):
        signs = symbol == "-" and (at == 0 or not (symbols[at - 1][0].isdigit() or symbols[at - 1] in ")%"))
        binary = symbol in ("minus", "+", "*", "/", "x") or (symbol == "-" and not signs)
        spaced.append(f" {'-' if symbol == 'minus' else symbol} " if binary else symbol)
    return "".join(spaced)
