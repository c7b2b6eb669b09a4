"""A reward model in this process: a Hugging Face folder for sequence classification with one output, CPU or CUDA."""

from __future__ import annotations

import gc
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import torch
from jinja2.exceptions import TemplateError
from torch import nn
from transformers import AutoConfig, AutoModelForSequenceClassification, PreTrainedModel, PreTrainedTokenizerBase

from rlrf.backends.local import load_model
from rlrf.backends.model_info import PROBE_ANSWER, PROBE_CHAT, load_tokenizer
from rlrf.backends.protocols import Conversation, Reward
from rlrf.backends.weights import check_weights
from rlrf.errors import BackendError
from rlrf.records import Failure, Message


@dataclass(frozen=True, slots=True)
class _Row:
    request_id: str
    ids: list[int]


class LocalScorer:
    """Scores with a model of this process; a Scorer (rlrf.backends.protocols).

    The reward is the model's raw output for the chat as the tokenizer's template renders it, without a generation
    prompt. It depends on the chat and the weights alone, not on its neighbours in the batch (up to rounding): float32 on
    a CPU, the stored type on a GPU.

    Args:
        model_path: a folder with safetensors weights, a tokenizer and a chat template.
        device: "auto" (CUDA where there is one), "cpu", "cuda" or "cuda:1".
        batch_size: how many conversations are scored together; bounds memory.

    Raises:
        BackendError: the folder or the device can't be used, the model has not exactly one output, or the chat template
            loses texts.
    """

    def __init__(self, model_path: str | Path, *, device: str = "auto", batch_size: int = 32) -> None:
        self._folder, self._batch_size = Path(model_path), batch_size
        check_reward_model(self._folder)
        self._tokenizer: PreTrainedTokenizerBase = load_tokenizer(self._folder)
        _check_template(self._folder, self._tokenizer)
        self._special = tuple(token.content for token in self._tokenizer.added_tokens_decoder.values() if token.special)
        on_cpu = device == "cpu" or (device == "auto" and not torch.cuda.is_available())
        dtype = "float32" if on_cpu else "auto"
        model = load_model(self._folder, device, dtype, kind=AutoModelForSequenceClassification)
        self._positions = _positions(model)
        self._pad = _padding(model)
        self._model: PreTrainedModel | None = model

    def score(self, conversations: Sequence[Conversation], max_length: int | None) -> Iterator[list[Reward | Failure]]:
        """Yield the failures first, then one list per batch, shortest conversations first.

        Failure reasons: "too_long", "special_tokens_in_text" (it would be read as the chat's markup), "template_error",
        "empty_chat".

        Raises:
            BackendError: memory ran out, or the scorer is closed.
        """
        outcomes = [self._render(request_id, messages, max_length) for request_id, messages in conversations]
        failures = [one for one in outcomes if isinstance(one, Failure)]
        if failures:
            yield [*failures]
        rows = sorted((one for one in outcomes if isinstance(one, _Row)), key=lambda row: len(row.ids))
        for start in range(0, len(rows), self._batch_size):
            yield self._score(rows[start : start + self._batch_size])

    def close(self) -> None:
        """Free the weights; may be called twice."""
        self._model = None
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()

    def _render(self, request_id: str, messages: Sequence[Message], max_length: int | None) -> _Row | Failure:
        held = [token for token in self._special if any(token in message["content"] for message in messages)]
        if held:
            detail = f"the text holds {held!r}, which the tokenizer would read as chat markup"
            return Failure(request_id, "special_tokens_in_text", detail)
        try:
            ids = cast(list[int], self._tokenizer.apply_chat_template(list(messages), return_dict=False))
        except (TemplateError, TypeError, ValueError) as error:
            roles = [message["role"] for message in messages]
            return Failure(request_id, "template_error", f"the chat template fails on roles {roles!r}: {error}")
        if not ids:
            return Failure(request_id, "empty_chat", "the rendered chat has no tokens")
        limits = [("max_length", max_length), ("the model's positions", self._positions)]
        for name, limit in limits:
            if limit is not None and len(ids) > limit:
                return Failure(request_id, "too_long", f"{len(ids)} tokens > {name} {limit}")
        return _Row(request_id, ids)

    def _score(self, rows: Sequence[_Row]) -> list[Reward | Failure]:
        model = self._model
        if model is None:
            raise BackendError(f"LocalScorer of {str(self._folder)!r} is closed; make a new one")
        try:
            values = _rewards(model, [row.ids for row in rows], self._pad)
        except torch.OutOfMemoryError as error:
            raise BackendError(
                f"out of memory on {model.device} with reward batch_size {self._batch_size}; lower it"
            ) from error
        return [Reward(row.request_id, value, len(row.ids)) for row, value in zip(rows, values, strict=True)]


