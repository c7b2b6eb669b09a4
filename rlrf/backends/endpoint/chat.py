"""A run over requests for responses: OpenAI's chat protocol."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from rlrf.backends.endpoint.answers import Spoilt, read_answer
from rlrf.backends.endpoint.groups import any_group
from rlrf.backends.endpoint.questions import chat_content, check_server
from rlrf.backends.endpoint.run import EndpointRun
from rlrf.backends.endpoint.server import Server, Traits
from rlrf.backends.endpoint.settings import EndpointSettings
from rlrf.records import Completion, Failure, Request, Sampling


class ChatRun(EndpointRun[Completion]):
    """One call of `generate`."""

    def __init__(
        self,
        settings: EndpointSettings,
        traits: Mapping[str, Traits],
        requests: Sequence[Request],
        sampling: Sampling,
        gone: Callable[[], str | None] | None,
    ) -> None:
        self._sampling = sampling
        self._is_guided = any(request.json_schema is not None for request in requests)
        groups = sampling.temperature > 0 and settings.asking.choices_per_request > 1 and any_group(requests)
        super().__init__(settings, traits, requests, gone, groups=groups)

    async def _check(self, server: Server) -> None:
        await check_server(server, self._settings, groups=self._groups, guided=self._is_guided)

    def _question(self, server: Server, group: Sequence[Request]) -> tuple[str, dict[str, Any]]:
        return server.chat_url, chat_content(self._settings.model, group, self._sampling)

    def _answer(self, group: Sequence[Request], body: bytes) -> list[Completion | Failure] | Spoilt:
        return read_answer(group, self._sampling, body)
