"""A real HTTP server on loopback that speaks vLLM's `/classify` and misbehaves on command.

As in misbehaving_server, the command is the head of the response: "500,ok: text" answers the first try with a 500.
"""

from __future__ import annotations

import asyncio
import json
from typing import Any

from rlrf.backends.reward.endpoint import PROBE_CHAT
from tests.rlrf.backends.endpoint.misbehaving_server import STATUSES, MisbehavingServer, framed, whole_reply

CONTEXT = 200
"""Characters of a chat at most; one of them is a token."""


def reward_of(text: str) -> float:
    """What the server gives, a number below 0 or above 1."""
    return -2.5 - len(text)


class RewardServer(MisbehavingServer):
    """`outputs`: how many numbers the model has. `knows_activation`: whether it can be told to apply none.

    `classifies`: whether it is a pooling server at all.
    """

    outputs = 1
    knows_activation = True
    classifies = True

    async def _answer(
        self, path: str, head: str, body: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        if path != "/classify" or not self.classifies:
            return await super()._answer(path, head, body, reader, writer)
        if self.api_key is not None and f"authorization: bearer {self.api_key}" not in head.lower():
            return await self._send(writer, 401, {"error": {"message": f"wrong key in {head}"}})
        await self._classify(json.loads(body), reader, writer)

    async def _classify(self, body: dict[str, Any], reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        text = body["messages"][-1]["content"]
        tokens = sum(len(message["content"]) for message in body["messages"])
        if self.knows_activation and not isinstance(body["use_activation"], bool):
            return await self._send(writer, 400, {"error": {"message": "no boolean", "param": "body.use_activation"}})
        if tokens > CONTEXT:
            words = f"This model's maximum context length is {CONTEXT} tokens."
            return await self._send(writer, 400, {"error": {"message": words, "param": "input_tokens"}})
        raw = self.knows_activation and body["use_activation"] is False
        probs: list[Any] = [reward_of(text) if raw else 0.07] * self.outputs
        data: Any = [{"index": 0, "label": "LABEL_0", "probs": probs, "num_classes": self.outputs}]
        answer = {"data": data, "usage": {"prompt_tokens": tokens}}
        behaviours = text.partition(":")[0].split(",") if ":" in text else ["ok"]
        behaviour = behaviours[min(self.asked[text], len(behaviours) - 1)]
        if text != PROBE_CHAT[-1]["content"]:
            self.asked[text] += 1
            self.bodies.append(body)
        if behaviour == "hang":
            await reader.read(1)  # ends when the client hangs up
        elif behaviour in STATUSES:
            await self._send(writer, int(behaviour), {"error": {"message": f"status {behaviour} on command"}})
        else:
            writer.write(
                whole_reply(200, bent) if (bent := _bent(behaviour, answer)) else framed(behaviour, _json(answer))
            )
            await writer.drain()
            if behaviour in ("cut", "closes"):
                writer.close()


def _bent(behaviour: str, answer: dict[str, Any]) -> bytes | None:
    """The body that a misbehaviour stands for, None where it is about HTTP itself."""
    row = answer["data"][0]
    bodies: dict[str, Any] = {
        "nan": answer | {"data": [row | {"probs": [float("nan")]}]},
        "inf": answer | {"data": [row | {"probs": [float("-inf")]}]},
        "vast": answer | {"data": [row | {"probs": [10**400]}]},
        "text": answer | {"data": [row | {"probs": ["1.5"]}]},
        "true": answer | {"data": [row | {"probs": [True]}]},
        "null": answer | {"data": [row | {"probs": [None]}]},
        "pair": answer | {"data": [row | {"probs": [0.5, 0.5]}]},
        "number": answer | {"data": [row | {"probs": 0.5}]},
        "two_rows": answer | {"data": [row, row]},
        "no_rows": answer | {"data": []},
        "no_data": {"usage": answer["usage"]},
        "list": [answer],
        "no_usage": {"data": answer["data"]},
        "minus_usage": answer | {"usage": {"prompt_tokens": -1}},
    }
    if behaviour == "garbage":
        return b"<html>gateway</html>"
    if behaviour == "not_utf8":
        return b"\xff\xfe{}"
    if behaviour == "nested":
        return b"[" * 100_000
    return _json(bodies[behaviour]) if behaviour in bodies else None


def _json(value: Any) -> bytes:
    return json.dumps(value).encode()
