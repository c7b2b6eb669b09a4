from __future__ import annotations

from pathlib import Path

import pytest
from transformers import PreTrainedTokenizerFast

from rlrf.backends.bootstrap import bootstrap
from rlrf.backends.bootstrap_checkpoint import locked
from rlrf.backends.local import LocalGenerator
from rlrf.backends.tiny_tokenizer import train_tokenizer
from rlrf.backends.weights import weights_digest
from rlrf.curriculum import Curriculum, build_curriculum
from rlrf.errors import TrainingError
from rlrf.records import Completion, Request, Sampling

STEPS = 6


@pytest.fixture(scope="module")
def curriculum() -> Curriculum:
    return build_curriculum(seed=0, drills=40, solutions=60, reflections=40)


@pytest.fixture(scope="module")
def tokenizer(curriculum: Curriculum) -> PreTrainedTokenizerFast:
    return train_tokenizer(curriculum.demonstrations, largest_number=199, vocabulary=1024, context=512)


@pytest.fixture(scope="module")
def folder(curriculum: Curriculum, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models") / "tiny"
    bootstrap(folder, seed=0, demonstrations=curriculum, steps=STEPS)
    return folder


def test_the_folder_answers_chats_with_every_role(folder: Path) -> None:
    chat = tuple({"role": role, "content": "Add 2 and 3."} for role in ("system", "user", "assistant", "user"))
    generator = LocalGenerator(folder, device="cpu")
    (batch,) = generator.generate([Request("r", chat, seed=1)], Sampling(max_tokens=8))
    generator.close()
    assert isinstance(batch[0], Completion)


def test_nothing_else_is_left_beside_the_folder(folder: Path) -> None:
    assert list(folder.parent.iterdir()) == [folder]


def test_the_same_seed_gives_the_same_weights(folder: Path, curriculum: Curriculum, tmp_path: Path) -> None:
    done: list[tuple[int, int]] = []
    bootstrap(
        tmp_path / "again",
        seed=0,
        demonstrations=curriculum,
        steps=STEPS,
        progress=lambda step, steps: done.append((step, steps)),
    )
    bootstrap(tmp_path / "other", seed=1, demonstrations=curriculum, steps=STEPS)
    weights = [path.joinpath("model.safetensors").read_bytes() for path in (folder, tmp_path / "again")]
    assert weights[0] == weights[1]
    assert weights[0] != (tmp_path / "other" / "model.safetensors").read_bytes()
    assert done == [(step, STEPS) for step in range(1, STEPS + 1)]


@pytest.fixture
def often(monkeypatch: pytest.MonkeyPatch) -> None:
    """A checkpoint after every second step."""
    monkeypatch.setattr("rlrf.backends.bootstrap.SAVE_EVERY", 2)


class Death(BaseException):
    """What ends a bootstrap in the middle."""


def die_after(step: int, folder: Path, curriculum: Curriculum, seed: int = 0) -> None:
    def progress(done: int, steps: int) -> None:
        if done == step:
            raise Death

    with pytest.raises(Death):
        bootstrap(folder, seed=seed, demonstrations=curriculum, steps=STEPS, progress=progress)
    assert not folder.exists()


def go_on(folder: Path, curriculum: Curriculum, seed: int = 0) -> tuple[list[int], list[str]]:
    """The steps that were kept, as the next bootstrap says them, and all else that it says."""
    kept: list[int] = []
    said: list[str] = []
    bootstrap(folder, seed=seed, demonstrations=curriculum, steps=STEPS, begin=kept.append, say=said.append)
    assert list(folder.parent.iterdir()) == [folder], "the checkpoint goes when the folder is there"
    return kept, said


@pytest.mark.usefixtures("often")
@pytest.mark.parametrize(("death", "kept"), [(1, 0), (3, 2), (5, 4)])
def test_a_bootstrap_goes_on_from_its_checkpoint_to_the_same_weights(
    folder: Path, curriculum: Curriculum, tmp_path: Path, death: int, kept: int
) -> None:
    die_after(death, tmp_path / "tiny", curriculum)
    assert go_on(tmp_path / "tiny", curriculum) == ([kept], [])
    assert weights_digest(tmp_path / "tiny") == weights_digest(folder)


@pytest.mark.usefixtures("often")
def test_a_checkpoint_of_another_bootstrap_is_not_gone_on_from(
    folder: Path, curriculum: Curriculum, tmp_path: Path
) -> None:
    die_after(3, tmp_path / "tiny", curriculum, seed=1)
    kept, said = go_on(tmp_path / "tiny", curriculum)
    assert kept == [0]
    assert "is of another bootstrap" in said[0]
    assert weights_digest(tmp_path / "tiny") == weights_digest(folder)


@pytest.mark.usefixtures("often")
def test_a_damaged_checkpoint_is_not_gone_on_from(folder: Path, curriculum: Curriculum, tmp_path: Path) -> None:
    die_after(3, tmp_path / "tiny", curriculum)
    file = tmp_path / "tiny.work" / "bootstrap.safetensors"
    file.write_bytes(file.read_bytes()[:-1])
    kept, said = go_on(tmp_path / "tiny", curriculum)
    assert kept == [0]
    assert "is damaged" in said[0]
    assert weights_digest(tmp_path / "tiny") == weights_digest(folder)


def test_two_bootstraps_never_write_the_same_folder(curriculum: Curriculum, tmp_path: Path) -> None:
    with locked(tmp_path / "tiny.work"), pytest.raises(TrainingError, match="another process"):
        bootstrap(tmp_path / "tiny", seed=0, demonstrations=curriculum, steps=STEPS)


def test_a_folder_that_exists_is_not_overwritten(folder: Path, curriculum: Curriculum) -> None:
    with pytest.raises(TrainingError, match=r"exists; remove it"):
        bootstrap(folder, seed=0, demonstrations=curriculum, steps=STEPS)


def test_every_small_number_is_one_token(tokenizer: PreTrainedTokenizerFast) -> None:
    for number in range(200):
        assert len(tokenizer.encode(str(number))) == 1
        assert len(tokenizer.encode(f"= {number}.")) == 3


def test_any_text_survives_the_tokenizer(tokenizer: PreTrainedTokenizerFast) -> None:
    text = "Zoë owns 12345 naïve  🦊,\n\ttabs & 7.5 %"
    assert tokenizer.decode(tokenizer.encode(text)) == text


def test_the_chat_template_ends_every_turn(tokenizer: PreTrainedTokenizerFast) -> None:
    chat = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Ho"}]
    assert tokenizer.apply_chat_template(chat, tokenize=False) == "<|user|>Hi<|end|><|assistant|>Ho<|end|>"
    prompt = tokenizer.apply_chat_template(chat[:1], tokenize=False, add_generation_prompt=True)
    assert prompt == "<|user|>Hi<|end|><|assistant|>"
