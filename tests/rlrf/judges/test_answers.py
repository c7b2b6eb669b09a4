from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlrf.judges.answers import final_answer, plain_number, same_answer


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Step 1: 1 + 1 = 2.\n#### 2", "2"),
        ("... per day\nA: 18", "18"),
        (r"so \boxed{\frac{1}{2}} it is", r"\frac{1}{2}"),
        (r"The answer is $\boxed{42}$.", "42"),
        ("The answer is 42 dollars. Thanks!", "42 dollars"),
        ("The final answer is: 3.5", "3.5"),
        ("Final answer: 7", "7"),
        ("#### 41\n#### 42", "42"),
        ("No marker, 42", None),
        ("#### ", None),
        (r"\boxed{", None),
        ("", None),
    ],
)
def test_the_last_marked_answer_counts(text: str, expected: str | None) -> None:
    found = final_answer(text)
    assert (found.text if found else None) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("$1,234.50", Fraction("1234.5")),
        ("50%", 50),
        ("-3", -3),
        ("−3", -3),
        ("42.", 42),
        ("42 apples", 42),
        ("10 miles/hour", 10),
        (".5", Fraction(1, 2)),
        ("7/14", Fraction(1, 2)),
        ("1 1/2 cups", Fraction(3, 2)),
        ("-1.8 billion", -1_800_000_000),
        ("x = 5", 5),
        ("**42**", 42),
        (r"1{,}000 \text{ m}", 1000),
        ("9*2", None),
        ("42x", None),
        ("6,00", None),
        ("5 feet 3 inches", None),
        ("10 or 12", None),
        ("10+John's age", None),
        ("2**9999999", None),
        ("1e9", None),
        ("1/0", None),
        ("9" * 10_000, None),
        ("two", None),
    ],
)
def test_plain_number(text: str, expected: Fraction | None) -> None:
    assert plain_number(text) == expected


@pytest.mark.parametrize(
    ("answer", "reference", "expected"),
    [
        ("42.0 dollars", "$42", True),
        ("0.333", "1/3", False),
        (r"\frac{1}{2}", "0.5", True),
        ("(x-1)(x+1)", "x^2 - 1", True),
        (r"2\sqrt{2}", r"\sqrt{8}", True),
        ("(1,2)", "(1, 2)", True),
        ("Monday", "monday.", True),
        ("red", "blue", False),
        ("10+John's age", "10", False),
        ("10 or 12", "12", False),
        ("2**9999999", "42", False),
        ("2^{9999999}", "x + 1", None),
        ("9^{99^{99}}", "x + 1", None),
        ("99999999999999999999!", "x + 1", None),
    ],
)
def test_same_answer(answer: str, reference: str, expected: bool | None) -> None:
    assert same_answer(answer, reference) is expected


def test_expressions_are_compared_in_a_worker_thread_too() -> None:
    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(same_answer, r"\frac{2}{4}", r"\frac{1}{2}").result() is True


@given(st.integers(-(10**9), 10**9), st.integers(0, 4), st.sampled_from(["{}", "${}", "{} dollars", "{}%", "**{}**"]))
def test_a_number_survives_its_dressing(digits: int, places: int, dressing: str) -> None:
    size = f"{abs(digits) // 10**places:,}"
    decimals = f".{abs(digits) % 10**places:0{places}d}" if places else ""
    shown = f"{'-' if digits < 0 else ''}{size}{decimals}"
    found = final_answer(f"So it is.\n#### {dressing.format(shown)}")
    assert found is not None
    assert plain_number(found.text) == Fraction(digits, 10**places)
