from __future__ import annotations

from pathlib import Path

import pytest
from transformers import PreTrainedTokenizerFast

from rlrf.backends.bootstrap import bootstrap
from rlrf.backends.local import LocalGenerator
from rlrf.backends.tiny_tokenizer import train_tokenizer
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


def test_a_bootstrap_that_dies_leaves_nothing(curriculum: Curriculum, tmp_path: Path) -> None:
    def die(step: int, steps: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        bootstrap(tmp_path / "tiny", seed=0, demonstrations=curriculum, steps=STEPS, progress=die)
    assert list(tmp_path.iterdir()) == []


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