def check_reward_model(folder: Path) -> None:
    """See that a folder holds a whole model with exactly one output. Raises BackendError."""
    check_weights(folder)
    try:
        config = AutoConfig.from_pretrained(folder, trust_remote_code=False, local_files_only=True)
    except (OSError, ValueError, KeyError) as error:
        raise BackendError(f"reward model {str(folder)!r}: config.json can't be used: {error}") from error
    if config.num_labels != 1:
        raise BackendError(
            f"reward model {str(folder)!r}: num_labels = {config.num_labels!r}, and a reward is one number; "
            "give a sequence-classification model with num_labels 1"
        )


def _check_template(folder: Path, tokenizer: PreTrainedTokenizerBase) -> None:
    """See that the model is shown all turns: without the last one every response would get the same reward."""
    chat = [*PROBE_CHAT, PROBE_ANSWER]
    try:
        text = cast(str, tokenizer.apply_chat_template(chat, tokenize=False))
    except (TemplateError, TypeError, ValueError) as error:
        raise BackendError(
            f"reward model {str(folder)!r}: its chat template fails on a chat of four turns: {error}; mend it"
        ) from error
    lost = [message for message in chat if message["content"] not in text]
    if lost:
        raise BackendError(f"reward model {str(folder)!r}: its chat template doesn't show {lost[-1]!r}; mend it")


@torch.inference_mode()
def _rewards(model: PreTrainedModel, rows: Sequence[list[int]], pad: int | None) -> list[float]:
    """The one output of each row, padded on the right to the longest.

    A decoder's reward is read at its last token that is not padding, which transformers finds by the padding's id. Where
    the model names none, it is any id with which no row ends.
    """
    text_config = model.config.get_text_config()
    if pad is None:
        ends = {ids[-1] for ids in rows}
        pad = next(token for token in range(len(rows) + 1) if token not in ends)
        text_config.pad_token_id = pad
    longest = max(map(len, rows))
    ids = torch.tensor([row + [pad] * (longest - len(row)) for row in rows], device=model.device)
    mask = torch.tensor([[1] * len(row) + [0] * (longest - len(row)) for row in rows], device=model.device)
    logits = model(input_ids=ids, attention_mask=mask).logits
    return cast(list[float], logits.float()[:, 0].tolist())


def _padding(model: PreTrainedModel) -> int | None:
    """The padding's id, None where the model names none that a text could hold."""
    pad: int | None = model.config.get_text_config().pad_token_id
    known = cast(nn.Embedding, model.get_input_embeddings()).num_embeddings
    return pad if pad is not None and 0 <= pad < known else None


def _positions(model: PreTrainedModel) -> int | None:
    """Most tokens that it can read, None where its architecture has no limit."""
    for name, module in model.named_modules():
        if name.endswith("position_embeddings") and isinstance(module, nn.Embedding):
            # RoBERTa and its kin count positions from behind the padding's.
            return module.num_embeddings - (0 if module.padding_idx is None else module.padding_idx + 1)
    positions: int | None = getattr(model.config.get_text_config(), "max_position_embeddings", None)
    return positions
