from __future__ import annotations

from pathlib import Path

import pytest

from rlrf.engine_config import Auto, Vllm
from rlrf.errors import ConfigError
from rlrf.judge_config import MathJudge, PanelJudge, RubricJudge
from rlrf.judge_files import TYPES, load_judge

ENDPOINT = '[engine]\ntype = "endpoint"\nbase_url = "http://127.0.0.1:1/v1"\nmodel = "policy"\n'
VLLM = '[engine]\ntype = "vllm"\nmax_num_seqs = 3\n'
POLICY = '[policy]\nmodel = "models/policy"\n'


def written(folder: Path, text: str, name: str = "judge.toml") -> Path:
    (folder / name).write_text(text, encoding="utf-8")
    return folder / name


def rubric(judge: object) -> RubricJudge:
    assert isinstance(judge, RubricJudge)
    return judge


def test_a_type_is_that_judge_with_its_defaults() -> None:
    assert load_judge("math") == MathJudge()
    assert set(TYPES) >= {"math", "multiple_choice", "match", "rubric", "panel"}


def test_changes_are_applied() -> None:
    assert load_judge("math", changes=["judge.reveal_values=false"]) == MathJudge(reveal_values=False)


def test_only_the_judge_of_a_run_is_read(tmp_path: Path) -> None:
    path = written(tmp_path, 'name = "x y"\n[judge]\ntype = "math"\nreveal_values = false\n[pairs]\nnonsense = 1\n')
    assert load_judge(str(path)) == load_judge(None, path) == MathJudge(reveal_values=False)


def test_a_judge_without_an_engine_takes_the_runs(tmp_path: Path) -> None:
    path = written(tmp_path, VLLM + '[judge]\ntype = "rubric"\nmodel = "models/judge"\n')
    assert rubric(load_judge(str(path))).engine == Vllm(type="vllm", max_num_seqs=3)
    own = written(tmp_path, VLLM + '[judge]\ntype = "rubric"\nmodel = "m"\nengine = {type = "auto"}\n')
    assert rubric(load_judge(str(own))).engine == Auto()


def test_a_server_of_the_policy_is_no_engine_of_another_model(tmp_path: Path) -> None:
    path = written(tmp_path, ENDPOINT + '[judge]\ntype = "rubric"\nmodel = "models/judge"\n')
    assert rubric(load_judge(str(path))).engine == Auto()


def test_the_engine_may_come_from_another_file_than_the_judge(tmp_path: Path) -> None:
    judge = written(tmp_path, '[judge]\ntype = "rubric"\nmodel = "models/judge"\n')
    found = rubric(load_judge(str(judge), written(tmp_path, VLLM, "run.toml")))
    assert (found.model, found.engine.type) == ("models/judge", "vllm")


def test_the_policy_as_its_own_judge(tmp_path: Path) -> None:
    path = written(tmp_path, POLICY + '[judge]\ntype = "rubric"\npolicy = "first"\n')
    found = rubric(load_judge(str(path)))
    assert (found.model, found.policy) == ("models/policy", None)
    current = written(tmp_path, POLICY + '[judge]\ntype = "rubric"\npolicy = "current"\n')
    with pytest.raises(ConfigError, match=r"judge\.policy = 'current'"):
        load_judge(str(current))


def test_members_of_a_panel_take_the_engine_too(tmp_path: Path) -> None:
    text = (
        VLLM
        + '[judge]\ntype = "panel"\n[[judge.judges]]\ntype = "rubric"\nmodel = "m"\n[[judge.judges]]\ntype = "math"\n'
    )
    panel = load_judge(str(written(tmp_path, text)))
    assert isinstance(panel, PanelJudge)
    assert [rubric(panel.judges[0]).engine.type, panel.judges[1]] == ["vllm", MathJudge()]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('[pairs]\ntype = "paper"\n', r"no table \[judge\]"),
        ('[judge]\ntype = "math"\nreveal = 1\n', r"judge\.math\.reveal: unknown key"),
        ('[judge]\ntype = "maths"\n', "maths"),
        ("judge = 3\n", "judge"),
        ("[judge\n", "is not TOML"),
    ],
)
def test_wrong_files(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load_judge(str(written(tmp_path, text)))
