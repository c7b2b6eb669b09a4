"""Which judge a name stands for outside a run: a judge's type, or a TOML file with a table [judge]."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, get_args

from pydantic import ValidationError

from rlrf.config import changed, explained, read_toml
from rlrf.errors import ConfigError
from rlrf.judge_config import AnyJudge, JudgeConfig, PanelJudge, RubricJudge
from rlrf.sections import Section

TYPES: tuple[str, ...] = tuple(get_args(judge.model_fields["type"].annotation)[0] for judge in get_args(JudgeConfig))
"""What a judge can be called."""

_READ = ("judge", "engine", "policy")
_LOADING = ("auto", "transformers", "vllm")


class _File(Section):
    judge: AnyJudge


def load_judge(name: str | None, config: Path | None = None, changes: Sequence[str] = ()) -> JudgeConfig:
    """The judge called `name`, or the one of the run's configuration `config`, after changes like judge.guided=true.

    Of a file only [judge] is read; [engine] by judges that ask a model and name no engine; and policy.model by a judge
    that is the policy as the run found it. With both a name and `config`, the latter two come from `config`.

    Raises:
        ConfigError: neither a type nor a file, a file without [judge], a wrong key (by its dotted path), a judge that
            can't be had without a run.
    """
    if name is None and config is None:
        raise ConfigError(f"no judge: give --judge a type ({', '.join(TYPES)}) or a TOML file, or give --config")
    data = read_toml(config) if config else {}
    if name in TYPES:
        data["judge"] = {"type": name}
    elif name is not None:
        data |= _file(name)
    place = name if config is None or name is not None else str(config)
    if "judge" not in data:
        raise ConfigError(f"config {place!r} has no table [judge]; add one with its `type`, or give --judge")
    for change in changes:
        if not change.startswith(("judge.", "engine.")):
            raise ConfigError(f"--set {change!r}: only judge.* and engine.* can be set here")
    return _parsed(changed({key: data[key] for key in _READ if key in data}, changes), str(place))


def _file(name: str) -> dict[str, Any]:
    if not name.endswith(".toml") and not Path(name).is_file():
        raise ConfigError(f"judge {name!r}: neither a type ({', '.join(TYPES)}) nor a TOML file with a table [judge]")
    data = read_toml(name)
    if "judge" not in data:
        raise ConfigError(f"config {name!r} has no table [judge]; add one with its `type`")
    return data


def _parsed(data: dict[str, Any], place: str) -> JudgeConfig:
    judge = data["judge"]
    tables = judge.get("judges", []) if isinstance(judge, dict) else []
    for table in [judge, *(tables if isinstance(tables, list) else [])]:
        if isinstance(table, dict) and table.get("type") == "rubric":
            _complete(table, data)
    try:
        found = _File.model_validate({"judge": judge}).judge
    except ValidationError as error:
        raise explained(error, place) from error
    for part in found.judges if isinstance(found, PanelJudge) else (found,):
        if isinstance(part, RubricJudge) and part.policy is not None:
            raise ConfigError(
                f"config {place!r}: judge.policy = {part.policy!r}: there is no run whose policy it could be; give judge.model"
            )
    return found


def _complete(judge: dict[str, Any], data: dict[str, Any]) -> None:
    """Give a rubric's judge the model and the engine that the run has for it."""
    policy, engine = data.get("policy"), data.get("engine")
    own_model = judge.get("model") is not None
    if judge.get("policy") == "first" and isinstance(policy, dict) and policy.get("model"):
        del judge["policy"]
        judge.setdefault("model", policy["model"])
    # A server that runs elsewhere has the run's policy, not the model that a judge names.
    if "engine" not in judge and isinstance(engine, dict) and (not own_model or engine.get("type") in _LOADING):
        judge["engine"] = engine
