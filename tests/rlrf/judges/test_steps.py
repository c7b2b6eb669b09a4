from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlrf.judges.steps import check_steps


@pytest.mark.parametrize(
    ("text", "critiques"),
    [
        ("Step 2: 13 + 28 = 42.", ["Step 2: 13 + 28 = 41, not 42."]),
        ("So 48/2 = <<48/2=25>>24 clips", ["Step 1: 48 / 2 = 24, not 25."]),
        ("2 * 3 + 4 = 6 + 4 = 11", ["Step 1: 6 + 4 = 10, not 11."]),
        ("3 + 4 = 7 * 2 = 15", ["Step 1: 7 * 2 = 14, not 15."]),
        ("First line.\n\nHe pays $1,000 + $1 = $1,002.", ["Step 2: 1,000 + 1 = 1001, not 1,002."]),
        (r"\(5 \times 3 = 16\)", ["Step 1: 5 * 3 = 15, not 16."]),
        ("**Step 3:** 12 ÷ 4 = 4", ["Step 3: 12 / 4 = 3, not 4."]),
        ("2+2=5, 3+3=6. 1 + 1 = 3", ["Step 1: 2 + 2 = 4, not 5.", "Step 1: 1 + 1 = 2, not 3."]),
        ("5 - 8 = -4", ["Step 1: 5 - 8 = -3, not -4."]),
        ("- 20% * 50 = 11", ["Step 1: 20% * 50 = 10, not 11."]),
        ("(5 + 3 = 9)", ["Step 1: 5 + 3 = 8, not 9."]),
        ("1+2=4\n1+2=4", ["Step 1: 1 + 2 = 3, not 4.", "Step 2: 1 + 2 = 3, not 4."]),
    ],
)
def test_wrong_steps_are_named_with_the_right_value(text: str, critiques: list[str]) -> None:
    assert [check.critique(reveal=True) for check in check_steps(text) if not check.holds] == critiques


@pytest.mark.parametrize(
    "text",
    [
        "2 weeks * 3 + 4 = 20",
        "2x + 3 = 11",
        "x = 5",
        "half of 10 + 3 = 8",
        "3 times 4 + 2 = 18",
        "8:30 - 7:15 = 1:15",
        "5 + 3 = 2**3",
        "2^3 + 1 = 9",
        "√(144) = 12",
        "2 * 500,000 = 1 million",
        "$2.50 - $2.24 = 26 cents",
        "17/3 = 5 and 2/3",
        "16 eggs -3 -4 = 9",
        "0900 - 0130 = 0730",
        "80 + 20% = 96",
        "1/4 = 15 minutes",
        "10 / 0 = 5",
        "2 + 2 == 5",
        "1 + 1 = 1.2.3",
        "f(2) + 1 = 9",
        "3 + 4 = 7k",
    ],
)
def test_what_cannot_be_read_for_certain_is_never_wrong(text: str) -> None:
    assert all(check.holds for check in check_steps(text))


def test_without_revealing_the_right_value_stays_out() -> None:
    [check] = check_steps("Step 2: 13 + 28 = 42.")
    assert check.critique(reveal=False) == "Step 2: 13 + 28 is not 42."


def test_long_expressions_are_not_quoted() -> None:
    [check] = check_steps(" + ".join(["12345"] * 20) + " = 5")
    assert check.critique(reveal=True) == "Step 1 is wrong."


@given(
    st.integers(0, 10**6),
    st.integers(0, 10**6),
    st.sampled_from(["+", "-", "*", "x", "×", "/", "÷"]),
    st.integers(1, 99),
    st.booleans(),
)
def test_a_rendered_step_is_read_back(a: int, b: int, operator: str, step: int, right: bool) -> None:
    exact = {"+": a + b, "-": a - b}.get(operator, a * b)
    if operator in "/÷":
        b += 1
        a, exact = a * b, a
    shown = exact if right else exact + 1
    checks = check_steps(f"Step {step}: {a} {operator} {b} = {shown}.")
    assert [(check.step, check.holds) for check in checks] == [(step, right)]


@given(st.text(alphabet="0123456789+-*/x%()=., $:\n<>\\a", max_size=200))
def test_any_text_is_read_without_an_error(text: str) -> None:
    for check in check_steps(text):
        assert check.critique(reveal=True)
