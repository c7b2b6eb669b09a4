"""Questions to a vLLM server of our own that are about no row: is it ready, does it live, take this adapter."""

from __future__ import annotations

import http.client
import json
from contextlib import suppress
from typing import Any

from rlrf.backends.engine.command import HOST
from rlrf.errors import BackendError

ASK_SECONDS = 5.0
LOAD_SECONDS = 300.0
"""For a first token, which may compile kernels, or an adapter."""


class AdapterError(BackendError):
    """A running server doesn't take an adapter."""


class VllmLink:
    """A server's port and key; every question has a connection of its own."""

    def __init__(self, port: int, key: str) -> None:
        self.base_url = f"http://{HOST}:{port}/v1"
        self._port, self._key = port, key

    def is_ready(self, name: str) -> bool:
        """Whether it serves the model `name` and has written a first token."""
        try:
            if not self.is_healthy():
                return False
            status, body = self._ask("GET", "/v1/models", seconds=ASK_SECONDS)
            if status != 200 or name not in {model["id"] for model in json.loads(body)["data"]}:
                return False
            # Some faults, such as a head size that no kernel is made for, kill the engine at its first token.
            first = {"model": name, "prompt": "1", "max_tokens": 1}
            return self._ask("POST", "/v1/completions", first, seconds=LOAD_SECONDS)[0] < 500
        except (OSError, http.client.HTTPException, ValueError, KeyError, TypeError):
            return False

    def is_healthy(self) -> bool:
        """Whether it says that its engine lives."""
        try:
            return self._ask("GET", "/health", seconds=ASK_SECONDS)[0] == 200
        except (OSError, http.client.HTTPException):
            return False

    def adapter(self, verb: str, name: str, **content: str) -> None:
        """Load or unload an adapter.

        Raises:
            AdapterError: it refuses, in its own words.
            BackendError: it is dead.
        """
        content["lora_name"] = name
        try:
            status, body = self._ask("POST", f"/v1/{verb}_lora_adapter", content, seconds=LOAD_SECONDS)
        except (OSError, http.client.HTTPException) as error:
            raise BackendError(f"vLLM doesn't {verb} adapter {name!r}: {type(error).__name__}: {error}") from error
        if status == 200:
            return
        words = body.decode("utf-8", errors="replace")
        with suppress(ValueError, KeyError, TypeError):
            words = str(json.loads(body)["error"]["message"])
        fault = AdapterError if self.is_healthy() else BackendError
        raise fault(f"vLLM doesn't {verb} adapter {name!r}: status {status}: {words[:500]}")

    def _ask(self, method: str, path: str, content: Any = None, *, seconds: float) -> tuple[int, bytes]:
        connection = http.client.HTTPConnection(HOST, self._port, timeout=seconds)
        try:
            body = None if content is None else json.dumps(content)
            headers = {"Authorization": f"Bearer {self._key}", "Content-Type": "application/json"}
            connection.request(method, path, body, headers)
            response = connection.getresponse()
            return response.status, response.read(2**24)
        finally:
            connection.close()
