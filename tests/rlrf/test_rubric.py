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
        (f'name = "own"\nscale = [5, 1]\n{ASPECT}', "scale"),
        (f'name = "own"\nscale = [0, 0.5]\n{ASPECT}', r"scale\.1"),
        (f'name = "own"\nscale = [0, 1000]\n{ASPECT}', "scale"),
        (f'name = "own"\nscale = [1, 3, 5]\n{ASPECT}', "scale"),
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


@pytest.mark.parametrize(
    ("scale", "ratings", "middle"),
    [
        ("[1, 5]", "a whole number from 1 to 5", "3"),
        ("[1, 4]", "a whole number from 1 to 4", "2 or 3"),
        ("[0, 2]", "0, 1 or 2", "1"),
    ],
)
def test_a_scale_gives_its_levels_to_the_same_three_descriptions(
    tmp_path: Path, scale: str, ratings: str, middle: str
) -> None:
    path = tmp_path / "own.toml"
    path.write_text(f'name = "own"\nscale = {scale}\n{ASPECT}', encoding="utf-8")
    rubric = load_rubric(path)
    assert rubric.ratings == ratings
    low, high = rubric.scale
    shown = rubric.render(["clarity"]).splitlines()
    assert shown[1:] == [f"  {high} (success): Yes.", f"  {middle} (moderate): Partly.", f"  {low} (failure): No."]


def test_a_scale_of_two_levels_has_no_middle(tmp_path: Path) -> None:
    path = tmp_path / "own.toml"
    path.write_text(f'name = "own"\nscale = [0, 1]\n{ASPECT}', encoding="utf-8")
    rubric = load_rubric(path)
    assert (rubric.ratings, len(rubric.render(["clarity"]).splitlines())) == ("0 or 1", 3)


def test_shipped_scales() -> None:
    scales = {name: load_rubric(name).scale for name in shipped_rubrics()}
    assert scales == {"biography": (-1, 1), "general": (-1, 1), "just_eval": (1, 5), "math": (-1, 1)}
    assert load_rubric("just_eval").names == ("helpfulness", "clarity", "factuality", "depth", "engagement")
    assert load_rubric("biography").names == ("factuality",)
