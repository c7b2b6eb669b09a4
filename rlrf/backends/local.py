"""The in-process generator: a Hugging Face folder, transformers, CPU or CUDA.

Only `Sampling` decides how tokens are drawn: penalties, top-k and temperatures of a folder's generation_config.json are
not applied, its end-of-sequence ids are.
"""

from __future__ import annotations

import bisect
import gc
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import transformers
from transformers import AutoModelForCausalLM, PreTrainedModel, PreTrainedTokenizerBase
from transformers.utils import logging as transformers_logging

from rlrf.backends.decoding import Drawn, decode
from rlrf.backends.model_info import ModelInfo, check_model, load_tokenizer, render_ids
from rlrf.backends.prompt_checks import PromptChecks
from rlrf.backends.weights import check_weights
from rlrf.errors import BackendError
from rlrf.records import Completion, Failure, FinishReason, Message, Request, Sampling

Result = Completion | Failure


@dataclass(frozen=True, slots=True)
class _Job:
    request: Request
    prompt_ids: list[int]


class LocalGenerator:
    """Answers chats with a model of this process.

    The text of a request depends on the weights, its chat, the sampling and its own seed, not on its neighbours in the
    batch (up to floating-point rounding). An empty response is a Completion with empty text: judges can rate it.
    Special tokens are left out of texts, as OpenAI-compatible servers do; `completion_tokens` counts every token drawn,
    the end-of-sequence token included.

    Args:
        model_path: a folder with safetensors weights, a tokenizer and a chat template, see `check_model`.
        device: "auto" (CUDA where there is one), "cpu", "cuda" or "cuda:1".
        dtype: "auto" (as stored), "float32", "bfloat16" or "float16".
        batch_size: how many requests are decoded together; bounds memory.

    Raises:
        BackendError: the folder, the device or the dtype can't be used.
    """

    name = "local"

    def __init__(
        self, model_path: str | Path, *, device: str = "auto", dtype: str = "auto", batch_size: int = 256
    ) -> None:
        if batch_size < 1:
            raise BackendError(f"LocalGenerator: batch_size {batch_size!r}; give at least 1")
        self.info: ModelInfo = check_model(model_path)
        self._batch_size = batch_size
        self._tokenizer: PreTrainedTokenizerBase = load_tokenizer(self.info.folder)
        self._checks = PromptChecks(self._tokenizer, self.info.context_length)
        model = load_model(self.info.folder, device, dtype)
        self._model: PreTrainedModel | None = model
        self.settings: dict[str, Any] = {
            "type": "transformers",
            "version": transformers.__version__,
            "torch": torch.__version__,
            "device": torch.cuda.get_device_name(model.device) if model.device.type == "cuda" else model.device.type,
            "dtype": str(model.dtype).removeprefix("torch."),
            "threads": torch.get_num_threads(),
        }

    def generate(self, requests: Sequence[Request], sampling: Sampling) -> Iterator[list[Result]]:
        """Yield the failures first, then one list per decoded batch, shortest prompts first.

        Failure reasons: "empty_prompt", "template_error", "special_tokens_in_prompt", "prompt_too_long", and for a text
        that spells the chat's markup in ordinary tokens, "special_tokens_in_text".

        Raises:
            BackendError: the sampling is out of range, memory ran out, or the generator is closed.
        """
        _check_sampling(sampling)
        jobs, failures = self._plan(requests, sampling)
        if failures:
            yield failures
        for start in range(0, len(jobs), self._batch_size):
            yield self._decode(jobs[start : start + self._batch_size], sampling)

    def count_tokens(self, messages: Sequence[Message]) -> int:
        """Length of the rendered chat in tokens, generation prompt included."""
        return len(render_ids(self._tokenizer, messages))

    def close(self) -> None:
        """Free the weights; may be called twice."""
        self._model = None
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()

    def _plan(self, requests: Sequence[Request], sampling: Sampling) -> tuple[list[_Job], list[Result]]:
        """Render every chat once; sort by length, then ids, so that equal prompts share their prefill."""
        jobs: list[_Job] = []
        failures: list[Result] = []
        for request in requests:
            outcome = self._checks.render(request.messages, sampling)
            if isinstance(outcome, tuple):
                failures.append(Failure(request.request_id, *outcome))
            else:
                jobs.append(_Job(request, outcome))
        return sorted(jobs, key=lambda job: (len(job.prompt_ids), job.prompt_ids)), failures

    def _decode(self, jobs: Sequence[_Job], sampling: Sampling) -> list[Result]:
        if self._model is None:
            raise BackendError(f"LocalGenerator of {str(self.info.folder)!r} is closed; make a new one")
        prompts = [job.prompt_ids for job in jobs]
        seeds = [job.request.seed for job in jobs]
        has_stop = (lambda rows: self._have_stop(rows, sampling.stop)) if sampling.stop else None
        try:
            drawn = decode(self._model, prompts, seeds, sampling, self.info.eos_ids, has_stop)
        except torch.OutOfMemoryError as error:
            raise BackendError(
                f"out of memory on {self._model.device} with batch_size {self._batch_size}; lower it"
            ) from error
        texts = self._texts([row.token_ids for row in drawn])
        return [self._finish(*row, sampling) for row in zip(jobs, drawn, texts, strict=True)]

    def _finish(self, job: _Job, drawn: Drawn, text: str, sampling: Sampling) -> Result:
        if fault := self._checks.text_fault(text):
            return Failure(job.request.request_id, *fault)
        cut = _stop_position(text, sampling.stop)
        count = len(drawn.token_ids) + drawn.ended
        reason: FinishReason = "stop" if drawn.ended or cut is not None else "length"
        if cut is not None:
            text, count = text[:cut], self._tokens_to_stop(drawn.token_ids, sampling.stop)
        return Completion(job.request.request_id, text, reason, len(job.prompt_ids), count)

    def _tokens_to_stop(self, token_ids: list[int], stop: Sequence[str]) -> int:
        """How many tokens it takes until the text holds a stop string."""
        return bisect.bisect_left(
            range(len(token_ids)), True, key=lambda end: self._have_stop([token_ids[:end]], stop)[0]
        )

    def _have_stop(self, rows: list[list[int]], stop: Sequence[str]) -> list[bool]:
        return [_stop_position(text, stop) is not None for text in self._texts(rows)]

    def _texts(self, rows: list[list[int]]) -> list[str]:
        texts: list[str] = self._tokenizer.batch_decode(
            rows, skip_special_tokens=True, clean_up_tokenization_spaces=False
        )
        return texts


