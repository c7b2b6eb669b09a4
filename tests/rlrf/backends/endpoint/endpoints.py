"""Builders: an endpoint generator for servers, requests, and the results in their order."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

from rlrf.backends.endpoint.generator import EndpointGenerator
from rlrf.backends.protocols import Generator
from rlrf.engine_config import Client
from rlrf.records import Completion, Failure, Request, Sampling
from tests.rlrf.backends.endpoint.misbehaving_server import MODEL, MisbehavingServer

SAMPLING = Sampling(temperature=0.7, top_p=0.9, max_tokens=32)


def endpoint(*servers: MisbehavingServer, **options: Any) -> EndpointGenerator:
    """A generator that soon gives up."""
    asking = {"concurrency": 8, "request_timeout": 2.0, "retries": 1}
    asking |= {name: options.pop(name) for name in Client.model_fields if name in options}
    return EndpointGenerator([server.base_url for server in servers], MODEL, Client(**asking), **options)


def ask(*messages: str, n: int = 1, schema: Any = None) -> list[Request]:
    """n requests for each message, with consecutive seeds from 100 on."""
    json_schema = None if schema is None else json.dumps(schema)
    chats = [({"role": "user", "content": message},) for message in messages for _ in range(n)]
    return [Request(f"id {i}", chat, 100 + i, json_schema) for i, chat in enumerate(chats)]


def answers(generator: Generator, requests: list[Request]) -> list[Completion | Failure]:
    """All results in the requests' order; fails unless each request came out exactly once."""
    results = [result for batch in generator.generate(requests, SAMPLING) for result in batch]
    by_id = {result.request_id: result for result in results}
    assert len(results) == len(by_id) == len(requests)
    return [by_id[request.request_id] for request in requests]


def collect(batches: Iterable[list[Completion | Failure]], seen: list[Completion | Failure]) -> None:
    """Keep what comes out before an error does."""
    for batch in batches:
        seen.extend(batch)
