"""Folders of models, as stages find them."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from rlrf.backends.weights import weights_digest
from rlrf.errors import BackendError
from rlrf.handles import Policy
from tasks.models import check_digest, set_aside
from tasks.progress import StageProgress
from tests.rlrf.backends.tiny_model import build_tiny_model


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return build_tiny_model(tmp_path / "tiny")


@pytest.mark.parametrize("left", [None, 100])
def test_a_half_written_model_is_set_aside_and_named(
    model: Path, capsys: pytest.CaptureFixture[str], left: int | None
) -> None:
    weights = model / "model.safetensors"
    if left is None:
        weights.unlink()
    else:
        weights.write_bytes(weights.read_bytes()[:left])
    set_aside(StageProgress("train_policy"), model)
    assert not model.exists()
    assert (model.parent / "tiny.damaged-1" / "config.json").exists()
    assert "It is kept as 'tiny.damaged-1', and made again" in capsys.readouterr().err


def test_a_whole_model_and_none_stay(model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    set_aside(StageProgress("train_policy"), model)
    set_aside(StageProgress("train_policy"), model.parent / "none")
    assert [path.name for path in model.parent.iterdir()] == ["tiny"]
    assert capsys.readouterr().err == ""


def test_weights_of_another_policy_are_refused(model: Path) -> None:
    policy = Policy(policy_id=weights_digest(model), name="tiny", folder=str(model))
    check_digest(policy)
    (model / "chat_template.jinja").write_text("{{ messages }}")
    with pytest.raises(BackendError, match="not those of policy 'tiny'"):
        check_digest(policy)
    shutil.rmtree(model)
    with pytest.raises(BackendError, match="no such folder"):
        check_digest(policy)
