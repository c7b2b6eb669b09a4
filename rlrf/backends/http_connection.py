"""One keep-alive HTTP/1.1 connection, on asyncio and h11.

An endpoint's worker owns its connection, so no pool is needed. httpx's pool looks at every connection for every
request: with 64 in flight it costs about 20 times the CPU time of this module. h11 is httpx's own parser.
Not here: redirects, proxies, cookies, compression. An endpoint needs none of them.
"""

from __future__ import annotations

import asyncio
import email.utils
import json
import math
import ssl
import time
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import urlsplit

import h11

from rlrf.errors import BackendError

CONNECT_SECONDS = 10.0
ANY_REQUEST, END = h11.Request(method="POST", target="/", headers=[("Host", "any")]), h11.EndOfMessage()
"""What h11 must think was sent before it reads a reply. Spelling the real request through it would cost 11 us more."""


class NotConnected(Exception):
    """No connection came about: refused, no route, no such host."""


class CutOff(Exception):
    """The connection ended before the reply did, or the reply was not HTTP."""


@dataclass(frozen=True, slots=True)
class Reply:
    """One whole HTTP reply; header names in lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    def message(self) -> str:
        """The server's words for an error: its JSON `error.message`, `message` or `detail`, else the body as it is."""
        try:
            content = json.loads(self.body)
            error = content.get("error") or content
            words = error if isinstance(error, str) else error.get("message") or error.get("detail")
        except (ValueError, AttributeError, RecursionError):
            words = None
        return words if isinstance(words, str) else self.body.decode("utf-8", errors="replace")

    def retry_after(self) -> float | None:
        """Seconds that the server asks the client to wait (RFC 9110, 10.2.3), or None where it names no usable time."""
        value = self.headers.get("retry-after", "").strip()
        try:
            seconds = float(value)
        except ValueError:
            try:
                seconds = email.utils.parsedate_to_datetime(value).timestamp() - time.time()
            except (ValueError, OverflowError):
                return None
        return max(0.0, seconds) if math.isfinite(seconds) else None


class HttpConnection:
    """Sends one request at a time to one origin; opens itself when needed and closes itself after any error.

    The caller vouches that address, path and header values are printable ASCII: they are sent as they are.
    """

    def __init__(self, base_url: str, headers: Mapping[str, str]) -> None:
        url = urlsplit(base_url)
        self._host, self._tls = url.hostname or "", url.scheme == "https"
        self._port = url.port or (443 if self._tls else 80)
        self._origin = f"{url.scheme}://{url.netloc}"
        fields = {"Host": url.netloc, "Content-Type": "application/json", **headers}
        self._fields = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
        self._wire: _Wire | None = None

    async def send(self, method: str, path: str, body: bytes = b"") -> Reply:
        """One exchange. Raises NotConnected or CutOff; BackendError where the server's certificate is not trusted."""
        if self._wire is None or not self._wire.is_open:
            self._wire = await self._open()
        head = f"{method} {path} HTTP/1.1\r\n{self._fields}Content-Length: {len(body)}\r\n\r\n"
        try:
            return await self._wire.exchange(head.encode("ascii") + body)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Drop the connection at once; the server sees the client hang up. May be called twice."""
        if self._wire is not None:
            self._wire.abort()
            self._wire = None

    async def _open(self) -> _Wire:
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(CONNECT_SECONDS):
                context = ssl.create_default_context() if self._tls else None
                _, wire = await loop.create_connection(_Wire, self._host, self._port, ssl=context)
        except ssl.SSLCertVerificationError as error:
            raise BackendError(
                f"{self._origin!r} shows a certificate that is not trusted ({error.verify_message}); "
                "correct the address, or name its authority in SSL_CERT_FILE"
            ) from error
        except OSError as error:
            raise NotConnected(str(error) or f"no connection within {CONNECT_SECONDS:.0f} s") from error
        return wire


class _Wire(asyncio.Protocol):
    """One TCP or TLS connection, from its opening to its end; the event loop calls the public methods of Protocol."""

    def __init__(self) -> None:
        self.is_open = False
        self._http = h11.Connection(h11.CLIENT)
        self._reply: asyncio.Future[Reply] | None = None
        self._start: h11.Response | None = None
        self._chunks: list[bytes] = []

    async def exchange(self, request: bytes) -> Reply:
        """Send a request and wait for its whole reply. Raises CutOff."""
        self._start, self._chunks = None, []
        self._reply = asyncio.get_running_loop().create_future()
        self._http.send(ANY_REQUEST)
        self._http.send(END)
        self._transport.write(request)
        return await self._reply

    def abort(self) -> None:
        """Drop the connection without a farewell; may be called twice."""
        self.is_open = False
        self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport, self.is_open = transport, True

    def data_received(self, data: bytes) -> None:
        if self._reply is None or self._reply.done():  # nobody asked: it would pass for the next request's answer
            self.abort()
        else:
            self._receive(data)

    def eof_received(self) -> None:
        self.is_open = False
        self._receive(b"")

    def connection_lost(self, error: Exception | None) -> None:
        self.is_open = False
        self._fail(error or ConnectionResetError("the server hung up"))

    def _receive(self, data: bytes) -> None:
        try:
            self._http.receive_data(data)
            while isinstance(event := self._http.next_event(), h11.Event):
                self._take(event)
                if isinstance(event, (h11.EndOfMessage, h11.ConnectionClosed)):
                    break
        except h11.RemoteProtocolError as error:
            self._fail(error)

    def _take(self, event: h11.Event) -> None:
        if isinstance(event, h11.Response):
            self._start = event
        elif isinstance(event, h11.Data):
            self._chunks.append(bytes(event.data))
        elif isinstance(event, h11.EndOfMessage):
            self._finish()

    def _finish(self) -> None:
        assert self._start is not None
        assert self._reply is not None
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in self._start.headers}
        if not self._reply.done():
            self._reply.set_result(Reply(self._start.status_code, headers, b"".join(self._chunks)))
        if self._http.their_state is h11.DONE and not self._http.trailing_data[0]:
            self._http.start_next_cycle()
        else:
            self.abort()

    def _fail(self, error: Exception) -> None:
        if self._reply is not None and not self._reply.done():
            self._reply.set_exception(CutOff(f"{type(error).__name__}: {error}"))
