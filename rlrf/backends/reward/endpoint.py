"""A reward model behind vLLM's pooling API: `vllm serve MODEL --runner pooling`, one server or replicas.

`/classify` lies beside `/v1`, takes a chat and applies a sigmoid unless it is told not to. What becomes of a request that
got no answer is decided as for every endpoint, see rlrf.backends.endpoint.generator.
"""

from __future__ import annotations

import json
import math
from collections.abc import Generator, Mapping, Sequence
from typing import Any

from rlrf.backends.endpoint.answers import DETAIL_CHARS, MAX_ANSWER_BYTES, Spoilt
from rlrf.backends.endpoint.client import Reply
from rlrf.backends.endpoint.questions import PROBE, check_model
from rlrf.backends.endpoint.run import EndpointRun
from rlrf.backends.endpoint.server import Server, Traits
from rlrf.backends.endpoint.settings import BACKLOG, EndpointSettings, check_key, checked_urls
from rlrf.backends.protocols import Conversation, Reward
from rlrf.engine_config import Client
from rlrf.errors import BackendError
from rlrf.records import Failure, Message, Request

PROBE_CHAT: tuple[Message, ...] = ({"role": "user", "content": PROBE}, {"role": "assistant", "content": "Hello."})
TOO_LONG = ("input_tokens", "input_text")
"""What vLLM calls the parameter at fault where a chat is longer than the model's context."""
BATCH_ROWS = 256
REMEDY = "serve the reward model by `vllm serve MODEL --runner pooling`"


class EndpointScorer:
    """Scores through `/classify` beside the base URL's `/v1`; a Scorer (rlrf.backends.protocols).

    A micro-batch is yielded at `batch_rows`, or `flush_seconds` after its first row.

    Raises:
        BackendError: an address or the key can't be used, or the key would travel unencrypted.
    """

    def __init__(
        self,
        base_urls: Sequence[str] | str,
        model: str,
        asking: Client,
        *,
        key: str | None = None,
        batch_rows: int = BATCH_ROWS,
        flush_seconds: float = 1.0,
    ) -> None:
        urls = checked_urls(base_urls)
        for url in urls if key is not None else ():
            check_key(str(key), url)
        asking = asking.model_copy(update={"choices_per_request": 1})
        self._settings = EndpointSettings(urls, model, key, asking, batch_rows, BACKLOG, flush_seconds)
        self._traits = {url: Traits() for url in urls}

    def __repr__(self) -> str:
        return f"EndpointScorer({self._settings.base_urls!r}, {self._settings.model!r})"

    def score(self, conversations: Sequence[Conversation], max_length: int | None) -> Generator[list[Reward | Failure]]:
        """Yield results in micro-batches, in order of arrival, each conversation exactly once.

        Failure reasons: "too_long", "not_finite", "not_one_reward" and those of every endpoint ("timeout", "cut_off",
        "server_error", "rejected", "invalid_json", "answer_too_long", "missing_usage").

        Raises:
            BackendError: the endpoint is gone, is not what was configured, answers nothing but errors, or not in time.
        """
        requests = [Request(request_id, messages, seed=0) for request_id, messages in conversations]
        run = RewardRun(self._settings, self._traits, requests, max_length)
        try:
            yield from run.batches()
        finally:
            run.stop()
        run.raise_error()

    def close(self) -> None:
        """Nothing to give back: connections live as long as the iterator that uses them."""


class RewardRun(EndpointRun[Reward]):
    """One call of `score`."""

    def __init__(
        self,
        settings: EndpointSettings,
        traits: Mapping[str, Traits],
        requests: Sequence[Request],
        max_length: int | None,
    ) -> None:
        self._max_length = max_length
        super().__init__(settings, traits, requests, None)

    async def _check(self, server: Server) -> None:
        await check_model(server.client, self._settings)
        if not server.traits.rewards or server.came:  # one that comes back may be another
            await check_rewards(server, self._settings)
            server.traits.rewards = True

    def _question(self, server: Server, group: Sequence[Request]) -> tuple[str, dict[str, Any]]:
        return _url(server), _content(self._settings.model, group[0].messages)

    def _answer(self, group: Sequence[Request], body: bytes) -> list[Reward | Failure] | Spoilt:
        return read_reward(group[0].request_id, body, self._max_length)

    def _refusal(self, server: Server, reply: Reply) -> Spoilt:
        return Spoilt("too_long" if _is_too_long(reply.body) else "rejected", server.client.said(reply))


