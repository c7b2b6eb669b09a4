"""What an endpoint is asked: for a response, whether it serves the model, how long a chat is."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from rlrf.backends.endpoint_client import EndpointClient, open_client
from rlrf.backends.endpoint_settings import EndpointSettings
from rlrf.errors import BackendError
from rlrf.records import Message, Request, Sampling

CONTACT_SECONDS = 30.0
"""The longest that one try may take where no text is to be generated."""


def chat_content(model: str, request: Request, sampling: Sampling) -> dict[str, Any]:
    """One request for one response, in the OpenAI chat protocol."""
    content: dict[str, Any] = {
        "model": model,
        "messages": list(request.messages),
        "temperature": sampling.temperature,
        "top_p": sampling.top_p,
        "max_tokens": sampling.max_tokens,
        "seed": request.seed,
        "n": 1,
    }
    if sampling.stop:  # some endpoints reject an empty list
        content["stop"] = list(sampling.stop)
    return content


async def check_model(client: EndpointClient, settings: EndpointSettings) -> None:
    """See that the endpoint serves the model. Raises BackendError."""
    url = f"{settings.base_url}/models"
    reply = await client.ask_patiently("GET", url, seconds=min(settings.request_timeout, CONTACT_SECONDS))
    try:
        models = [str(model["id"]) for model in json.loads(reply.body)["data"]]
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise BackendError(f"{url!r} answers with no list of models; correct base_url (it ends in /v1)") from error
    if settings.model not in models:
        raise BackendError(f"endpoint {settings.base_url!r} does not serve {settings.model!r}; it serves {models!r}")


async def count_tokens(settings: EndpointSettings, messages: Sequence[Message]) -> int:
    """Length of the rendered chat in tokens by vLLM's `/tokenize`, which lies beside `/v1`. Raises BackendError."""
    url = f"{settings.base_url.removesuffix('/v1')}/tokenize"
    content = {"model": settings.model, "messages": list(messages), "add_generation_prompt": True}
    try:
        async with open_client(settings) as client:
            seconds = min(settings.request_timeout, CONTACT_SECONDS)
            reply = await client.ask_patiently("POST", url, content, seconds=seconds)
        return int(json.loads(reply.body)["count"])
    except (BackendError, ValueError, TypeError, KeyError, OverflowError, RecursionError) as error:
        raise BackendError(
            f"no token counts by {url!r}: {error!r}; use vLLM, or count with the model's files"
        ) from error
