"""A scripted judge that knows the right ratings and fails a share of its calls, in five ways."""

from __future__ import annotations

import json
import random
import re
from collections import Counter

from rlrf.backends.scripted import ScriptedGenerator
from rlrf.records import Case, Failure, Request
from rlrf.rubric import Rubric

WAYS = ("no reply", "cut off", "prose only", "contradiction", "off the scale")


def cases(count: int, aspects: tuple[str, ...] = ()) -> list[Case]:
    """Responses that are right by their number."""
    return [
        Case(f"r{at}", ({"role": "user", "content": f"What is {at} + 1?"},), None, str(at + 1), aspects=aspects)
        for at in range(count)
    ]


def truth(rubric: Rubric, response_id: str, aspect: str) -> int:
    """What the judge thinks of an aspect, if it gets to say it."""
    low, high = rubric.scale
    return random.Random(f"{response_id} {aspect}").randint(low, high)


class Unreliable:
    """Replies for a ScriptedGenerator; `calls` counts them by response."""

    def __init__(self, rubric: Rubric, share: float, ways: tuple[str, ...] = WAYS, choose: int = 1) -> None:
        self.calls: Counter[str] = Counter()
        self.failed = 0
        self._rubric, self._share, self._ways, self._choose = rubric, share, ways, choose

    def generator(self, batch_size: int = 8) -> ScriptedGenerator:
        return ScriptedGenerator(self.reply, batch_size=batch_size)

    def reply(self, request: Request) -> str | Failure:
        response_id = request.request_id.partition(":")[0]
        self.calls[response_id] += 1
        draw = random.Random(f"{request.request_id} {request.seed}")
        names = asked_for(request) or draw.sample(self._rubric.names, self._choose)
        right = {name: self.entry(truth(self._rubric, response_id, name)) for name in names}
        if draw.random() >= self._share:
            return f"Let me see.\n```json\n{json.dumps(right)}\n```"
        self.failed += 1
        return self._spoilt(draw, right)

    def entry(self, rating: object) -> dict[str, object]:
        return {"comment": f"I say {rating}.", "rating": rating}

    def _spoilt(self, draw: random.Random, right: dict[str, dict[str, object]]) -> str | Failure:
        low, high = self._rubric.scale
        name = draw.choice(sorted(right))
        wrong = high if right[name]["rating"] == low else low
        match draw.choice(self._ways):
            case "no reply":
                return Failure("", "timeout", "no answer within 60 s")
            case "cut off":
                return json.dumps(right)[: -draw.randrange(1, 30)] + " and on" * 100_000
            case "prose only":
                return f"All in all I would give it {high}, no doubt."
            case "contradiction":
                return f"{json.dumps(right)}\nOr rather:\n{json.dumps({**right, name: self.entry(wrong)})}"
            case _:
                return json.dumps({**right, name: self.entry(draw.choice(["N/A", high + 1, low - 1, None, True]))})


def asked_for(request: Request) -> list[str]:
    """The aspects in the form that a question shows; none where the judge is to name them."""
    return re.findall(r'"(\w+)": \{"comment": "\.\.\."', request.messages[-1]["content"])
