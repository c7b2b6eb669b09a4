from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlrf.judges.arithmetic import holds, number, plain, value


@st.composite
def expressions(draw: st.DrawFn, depth: int = 3) -> tuple[list[str], Fraction]:
    """Tokens of a fully parenthesised expression and its exact value."""
    if depth == 0 or draw(st.booleans()):
        digits = draw(st.integers(0, 999))
        return [str(digits)], Fraction(digits)
    left, left_value = draw(expressions(depth - 1))
    right, right_value = draw(expressions(depth - 1))
    operator = draw(st.sampled_from(["+", "minus", "*", "x", "/"]))
    if operator == "/" and right_value == 0:
        operator = "+"
    result = {
        "+": left_value + right_value,
        "minus": left_value - right_value,
        "*": left_value * right_value,
        "x": left_value * right_value,
        "/": left_value / (right_value or 1),
    }[operator]
    return ["(", *left, operator, *right, ")"], result


@given(expressions())
def test_parenthesised_expressions_have_their_exact_value(case: tuple[list[str], Fraction]) -> None:
    tokens, expected = case
    assert value(tokens) == (expected if len(tokens) <= 64 else None)


@pytest.mark.parametrize(
    ("tokens", "expected"),
    [
        ("2 + 3 * 4", 14),
        ("10 minus 3 minus 2", 5),
        ("10 / 4 * 2", 5),
        ("- 3 * 2", -6),
        ("5 * - 3", -15),
        ("20 % * 50", 10),
        ("7 % 3", 1),
        ("1,000.50 + .5", 1001),
        ("2 * ( 3 + 4 )", 14),
    ],
)
def test_precedence(tokens: str, expected: int) -> None:
    assert value(tokens.split()) == expected


@pytest.mark.parametrize(
    "tokens",
    [
        "",
        "+",
        "3 +",
        "* 3",
        "3 4",
        "2 ( 3 )",
        "( 3",
        "3 )",
        "3 / 0",
        "7 % 0",
        "80 + 20 %",
        "28 / 1 / 5",
        "5 x - 3",
        "0900 minus 0130",
        "+ 3",
    ],
)
def test_unclear_expressions_are_not_read(tokens: str) -> None:
    assert value(tokens.split()) is None


def test_long_input_is_not_read() -> None:
    assert number("9" * 10_000) is None
    assert value(["("] * 1_000_000) is None
    assert value(["1", *["+", "1"] * 40]) is None


@given(st.fractions(-(10**20), 10**20), st.integers(0, 6))  # what is shown stays within the digits that are read
def test_an_exact_value_holds_at_every_rounding(exact: Fraction, places: int) -> None:
    scaled = abs(exact) * 10**places
    rounded = (2 * scaled.numerator + scaled.denominator) // (2 * scaled.denominator)
    whole, decimals = divmod(rounded, 10**places)
    shown = f"{'-' if exact < 0 else ''}{whole}" + (f".{decimals:0{places}d}" if places else "")
    if rounded:
        assert holds(exact, shown)
        off = divmod(rounded + 2, 10**places)
        assert not holds(exact, f"{'-' if exact < 0 else ''}{off[0]}" + (f".{off[1]:0{places}d}" if places else ""))


@pytest.mark.parametrize(
    ("exact", "shown", "right"),
    [
        (Fraction(5, 2), "3", True),
        (Fraction(5, 2), "2", False),
        (Fraction(1, 3), "0", False),
        (Fraction(2, 3), "0.67", True),
        (Fraction(2, 3), "0.66", False),
        (Fraction(62, 100), "0.6199999999999992", True),
        (41, "42", False),
        (41, "41.0", True),
        (-3, "3", False),
    ],
)
def test_holds(exact: Fraction, shown: str, right: bool) -> None:
    assert holds(exact, shown) is right


@given(st.integers(-(10**9), 10**9), st.integers(0, 6))
def test_plain_shows_short_decimals_exactly(digits: int, places: int) -> None:
    exact = Fraction(digits, 10**places)
    assert Fraction(plain(exact)) == exact


def test_plain_says_that_it_rounds_nothing_to_zero() -> None:
    assert plain(Fraction(1, 10**9)) == "almost 0"
    assert plain(Fraction(20, 3)) == "6.6667"
