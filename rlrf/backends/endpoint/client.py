"""One question to one server over HTTP: the reply, or whose fault it is that there is none."""

from __future__ import annotations

import asyncio
import email.utils
import json
import math
import random
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from typing import Any

import aiohttp
from yarl import URL

from rlrf.backends.endpoint.answers import DETAIL_CHARS, MAX_ANSWER_BYTES
from rlrf.backends.endpoint.deadlines import Deadlines
from rlrf.backends.endpoint.settings import EndpointSettings
from rlrf.errors import BackendError

CONNECT_SECONDS = 10.0
IDLE_SECONDS = 0.1
"""A connection is used again at once or never: a server may drop an idle one while a request is on its way to it, and
what it says unasked on an idle one would pass for the next answer (aiohttp issue 13656)."""
FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS = 0.5, 60.0


class NotNow(Exception):
    """The server takes no requests for the time being."""

    def __init__(self, detail: str, retry_after: float | None = None) -> None:
        super().__init__(detail)
        self.retry_after = retry_after


class Unreachable(NotNow):
    """There is no connection to be had with the server."""


class WentWrong(Exception):
    """One try failed after the server took it."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason


@dataclass(frozen=True, slots=True)
class Reply:
    """One HTTP reply, its body cut off after MAX_ANSWER_BYTES + 1."""

    status: int
    body: bytes
    retry_after: str = ""

    def message(self) -> str:
        """The server's words for an error: its JSON `error.message`, `message` or `detail`, else the body as it is."""
        try:
            content = json.loads(self.body)
            error = content.get("error") or content
            words = error if isinstance(error, str) else error.get("message") or error.get("detail")
        except (ValueError, AttributeError, RecursionError):
            words = None
        return words if isinstance(words, str) else self.body.decode("utf-8", errors="replace")


@asynccontextmanager
async def open_session(settings: EndpointSettings) -> AsyncIterator[aiohttp.ClientSession]:
    """Connections to any server, which end with the block. The environment's proxies and passwords are not used."""
    connector = aiohttp.TCPConnector(limit=0, keepalive_timeout=IDLE_SECONDS)  # each server's Limit is the limit
    deadline = aiohttp.ClientTimeout(sock_connect=CONNECT_SECONDS)  # `ask` has that of the whole try, at less cost
    headers = {"Content-Type": "application/json", "Accept-Encoding": "identity"}
    if settings.key:
        headers["Authorization"] = f"Bearer {settings.key}"
    jar = aiohttp.DummyCookieJar()
    async with aiohttp.ClientSession(
        connector=connector, headers=headers, cookie_jar=jar, timeout=deadline, trust_env=False
    ) as session:
        yield session


