from __future__ import annotations

import unicodedata

from hypothesis import given
from hypothesis import strategies as st

from rlrf.terminal import visible


@given(st.text(st.characters(exclude_categories=())))
def test_nothing_that_steers_a_terminal_is_left(text: str) -> None:
    shown = visible(text)
    assert all(one in "\t\n" or unicodedata.category(one) not in {"Cc", "Cs", "Zl", "Zp"} for one in shown)
    shown.encode("utf-8")


def test_letters_of_all_scripts_stay_and_escapes_are_spelled_out() -> None:
    plain = "Größe 数学 عدد 👩\u200d🔬 [bold] <b>\n\tx"
    assert visible(plain) == plain
    assert visible("\x1b[31m\r\u202e\x9b") == "\\x1b[31m\\r\\u202e\\x9b"
