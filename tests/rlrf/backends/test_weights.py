"""Digests: equal for equal content, different for anything that bears on outputs, none for half a folder."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from uuid import UUID

import pytest
from safetensors.torch import load_file, save_file

from rlrf.backends.weights import INDEX_FILE, check_weights, resolve_model, weights_digest
from rlrf.errors import BackendError
from tests.rlrf.backends.tiny_model import build_tiny_model


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_tiny_model(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture
def copy(folder: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(folder, tmp_path / "copy"))


def test_the_digest_is_a_uuid_of_content_alone(folder: Path, copy: Path) -> None:
    (copy / "README.md").write_text("Trained on a Tuesday.")
    (copy / "training.json").write_text("{}")
    (copy / "adapter").mkdir()
    (copy / "adapter" / "adapter_model.safetensors").write_bytes(b"anything")
    assert weights_digest(copy) == weights_digest(folder) == str(UUID(weights_digest(str(folder))))


def test_another_seed_makes_another_digest(folder: Path, tmp_path: Path) -> None:
    assert weights_digest(build_tiny_model(tmp_path / "again")) == weights_digest(folder)
    assert weights_digest(build_tiny_model(tmp_path / "other", seed=1)) != weights_digest(folder)


@pytest.mark.parametrize(
    "name", ["config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json", "chat_template.jinja"]
)
def test_every_file_that_bears_on_outputs_counts(folder: Path, copy: Path, name: str) -> None:
    (copy / name).write_text((copy / name).read_text() + "\n")
    assert weights_digest(copy) != weights_digest(folder)
    (copy / name).unlink()
    if name != "config.json":
        assert weights_digest(copy) != weights_digest(folder)


def test_one_flipped_bit_counts(folder: Path, copy: Path) -> None:
    path = copy / "model.safetensors"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    assert weights_digest(copy) != weights_digest(folder)


@pytest.mark.parametrize("kept", [0, 7, 100, -1])
def test_a_cut_off_file_is_refused(copy: Path, kept: int) -> None:
    path = copy / "model.safetensors"
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(BackendError, match=r"model\.safetensors.*copy the model again"):
        weights_digest(copy)


def test_bytes_after_the_tensors_are_refused(copy: Path) -> None:
    with (copy / "model.safetensors").open("ab") as file:
        file.write(b"more")
    with pytest.raises(BackendError, match="its header says"):
        weights_digest(copy)


def test_shards_are_checked_against_their_index(copy: Path) -> None:
    tensors = load_file(copy / "model.safetensors")
    (copy / "model.safetensors").unlink()
    names = sorted(tensors)
    files = {name: f"model-0000{1 + number % 2}-of-00002.safetensors" for number, name in enumerate(names)}
    for file in set(files.values()):
        save_file({name: tensors[name] for name in names if files[name] == file}, copy / file)
    (copy / INDEX_FILE).write_text(json.dumps({"weight_map": files}))
    assert len(check_weights(copy)) == 2
    (copy / "model-00002-of-00002.safetensors").unlink()
    with pytest.raises(BackendError, match="model-00002-of-00002"):
        weights_digest(copy)


def test_a_damaged_index_is_refused(copy: Path) -> None:
    (copy / INDEX_FILE).write_text('{"weight_map"')
    with pytest.raises(BackendError, match="not valid JSON"):
        weights_digest(copy)


def test_pickled_weights_are_refused(copy: Path) -> None:
    (copy / "model.safetensors").rename(copy / "pytorch_model.bin")
    with pytest.raises(BackendError, match=r"pytorch_model\.bin"):
        weights_digest(copy)


def test_a_folder_resolves_to_itself(folder: Path) -> None:
    assert resolve_model(folder) == resolve_model(str(folder)) == folder.resolve()


@pytest.mark.parametrize("name", ["./nowhere", "/nowhere/at/all", "no-owner", "~/nowhere"])
def test_a_path_that_is_not_there_never_asks_the_hub(name: str) -> None:
    with pytest.raises(BackendError, match="no such folder"):
        resolve_model(name)


def test_a_hub_name_offline_names_the_remedy(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(BackendError, match="give its folder"):
        resolve_model("nobody/nothing")


def test_a_file_that_changes_under_its_name_changes_the_digest(tmp_path: Path) -> None:
    """A process keeps digests of unchanged files: what is written anew in the same length must not be taken for old."""
    folder = build_tiny_model(tmp_path / "model")
    before = weights_digest(folder)
    config = folder / "config.json"
    config.write_text(config.read_text().replace("32", "23"))
    assert weights_digest(folder) != before
