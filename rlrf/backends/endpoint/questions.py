"""What a server is asked: for responses, and whether it is what the configuration says."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from rlrf.backends.endpoint.answers import Spoilt, read_answer
from rlrf.backends.endpoint.client import EndpointClient, Reply, WentWrong, open_session
from rlrf.backends.endpoint.guided import PROOFS, response_format
from rlrf.backends.endpoint.server import Server
from rlrf.backends.endpoint.settings import EndpointSettings
from rlrf.errors import BackendError
from rlrf.records import Completion, Message, Request, Sampling

CONTACT_SECONDS = 30.0
"""The longest that one try may take where no response is to be generated."""
PROBE = "Say hello."
"""What is asked only to see how a server answers."""


def chat_content(model: str, group: Sequence[Request], sampling: Sampling) -> dict[str, Any]:
    """One request for the responses of a group: the same chat and schema, consecutive seeds; OpenAI's chat protocol.

    vLLM draws choice i by the request's seed + i, and tells the tokens of each choice by `return_token_ids`.
    """
    first = group[0]
    content: dict[str, Any] = {
        "model": model,
        "messages": first.messages,
        "temperature": sampling.temperature,
        "top_p": sampling.top_p,
        "max_tokens": sampling.max_tokens,
        "seed": first.seed,
        "n": len(group),
    }
    if len(group) > 1:
        content["return_token_ids"] = True
    if sampling.stop:  # some endpoints reject an empty list
        content["stop"] = sampling.stop
    if first.json_schema is not None:
        content["response_format"] = response_format(json.loads(first.json_schema))
    return content


async def check_server(server: Server, settings: EndpointSettings, *, groups: bool, guided: bool) -> None:
    """See that a server is what was configured, and find out what it can do that the run has a use for.

    Raises NotNow and WentWrong, which may pass, and BackendError.
    """
    client, traits = server.client, server.traits
    await check_model(client, settings)
    if groups and (traits.apart is None or server.came):  # one that comes back may be another
        traits.apart = await tells_choices_apart(client, settings)
    if guided and (not traits.guides or server.came):
        await check_guidance(client, settings)
        traits.guides = True


async def check_model(client: EndpointClient, settings: EndpointSettings) -> None:
    """See that the server serves the model. Raises NotNow and WentWrong, BackendError where it doesn't."""
    url = f"{client.base_url}/models"
    reply = await client.ask("GET", url, seconds=min(settings.asking.request_timeout, CONTACT_SECONDS))
    try:
        models = [str(model["id"]) for model in json.loads(reply.body)["data"]]
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise BackendError(f"{url!r} answers with no list of models; correct base_url (it ends in /v1)") from error
    if settings.model not in models:
        raise BackendError(f"endpoint {client.base_url!r} does not serve {settings.model!r}; it serves {models[:8]!r}")


async def tells_choices_apart(client: EndpointClient, settings: EndpointSettings) -> bool:
    """Whether an answer of several choices says how many tokens each has. Raises NotNow, WentWrong, BackendError."""
    group = [Request(str(i), ({"role": "user", "content": PROBE},), seed=i) for i in range(2)]
    sampling = Sampling(max_tokens=2)
    try:
        reply = await _probe(client, settings, chat_content(settings.model, group, sampling))
    except WentWrong as failed:
        if failed.reason == "server_error":
            return False
        raise
    return reply.status < 400 and not isinstance(read_answer(group, sampling, reply.body), Spoilt)


async def check_guidance(client: EndpointClient, settings: EndpointSettings) -> None:
    """See that the server guides answers: many take the wish and ignore it. Raises NotNow, WentWrong, BackendError."""
    sampling = Sampling(temperature=0.0, max_tokens=64)
    for schema in PROOFS:
        request = Request("proof", ({"role": "user", "content": PROBE},), seed=0, json_schema=json.dumps(schema))
        reply = await _probe(client, settings, chat_content(settings.model, [request], sampling))
        if reply.status >= 400:
            said = client.said(reply)
            continue
        answer = read_answer([request], sampling, reply.body)
        result = answer if isinstance(answer, Spoilt) else answer[0]
        if isinstance(result, Completion) and result.finish_reason == "stop":
            return  # an instance of its schema, or it would be a Failure
        said = result.text if isinstance(result, Completion) else result.detail
    raise BackendError(
        f"endpoint {client.base_url!r} does not guide answers: asked for one that its schema leaves no choice for, it "
        f"says {client.without_key(said)[:200]!r}; serve {settings.model!r} by vLLM or another server that honours "
        "response_format json_schema"
    )


async def _probe(client: EndpointClient, settings: EndpointSettings, content: dict[str, Any]) -> Reply:
    url = f"{client.base_url}/chat/completions"
    return await client.ask("POST", url, content, seconds=settings.asking.request_timeout)


async def count_tokens(settings: EndpointSettings, messages: Sequence[Message]) -> int:
    """Length of the rendered chat in tokens by vLLM's `/tokenize`, which lies beside `/v1`. Raises BackendError."""
    base_url = settings.base_urls[0]
    url = f"{base_url.removesuffix('/v1')}/tokenize"
    content = {"model": settings.model, "messages": list(messages), "add_generation_prompt": True}
    try:
        async with open_session(settings) as session:
            client = EndpointClient(settings, base_url, session)
            seconds = min(settings.asking.request_timeout, CONTACT_SECONDS)
            reply = await client.ask_patiently("POST", url, content, seconds=seconds)
        return int(json.loads(reply.body)["count"])
    except (BackendError, ValueError, TypeError, KeyError, OverflowError, RecursionError) as error:
        raise BackendError(
            f"no token counts by {url!r}: {error!r}; use vLLM, or count with the model's files"
        ) from error