def load_model(folder: Path, device: str, dtype: str, kind: Any = AutoModelForCausalLM) -> PreTrainedModel:
    """The weights of `folder` in eval mode; every parameter must come from its files, none from random numbers.

    `kind` is the class of transformers' that loads them.
    """
    check_weights(folder)
    transformers_logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    loaded: Any
    try:
        loaded = kind.from_pretrained(
            folder,
            dtype=_dtype(dtype),
            use_safetensors=True,
            trust_remote_code=False,
            local_files_only=True,
            output_loading_info=True,
        )
        model: PreTrainedModel = loaded[0].to(_device(device)).eval()
        loading: dict[str, Any] = loaded[1]
    except (OSError, ValueError, RuntimeError, KeyError, AssertionError) as error:
        raise BackendError(f"model folder {str(folder)!r}: can't be loaded: {error}") from error
    absent = sorted(loading["missing_keys"]) + sorted(map(str, loading["mismatched_keys"]))
    if absent:
        raise BackendError(
            f"model folder {str(folder)!r}: its weights lack {absent[:5]!r} ({len(absent)} in all), "
            "so they don't belong to its config.json; save the model again"
        )
    return model


def _device(device: str) -> torch.device:
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    chosen = torch.device(device)
    if chosen.type == "cuda" and not torch.cuda.is_available():
        raise ValueError(f"device {device!r} is not there; give 'cpu' or 'auto'")
    return chosen


def _dtype(dtype: str) -> str | torch.dtype:
    known = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
    if dtype != "auto" and dtype not in known:
        raise ValueError(f"dtype {dtype!r}; give one of {['auto', *known]!r}")
    return known.get(dtype, "auto")


def _check_sampling(sampling: Sampling) -> None:
    if not (sampling.temperature >= 0 and 0 < sampling.top_p <= 1 and sampling.max_tokens >= 1 and all(sampling.stop)):
        raise BackendError(
            f"{sampling!r}: needs temperature >= 0, 0 < top_p <= 1, max_tokens >= 1 and no empty stop string"
        )


def _stop_position(text: str, stop: Sequence[str]) -> int | None:
    """Where the earliest stop string begins."""
    return min((at for at in map(text.find, stop) if at >= 0), default=None)
