"""Rubrics: what a judging model is to look at, and on which scale. One TOML file each; unknown keys are refused."""

from __future__ import annotations

import tomllib
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from rlrf.errors import ConfigError

MOST_LEVELS = 100
"""How far a scale may reach on each side of 0, and from end to end; no model tells more levels apart."""

_SHIPPED = files("rlrf").joinpath("rubrics")


class Aspect(BaseModel):
    """One quality of a response, with what the highest, the middle and the lowest level of the rubric's scale mean."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field(pattern=r"^[a-z][a-z0-9_]{0,39}$")
    definition: str = Field(min_length=1)
    success: str = Field(min_length=1, description="What earns the highest rating")
    moderate: str = Field(min_length=1, description="What earns the middle of the scale")
    failure: str = Field(min_length=1, description="What earns the lowest rating")
    weight: float = Field(1.0, gt=0, allow_inf_nan=False)


class Rubric(BaseModel):
    """The aspects that one judge rates, in the order in which it is asked."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field(min_length=1)
    scale: tuple[int, int] = Field(
        (-1, 1), description="The lowest and the highest rating; all whole numbers between count"
    )
    aspects: tuple[Aspect, ...] = Field(min_length=1)

    @field_validator("scale")
    @classmethod
    def _levels(cls, scale: tuple[int, int]) -> tuple[int, int]:
        if not 0 < scale[1] - scale[0] <= MOST_LEVELS or max(map(abs, scale)) > MOST_LEVELS:
            raise ValueError(
                f"give the lowest and the highest rating, whole numbers between -{MOST_LEVELS} and {MOST_LEVELS}"
            )
        return scale

    @field_validator("aspects")
    @classmethod
    def _distinct(cls, aspects: tuple[Aspect, ...]) -> tuple[Aspect, ...]:
        names = [aspect.name for aspect in aspects]
        repeated = sorted({name for name in names if names.count(name) > 1})
        if repeated:
            raise ValueError(f"{repeated!r} named more than once; give every aspect its own name")
        return aspects

    @property
    def names(self) -> tuple[str, ...]:
        """The aspects' names, in the rubric's order."""
        return tuple(aspect.name for aspect in self.aspects)

    @property
    def ratings(self) -> str:
        """The ratings that there are, in words: '-1, 0 or 1', '1 to 5'."""
        low, high = self.scale
        levels = [str(level) for level in range(low, high + 1)]
        return f"{', '.join(levels[:-1])} or {high}" if len(levels) <= 3 else f"a whole number from {low} to {high}"

    def render(self, names: Sequence[str]) -> str:
        """These aspects, in this order, as the judging model reads them."""
        aspects = {aspect.name: aspect for aspect in self.aspects}
        return "\n\n".join(self._render(aspects[name]) for name in names)

    def _render(self, aspect: Aspect) -> str:
        low, high = self.scale
        below, above = (low + high) // 2, (low + high + 1) // 2
        levels = [(str(high), "success", aspect.success), (str(low), "failure", aspect.failure)]
        if high - low > 1:
            middle = str(below) if below == above else f"{below} or {above}"
            levels.insert(1, (middle, "moderate", aspect.moderate))
        lines = [f"  {level} ({word}): {meaning}" for level, word, meaning in levels]
        return "\n".join([f"{aspect.name}: {aspect.definition}", *lines])


def load_rubric(name_or_path: str | Path) -> Rubric:
    """A shipped rubric by its name ('general', 'just_eval'), or one from a TOML file by its path (ending in '.toml').

    Raises:
        ConfigError: no such rubric, not TOML, or not a rubric; every wrong key is listed by its dotted path.
    """
    place = str(name_or_path)
    try:
        return Rubric.model_validate(tomllib.loads(_read(place)))
    except OSError as error:
        raise ConfigError(
            f"rubric {place!r}: {error.strerror}; give the path of a '.toml' file or one of {shipped_rubrics()!r}"
        ) from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"rubric {place!r} is not TOML: {error}; mend the file") from error
    except ValidationError as error:
        problems = [
            f"{'.'.join(map(str, problem['loc'])) or '(top level)'} = {problem['input']!r}: {problem['msg']}"
            for problem in error.errors()
        ]
        raise ConfigError(f"rubric {place!r}:\n  " + "\n  ".join(problems)) from error


def shipped_rubrics() -> list[str]:
    """Names of the rubrics that come with the package."""
    return sorted(file.name.removesuffix(".toml") for file in _SHIPPED.iterdir() if file.name.endswith(".toml"))


def _read(place: str) -> str:
    if place in shipped_rubrics():
        return _SHIPPED.joinpath(f"{place}.toml").read_text(encoding="utf-8")
    return Path(place).read_text(encoding="utf-8")
