"""Rubrics: what a judging model is to look at. One TOML file each; unknown keys are refused."""

from __future__ import annotations

import tomllib
from importlib.resources import files
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from rlrf.errors import ConfigError

_SHIPPED = files("rlrf").joinpath("rubrics")


class Aspect(BaseModel):
    """One quality of a response, with what each of its three levels means."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field(pattern=r"^[a-z][a-z0-9_]{0,39}$")
    definition: str = Field(min_length=1)
    success: str = Field(min_length=1, description="What earns 1")
    moderate: str = Field(min_length=1, description="What earns 0")
    failure: str = Field(min_length=1, description="What earns -1")
    weight: float = Field(1.0, gt=0, allow_inf_nan=False)

    def render(self) -> str:
        """The aspect as the judging model reads it."""
        return (
            f"{self.name}: {self.definition}\n  1 (success): {self.success}\n"
            f"  0 (moderate): {self.moderate}\n  -1 (failure): {self.failure}"
        )


class Rubric(BaseModel):
    """The aspects that one judge rates, in the order in which it is asked."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field(min_length=1)
    aspects: tuple[Aspect, ...] = Field(min_length=1)

    @field_validator("aspects")
    @classmethod
    def _distinct(cls, aspects: tuple[Aspect, ...]) -> tuple[Aspect, ...]:
        names = [aspect.name for aspect in aspects]
        repeated = sorted({name for name in names if names.count(name) > 1})
        if repeated:
            raise ValueError(f"{repeated!r} named more than once; give every aspect its own name")
        return aspects


def load_rubric(name_or_path: str | Path) -> Rubric:
    """A shipped rubric by its name ('math', 'general'), or one from a TOML file by its path (ending in '.toml').

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
