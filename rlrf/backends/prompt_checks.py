"""What a chat may hold before a model reads it, and a text before others do: the same for every engine with local files."""

from __future__ import annotations

import json
from collections.abc import Sequence

from jinja2.exceptions import TemplateError
from transformers import PreTrainedTokenizerBase

from rlrf.backends.model_info import render_ids
from rlrf.records import Message, Sampling

Fault = tuple[str, str]
"""The reason and the detail of a Failure."""


class PromptChecks:
    """Renders chats with the model's own template, each once, and looks for what must not pass."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, context_length: int | None) -> None:
        self._tokenizer, self._context = tokenizer, context_length
        self._special = tuple(token.content for token in tokenizer.added_tokens_decoder.values() if token.special)
        self._rendered: dict[str, list[int] | Fault] = {}

    def render(self, messages: Sequence[Message], sampling: Sampling) -> list[int] | Fault:
        """The prompt's token ids, or why it can't be answered.

        Reasons: "special_tokens_in_prompt", "template_error", "empty_prompt", "prompt_too_long".
        """
        key = json.dumps(messages)
        if key not in self._rendered:
            self._rendered[key] = self._render(messages)
        ids = self._rendered[key]
        if isinstance(ids, list) and self._context is not None and len(ids) + sampling.max_tokens > self._context:
            detail = f"{len(ids)} prompt tokens + max_tokens {sampling.max_tokens} > context length {self._context}"
            return "prompt_too_long", detail
        return ids

    def text_fault(self, text: str) -> Fault | None:
        """Why a response can't be used: it spells the chat's markup in ordinary tokens."""
        if held := self._markup(text):
            detail = f"the model spelled {held!r}, which would be read as chat markup in refinement and training"
            return "special_tokens_in_text", detail
        return None

    def _render(self, messages: Sequence[Message]) -> list[int] | Fault:
        held = self._markup("\n".join(message["content"] for message in messages))
        if held:
            return "special_tokens_in_prompt", f"the text holds {held!r}, which the tokenizer would read as chat markup"
        try:
            ids = render_ids(self._tokenizer, messages)
        except TemplateError as error:
            roles = [message["role"] for message in messages]
            return "template_error", f"the chat template refuses roles {roles!r}: {error}"
        return ids or ("empty_prompt", "the rendered chat has no tokens")

    def _markup(self, text: str) -> list[str]:
        return [token for token in self._special if token in text]