async def check_rewards(server: Server, settings: EndpointSettings) -> None:
    """See that a server gives one raw number. Raises NotNow and WentWrong, which may pass, and BackendError.

    A server that doesn't know `use_activation` would ignore it and squash every reward; one that does refuses nonsense.
    """
    url, content = _url(server), _content(settings.model, PROBE_CHAT)
    place, seconds = f"endpoint {server.client.base_url!r}", settings.asking.request_timeout
    try:
        reply = await server.client.ask("POST", url, content, seconds=seconds)
        nonsense = await server.client.ask("POST", url, content | {"use_activation": "raw"}, seconds=seconds)
    except BackendError as error:
        raise BackendError(f"{place} gives no rewards; {REMEDY} ({error})") from None
    said = server.client.said(reply)
    if reply.status >= 400:
        raise BackendError(f"{place} refuses to score a chat of two turns: {said!r}; {REMEDY}")
    answer = read_reward("probe", reply.body, None)
    if isinstance(answer, Spoilt) and answer.reason != "not_finite":
        raise BackendError(
            f"{place} answers with no reward ({answer.reason}: {server.client.without_key(answer.detail)!r}); "
            f"{settings.model!r} must have one output (num_labels 1): {REMEDY}"
        )
    if nonsense.status < 400:
        raise BackendError(
            f"{place} ignores use_activation, so its rewards would be squashed by a sigmoid; use a later vLLM"
        )


def read_reward(request_id: str, body: bytes, max_length: int | None) -> list[Reward | Failure] | Spoilt:
    """The one number of an answer of `/classify`, as it is; nothing is made of what is none."""
    if len(body) > MAX_ANSWER_BYTES:
        return _spoilt("answer_too_long", body, f"more than {MAX_ANSWER_BYTES} bytes: ")
    try:
        answer = json.loads(body.decode())
    except (ValueError, RecursionError) as error:
        return _spoilt("invalid_json", body, f"{error}: ")
    try:
        [row] = answer["data"]
        [value] = row["probs"]
    except (ValueError, TypeError, KeyError):
        return _spoilt("not_one_reward", body)
    if type(value) not in (int, float):
        return _spoilt("not_one_reward", body)
    usage = answer.get("usage")
    tokens = usage.get("prompt_tokens") if isinstance(usage, dict) else None
    if type(tokens) is not int or tokens < 0:
        return _spoilt("missing_usage", body)
    if max_length is not None and tokens > max_length:
        return Spoilt("too_long", f"{tokens} tokens > max_length {max_length}")
    number = _number(value)
    return [Reward(request_id, number, tokens)] if math.isfinite(number) else _spoilt("not_finite", body)


def _number(value: float) -> float:
    try:
        return float(value)
    except OverflowError:  # an integer of hundreds of digits
        return math.inf


def _url(server: Server) -> str:
    return f"{server.client.base_url.removesuffix('/v1')}/classify"


def _content(model: str, messages: Sequence[Message]) -> dict[str, Any]:
    return {"model": model, "messages": list(messages), "use_activation": False}


def _is_too_long(body: bytes) -> bool:
    try:
        return json.loads(body)["error"]["param"] in TOO_LONG
    except (ValueError, TypeError, KeyError, RecursionError):
        return False


def _spoilt(reason: str, body: bytes, why: str = "") -> Spoilt:
    return Spoilt(reason, (why + body[:DETAIL_CHARS].decode("utf-8", errors="replace"))[:DETAIL_CHARS])
