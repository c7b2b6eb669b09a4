from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import ValidationError

from rlrf.errors import ConfigError
from rlrf.rubric import load_rubric, shipped_rubrics

ASPECT = """
[[aspects]]
name = "clarity"
definition = "Is it clear?"
success = "Yes."
moderate = "Partly."
failure = "No."
"""


def test_shipped_rubrics_load() -> None:
    assert shipped_rubrics() == ["biography", "general", "just_eval", "math"]
    assert [aspect.name for aspect in load_rubric("general").aspects] == [
        "logical_correctness",
        "factuality",
        "metacognition",
        "insightfulness",
        "completeness",
        "comprehension",
        "readability",
        "harmlessness",
    ]
    assert [aspect.name for aspect in load_rubric("math").aspects] == ["logical_correctness"]


def test_a_rubric_is_frozen() -> None:
    with pytest.raises(ValidationError):
        load_rubric("math").name = "other"


def test_own_rubric_loads_by_path(tmp_path: Path) -> None:
    path = tmp_path / "own.toml"
    path.write_text(f'name = "own"\n{ASPECT}weight = 2.5\n', encoding="utf-8")
    assert load_rubric(path).aspects[0].weight == 2.5


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (f'name = "own"\n{ASPECT}wieght = 2\n', "aspects.0.wieght"),
        (f'name = "own"\ncolour = 1\n{ASPECT}', "colour"),
        (f'name = "own"\n{ASPECT}weight = 0\n', "aspects.0.weight = 0"),
        (f'name = "own"\n{ASPECT}weight = inf\n', "aspects.0.weight"),
        (f'name = "own"\n{ASPECT}{ASPECT}', "clarity"),
        ('name = "own"\naspects = []\n', "aspects"),
        (f'name = "own"\n{ASPECT.replace("clarity", "Clear, or not")}', "aspects.0.name"),
        ("name = ", "is not TOML"),
    ],
)
def test_what_is_no_rubric_is_refused_by_name(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "own.toml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(ConfigError, match=message) as raised:
        load_rubric(path)
    assert "own.toml" in str(raised.value)


def test_a_missing_rubric_names_the_shipped_ones() -> None:
    with pytest.raises(ConfigError, match=r"'nope'.*\['biography', 'general', 'just_eval', 'math'\]"):
        load_rubric("nope")
