"""A real HTTP server on loopback that speaks the chat protocol and misbehaves on command.

The command is the head of the last message: "500,cut,ok: question 7" answers the first try with a 500, cuts the second
off, and answers the third and all later ones. A message without a command is answered. A request for several choices
is one try of its message.
"""

from __future__ import annotations

import asyncio
import json
import threading
from collections import Counter
from types import TracebackType
from typing import Any, Self

from rlrf.backends.endpoint.questions import PROBE
from tests.rlrf.backends.endpoint.bent_answers import bent_answer, good_answer

MODEL = "tiny-chat"
SLOW_SECONDS = 0.3
STRAY_SECONDS = 0.05

STATUSES = {"400", "401", "403", "404", "408", "429", "500", "503", "302"}


def whole_reply(status: int, payload: bytes, extra: str = "") -> bytes:
    """A well-formed HTTP reply; `extra` is more header lines."""
    lines = f"HTTP/1.1 {status} X\r\nContent-Type: application/json\r\n{extra}Content-Length: {len(payload)}\r\n\r\n"
    return lines.encode() + payload


def framed(behaviour: str, payload: bytes) -> bytes:
    """A 200 reply, bent as `behaviour` says where that is about HTTP itself."""
    match behaviour:
        case "chunked":
            half = len(payload) // 2
            chunks = b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in (payload[:half], payload[half:], b""))
            return b"HTTP/1.1 200 X\r\nTransfer-Encoding: chunked\r\n\r\n" + chunks
        case "closes":
            return whole_reply(200, payload, "Connection: close\r\n")
        case "doubled":
            return whole_reply(200, payload) * 2
        case "not_http":
            return b"220 mail.example ready\r\n" * 10
        case "cut":
            return whole_reply(200, payload)[: -len(payload) // 2]
    return whole_reply(200, payload)


class MisbehavingServer:
    """Serves in its own thread between `with` and its end; `asked` counts the tries per message, probes aside.

    `tells_tokens`: whether choices bear their token ids where they are asked for. `most_choices`: a request for more is
    refused. `always`: its behaviour whatever the message says. `most_at_once`: more are answered with 429. `guides`: whether schemas are honoured; `guides_objects_alone`: others than objects are refused.
    """

    def __init__(
        self,
        api_key: str | None = None,
        models: tuple[str, ...] = (MODEL,),
        can_tokenize: bool = True,
        tells_tokens: bool = True,
        most_choices: int = 128,
        guides: bool = True,
        guides_objects_alone: bool = False,
    ):
        self.api_key, self.models, self.can_tokenize = api_key, models, can_tokenize
        self.tells_tokens, self.most_choices = tells_tokens, most_choices
        self.guides, self.guides_objects_alone = guides, guides_objects_alone
        self.asked: Counter[str] = Counter()
        self.bodies: list[dict[str, Any]] = []
        self.probes: list[dict[str, Any]] = []
        self.in_flight = 0
        self.most_in_flight = 0
        self.retry_after = "0"
        self.die_after_answers: int | None = None
        self.always: str | None = None
        self.most_at_once: int | None = None
        self.dead = threading.Event()
        self._answers = 0
        self._port = 0
        self._connections: set[asyncio.StreamWriter] = set()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)

    @property
    def base_url(self) -> str:
        """Where clients find it."""
        return f"http://127.0.0.1:{self._port}/v1"

    def __enter__(self) -> Self:
        self._thread.start()
        self.listen()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.die()
        asyncio.run_coroutine_threadsafe(self._end_handlers(), self._loop).result(5)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(5)
        self._loop.close()

    def listen(self) -> None:
        """Accept connections; after `die`, on the same port."""
        asyncio.run_coroutine_threadsafe(self._listen(), self._loop).result(5)

    def die(self) -> None:
        """Drop every connection and refuse new ones, as a killed process does."""
        asyncio.run_coroutine_threadsafe(self._die(), self._loop).result(5)

    async def _listen(self) -> None:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self._port, backlog=512)
        self._port = self._server.sockets[0].getsockname()[1]

    async def _die(self) -> None:
        self.dead.set()
        self._server.close()
        for writer in self._connections:
            writer.transport.abort()

    async def _end_handlers(self) -> None:
        handlers = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
        for task in handlers:
            task.cancel()
        await asyncio.gather(*handlers, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._connections.add(writer)
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                line, _, rest = head.decode("latin-1").partition("\r\n")
                headers = dict(field.lower().split(": ", 1) for field in rest.split("\r\n") if field)
                body = await reader.readexactly(int(headers.get("content-length", 0)))
                self.in_flight += 1
                self.most_in_flight = max(self.most_in_flight, self.in_flight)
                try:
                    await self._answer(line.split()[1], rest, body, reader, writer)
                finally:
                    self.in_flight -= 1
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            self._connections.discard(writer)
            writer.close()

    async def _answer(
        self, path: str, head: str, body: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        if self.api_key is not None and f"authorization: bearer {self.api_key}" not in head.lower():
            return await self._send(writer, 401, {"error": {"message": f"wrong key in {head}"}})
        match path:
            case "/v1/models":
                await self._send(writer, 200, {"data": [{"id": model} for model in self.models]})
            case "/tokenize" if self.can_tokenize:
                await self._send(writer, 200, {"count": sum(len(m["content"]) for m in json.loads(body)["messages"])})
            case "/v1/chat/completions":
                await self._chat(json.loads(body), reader, writer)
            case _:
                await self._send(writer, 404, {"detail": "Not Found"})

    async def _chat(self, body: dict[str, Any], reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        message = body["messages"][-1]["content"]
        refusal = self._refusal(body)
        behaviours = message.partition(":")[0].split(",") if ":" in message else ["ok"]
        behaviour = behaviours[min(self.asked[message], len(behaviours) - 1)]
        if message == PROBE:
            self.probes.append(body)
        else:
            self.asked[message] += 1
            self.bodies.append(body)
            behaviour = "404" if body["model"] not in self.models else self.always or behaviour
            if self.most_at_once is not None and self.in_flight > self.most_at_once:
                behaviour = "429"
        if refusal:
            return await self._send(writer, 400, {"error": {"message": refusal}})
        answer = good_answer(body, self.tells_tokens, self.guides)
        if behaviour == "hang":
            await reader.read(1)  # ends when the client hangs up
        elif behaviour == "stray":
            await self._send(writer, 429, {})
            await asyncio.sleep(STRAY_SECONDS)
            writer.write(whole_reply(200, bent_answer("abort", answer, message)))
        elif behaviour == "endless":
            await self._send_without_end(writer)
        elif behaviour in STATUSES:
            await self._send(writer, int(behaviour), {"error": {"message": f"status {behaviour} on command"}})
        else:
            await asyncio.sleep(SLOW_SECONDS if behaviour == "slow" else 0)
            writer.write(framed(behaviour, bent_answer(behaviour, answer, message)))
            await writer.drain()
            if behaviour in ("cut", "closes"):
                writer.close()
            if behaviour == "ok" and message != PROBE:
                self._answers += 1
                if self._answers == self.die_after_answers:
                    await self._die()

    def _refusal(self, body: dict[str, Any]) -> str | None:
        """What vLLM and some providers say to requests that they don't take."""
        schema = body.get("response_format", {}).get("json_schema", {}).get("schema")
        if body["n"] > 1 and not body["temperature"]:
            return f"n must be 1 when using greedy sampling, got {body['n']}."
        if body["n"] > self.most_choices:
            return f"n must be at most {self.most_choices}"
        if schema is not None and self.guides_objects_alone and schema["type"] != "object":
            return "schema must be of type object"
        return None

    async def _send_without_end(self, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 X\r\nTransfer-Encoding: chunked\r\n\r\n")
        while not writer.is_closing():
            writer.write(b"100000\r\n%b\r\n" % (b" " * 0x100000))
            await writer.drain()

    async def _send(self, writer: asyncio.StreamWriter, status: int, payload: dict[str, Any]) -> None:
        extra = f"Retry-After: {self.retry_after}\r\n" if status in (429, 503) else ""
        extra += "Location: http://127.0.0.1:9/v1\r\n" if status == 302 else ""
        writer.write(whole_reply(status, json.dumps(payload).encode(), extra))
        await writer.drain()