class EndpointClient:
    """Asks one server, as often at once as it is told to."""

    def __init__(self, settings: EndpointSettings, base_url: str, session: aiohttp.ClientSession) -> None:
        self.base_url = base_url
        self._settings, self._session = settings, session
        self._deadlines = Deadlines()
        self._urls: dict[str, URL] = {}

    async def ask(self, method: str, url: str, content: Any = None, *, seconds: float) -> Reply:
        """One try, of at most `seconds`. Returns 2xx and refusals of this one request.

        Raises:
            NotNow, WentWrong: what may pass.
            BackendError: the server is not what was configured.
        """
        address = self._urls.get(url) or self._urls.setdefault(url, URL(url))
        body = None if content is None else json.dumps(content).encode()
        try:
            with self._deadlines.of(seconds):
                async with self._session.request(method, address, data=body, allow_redirects=False) as response:
                    reply = Reply(response.status, await _read(response))
                    if reply.status != 200:
                        reply = replace(reply, retry_after=response.headers.get("Retry-After", ""))
        except (aiohttp.ClientError, TimeoutError) as error:
            fault = self._fault(error, seconds)
        else:
            if not 200 <= reply.status < 300:
                self._raise_for_status(reply, url)
            return reply
        raise fault  # not from within the handler: aiohttp's errors hold the request's headers, and those the key

    async def ask_patiently(self, method: str, url: str, content: Any = None, *, seconds: float) -> Reply:
        """Up to `retries` more tries, for questions that are about no row. Raises BackendError."""
        for tries in range(self._settings.asking.retries + 1):
            try:
                return await self.ask(method, url, content, seconds=seconds)
            except (NotNow, WentWrong) as error:
                detail = str(error)
            if tries < self._settings.asking.retries:
                await asyncio.sleep(pause_seconds(tries))
        raise BackendError(f"{url!r} unreachable in {tries + 1} tries ({detail}); start it or correct it")

    def said(self, reply: Reply) -> str:
        """The server's words, without the key, cut to DETAIL_CHARS."""
        return self.without_key(reply.message())[:DETAIL_CHARS]

    def without_key(self, words: str) -> str:
        """What a server says, for errors and failures: it may say the key that it was told."""
        key = self._settings.key
        return words.replace(key, "[API key]") if key else words

    def _fault(self, error: Exception, seconds: float) -> Exception:
        """What an error of aiohttp means."""
        detail = f"{type(error).__name__}: {error}"
        match error:
            case aiohttp.ClientConnectorCertificateError():
                return BackendError(
                    f"{self.base_url!r} shows a certificate that is not trusted ({detail}); "
                    "correct the address, or name its authority in SSL_CERT_FILE"
                )
            case aiohttp.ClientConnectorError() | aiohttp.ConnectionTimeoutError() | aiohttp.InvalidURL():
                return Unreachable(detail)
            case TimeoutError():
                return WentWrong("timeout", f"no answer within {seconds} s")
        return WentWrong("cut_off", detail)

    def _raise_for_status(self, reply: Reply, url: str) -> None:
        status, detail = reply.status, f"status {reply.status}: {self.said(reply)}"
        if status in (429, 503):
            raise NotNow(detail, wait_seconds(reply.retry_after))
        if status >= 500 or status in (
            408,
            409,
            425,
        ):  # too slow, in conflict, too early: no word on the request itself
            raise WentWrong("server_error", detail)
        if 300 <= status < 400 or status in (401, 403, 404):
            raise BackendError(
                f"{url!r} answers for model {self._settings.model!r} with {detail!r}; "
                "correct base_url (it ends in /v1), model or API key"
            )


async def _read(response: aiohttp.ClientResponse) -> bytes:
    if (
        response.content_length or MAX_ANSWER_BYTES + 1
    ) <= MAX_ANSWER_BYTES and "Content-Encoding" not in response.headers:
        return await response.read()
    body = bytearray()
    async for part in response.content.iter_any():
        body += part
        if len(body) > MAX_ANSWER_BYTES:
            break
    return bytes(body[: MAX_ANSWER_BYTES + 1])


def wait_seconds(retry_after: str) -> float | None:
    """Seconds that a Retry-After header asks the client to wait (RFC 9110, 10.2.3), or None where it names no time."""
    try:
        seconds = float(retry_after)
    except ValueError:
        try:
            seconds = email.utils.parsedate_to_datetime(retry_after).timestamp() - time.time()
        except (ValueError, OverflowError):
            return None
    return max(0.0, seconds) if math.isfinite(seconds) else None


def pause_seconds(tries: int, retry_after: float | None = None) -> float:
    """How long to wait after `tries` earlier pauses: what the server asks for, else twice as long each time; jittered.

    Without `retry_after`, between FIRST_PAUSE_SECONDS / 2 and LONGEST_PAUSE_SECONDS.
    """
    if retry_after is None:
        return min(LONGEST_PAUSE_SECONDS, FIRST_PAUSE_SECONDS * 2.0 ** min(tries, 30)) * random.uniform(0.5, 1.0)
    return retry_after * random.uniform(1.0, 1.1)
