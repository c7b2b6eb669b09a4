"""What a model folder says of itself, read without its weights: the preflight of every run that uses it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import Any, cast

from jinja2.exceptions import TemplateError
from transformers import AutoConfig, AutoTokenizer, GenerationConfig, PreTrainedTokenizerBase

from rlrf.backends.weights import check_weights
from rlrf.errors import BackendError
from rlrf.records import Message

PROBE_CHAT: tuple[Message, ...] = (
    {"role": "user", "content": "First probe: what is 2 + 3?"},
    {"role": "assistant", "content": "First answer: it is 5."},
    {"role": "user", "content": "Second probe: please revise."},
)
PROBE_ANSWER: Message = {"role": "assistant", "content": "Second answer: it is 5, since 2 + 3 = 5."}


@dataclass(frozen=True, slots=True)
class ModelInfo:
    """The facts of a usable model folder.

    Attributes:
        folder: where it lies.
        context_length: most tokens of a prompt and its response together; None where the architecture has no limit.
        eos_ids: token ids that end a response, of the generation config and the tokenizer.
        template_hash: blake2b-128 of the chat template, in hex.
    """

    folder: Path
    context_length: int | None
    eos_ids: tuple[int, ...]
    template_hash: str


def check_model(path: str | Path) -> ModelInfo:
    """Read config, tokenizer and chat template, check the weights' files for completeness, and render a probe chat.

    Raises:
        BackendError: a file is missing or damaged, the architecture is unknown or needs remote code, or the chat
            template loses texts, opens no assistant turn, or doesn't end it with an end-of-sequence token.
    """
    folder = Path(path)
    check_weights(folder)
    try:
        config = AutoConfig.from_pretrained(folder, trust_remote_code=False, local_files_only=True)
    except (OSError, ValueError, KeyError) as error:
        raise BackendError(f"model folder {str(folder)!r}: config.json can't be used: {error}") from error
    tokenizer = load_tokenizer(folder)
    eos_ids = _eos_ids(folder, tokenizer)
    _check_template(folder, tokenizer, eos_ids)
    context = getattr(config.get_text_config(), "max_position_embeddings", None)
    return ModelInfo(folder, context, eos_ids, _template_hash(tokenizer))


def load_tokenizer(folder: Path) -> PreTrainedTokenizerBase:
    """The tokenizer of a model folder, which must have a chat template."""
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False, local_files_only=True)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, ImportError) as error:
        raise BackendError(
            f"model folder {str(folder)!r}: no usable tokenizer ({error}); save the model's tokenizer into it"
        ) from error
    if not tokenizer.chat_template:
        raise BackendError(
            f"model folder {str(folder)!r}: its tokenizer has no chat template; "
            "use a chat model, or add the template it was trained with as chat_template.jinja"
        )
    loaded: PreTrainedTokenizerBase = tokenizer
    return loaded


def render_ids(tokenizer: PreTrainedTokenizerBase, messages: Sequence[Message]) -> list[int]:
    """Token ids of the rendered chat, generation prompt included.

    Raises:
        jinja2.exceptions.TemplateError: the template refuses these roles.
    """
    return cast(list[int], tokenizer.apply_chat_template(list(messages), add_generation_prompt=True, return_dict=False))


def _eos_ids(folder: Path, tokenizer: PreTrainedTokenizerBase) -> tuple[int, ...]:
    found = {tokenizer.eos_token_id}
    if (folder / "generation_config.json").is_file():
        stored = GenerationConfig.from_pretrained(folder, local_files_only=True).eos_token_id
        found |= set(stored) if isinstance(stored, list) else {stored}
    eos_ids = tuple(sorted(token for token in found if token is not None))
    if not eos_ids:
        raise BackendError(
            f"model folder {str(folder)!r}: no end-of-sequence token in tokenizer or generation_config.json; "
            "set eos_token_id, or every response runs to max_tokens"
        )
    return eos_ids


def _check_template(folder: Path, tokenizer: PreTrainedTokenizerBase, eos_ids: tuple[int, ...]) -> None:
    """Render a chat of two prompts and an answer, and ask what training and sampling rely on."""
    prompt, bare, full = (
        _render(folder, tokenizer, PROBE_CHAT, add_generation_prompt=True),
        _render(folder, tokenizer, PROBE_CHAT, add_generation_prompt=False),
        _render(folder, tokenizer, (*PROBE_CHAT, PROBE_ANSWER), add_generation_prompt=False),
    )
    for message in PROBE_CHAT:
        if prompt.count(message["content"]) != 1:
            raise _template_error(folder, f"renders {message!r} {prompt.count(message['content'])} times, not once")
    tail = full.removeprefix(prompt)
    if tail == full:
        raise _template_error(folder, f"renders an answered chat as {full!r}, which doesn't begin with {prompt!r}")
    if tail.count(PROBE_ANSWER["content"]) != 1:
        raise _template_error(folder, f"renders the answer as {tail!r}, which doesn't hold {PROBE_ANSWER['content']!r}")
    if prompt == bare and not tail.lstrip().startswith(PROBE_ANSWER["content"]):
        raise _template_error(folder, "has no generation prompt: add_generation_prompt changes nothing")
    after = tokenizer.encode(tail.rpartition(PROBE_ANSWER["content"])[2], add_special_tokens=False)
    if not set(after) & set(eos_ids):
        raise _template_error(folder, f"ends an answer with {after!r}, without any of the end tokens {eos_ids!r}")


def _render(folder: Path, tokenizer: PreTrainedTokenizerBase, chat: Sequence[Message], **options: Any) -> str:
    try:
        text = tokenizer.apply_chat_template(list(chat), tokenize=False, **options)
    except (TemplateError, TypeError, ValueError) as error:
        raise _template_error(folder, f"fails on roles {[message['role'] for message in chat]!r}: {error}") from error
    return cast(str, text)


def _template_error(folder: Path, fault: str) -> BackendError:
    return BackendError(f"model folder {str(folder)!r}: its chat template {fault}; mend the chat template")


def _template_hash(tokenizer: PreTrainedTokenizerBase) -> str:
    template: Any = tokenizer.chat_template
    return blake2b(json.dumps(template, sort_keys=True).encode(), digest_size=16).hexdigest()
