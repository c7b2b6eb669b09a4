"""Exact arithmetic on text that nobody vouches for: numbers, expressions, and whether a shown result is right.

There is no `eval` and no recursion. An expression has at most 64 symbols, a number at most 30 digits, and there is no
power operator, so that no input is expensive. What can't be read is None: the caller doesn't check it.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from fractions import Fraction

Value = int | Fraction

MAX_DIGITS = 30
MAX_SYMBOLS = 64
NUMBER = r"\d{1,3}(?:,\d{3})+(?!\d)(?:\.\d+)?|\d+(?:\.\d+)?|\.\d+"
SYMBOL = re.compile(rf"{NUMBER}|-(?=\s)|[-+*/x%()=]|\s+|.", re.DOTALL)
PLAIN = str.maketrans({"×": "*", "·": "*", "∗": "*", "÷": "/", "−": "-", "–": "-", "X": "x", "\u00a0": " ", "$": None})

_CLOCK = re.compile(r"0\d+")
_OPERATORS = {"+": "+", "-": "-", "minus": "-", "*": "*", "x": "*", "/": "/", "%": "%"}
_PRECEDENCE = {"+": 1, "-": 1, "*": 2, "/": 2, "%": 2, "negate": 3}
_FLOAT_PLACES = 10
_FLOAT_NOISE = Fraction(1, 10**9)


def number(text: str) -> Value | None:
    """The exact value of digits with optional thousands separators and decimals; None beyond 30 digits."""
    if text.isdigit() and len(text) <= MAX_DIGITS:
        return int(text)
    whole, _, decimals = text.replace(",", "").partition(".")
    if len(whole) + len(decimals) > MAX_DIGITS:
        return None
    return Fraction(int(whole + decimals), 10 ** len(decimals)) if decimals else int(whole)


def value(symbols: Sequence[str]) -> Value | None:
    """The exact value of an expression under the usual precedence, or None where the symbols are not clearly one.

    `%` between operands is the remainder, after one a percent. What people read in two ways is left unread: percents
    in sums ('80 + 20%'), a minus right after `x` ('5 x -3'), a division by a fraction ('28/1/5'), clock times ('0730').
    A symbol is a number, an operator or a parenthesis; 'minus' is a '-' with a space behind it, which is never a sign.
    """
    if len(symbols) > MAX_SYMBOLS:
        return None
    expression = _Expression()
    for at, symbol in enumerate(symbols):
        take = expression.take_operand if expression.wants_operand else expression.take_operator
        if not take(symbol, symbols[at + 1] if at + 1 < len(symbols) else ""):
            return None
    return expression.result()


def holds(exact: Value, shown: str) -> bool:
    """Whether `shown` (digits, maybe a minus) is `exact`, or `exact` rounded half up to the digits shown.

    Results printed by floating point ('0.6199999999999992': ten decimals or more) are right to one part in 10^9.
    """
    digits = shown.removeprefix("-")
    size = number(digits)
    if size is None:
        return False
    read = -size if shown.startswith("-") else size
    if exact == read:
        return True
    if read == 0 or (exact < 0) != (read < 0):
        return False
    exact_size = -exact if exact < 0 else exact
    places = len(digits.partition(".")[2])
    if places >= _FLOAT_PLACES and abs(Fraction(exact_size - size)) <= exact_size * _FLOAT_NOISE:
        return True
    scale: int = 10**places
    return _rounded(exact_size, scale) == size * scale


def plain(exact: Value) -> str:
    """A value as a person would write it: whole, or with the decimals it has up to six, else rounded to four."""
    size = abs(Fraction(exact))
    places = next((few for few in range(7) if 10**few % size.denominator == 0), 4)
    scale: int = 10**places
    scaled = _rounded(size, scale)
    if not scaled and exact:
        return "almost 0"
    whole, decimals = divmod(scaled, scale)
    sign = "-" if exact < 0 else ""
    return f"{sign}{whole}.{decimals:0{places}d}".rstrip("0").rstrip(".") if places else f"{sign}{whole}"


def _rounded(size: Value, scale: int) -> int:
    """`size * scale`, which is not negative, rounded half up."""
    return (2 * size.numerator * scale + size.denominator) // (2 * size.denominator)


class _Expression:
    """An expression read from left to right: operands so far, and operators that wait for their right side."""

    def __init__(self) -> None:
        self.operands: list[Value] = []
        self.pending: list[str] = []
        self.wants_operand = True
        self.after_x = False
        self.has_sum = False
        self.has_percent = False

    def take_operand(self, symbol: str, _following: str) -> bool:
        if symbol == "(":
            self.pending.append("(")
        elif symbol == "-" and not self.after_x:
            self.pending.append("negate")
        elif symbol[0] in "0123456789." and not _CLOCK.fullmatch(symbol) and (read := number(symbol)) is not None:
            self.operands.append(read)
            self.wants_operand = False
        else:
            return False
        self.after_x = False
        return True

    def take_operator(self, symbol: str, following: str) -> bool:
        if symbol == ")":
            return self._close()
        if symbol == "%" and not (following and following[0] in "0123456789.("):
            self.operands[-1] = Fraction(self.operands[-1], 100)
            self.has_percent = True
            return True
        operator = _OPERATORS.get(symbol)
        if operator is None or (operator == "/" and self.pending[-1:] == ["/"]):
            return False
        if not self._reduce(_PRECEDENCE[operator]):
            return False
        self.pending.append(operator)
        self.wants_operand = True
        self.after_x = symbol == "x"
        self.has_sum = self.has_sum or operator in "+-"
        return True

    def result(self) -> Value | None:
        if self.wants_operand or (self.has_sum and self.has_percent) or not self._reduce(0) or self.pending:
            return None
        return self.operands[0]

    def _close(self) -> bool:
        if not self._reduce(0) or not self.pending:
            return False
        self.pending.pop()
        return True

    def _reduce(self, precedence: int) -> bool:
        """Apply what binds at least as tightly as `precedence`, back to the last open parenthesis."""
        while self.pending and self.pending[-1] != "(" and _PRECEDENCE[self.pending[-1]] >= precedence:
            right = self.operands.pop()
            operator = self.pending.pop()
            result = -right if operator == "negate" else _apply(self.operands.pop(), operator, right)
            if result is None:
                return False
            self.operands.append(result)
        return True


def _apply(left: Value, operator: str, right: Value) -> Value | None:
    if operator == "+":
        return left + right
    if operator == "-":
        return left - right
    if operator == "*":
        return left * right
    if right == 0:
        return None
    return Fraction(left) / right if operator == "/" else left % right
