"""What the scripted judges of these tests say: functions of a request, named in configurations as module:function."""

from __future__ import annotations

import json
import os
import re
import time
from collections import Counter

from rlrf.records import Failure, Request

FIVE_WAYS = ("no reply", "cut off", "prose", "contradiction", "not applicable")
OUTAGE: list[bool] = [False]
"""Whether `up_and_down` is down."""

asked: Counter[str] = Counter()
"""How often each reply function was asked; a test that counts clears it."""


def number(request: Request) -> int:
    """The number of the response that is judged: the texts of these tests are 'response 7'."""
    found = re.findall(r"response (\d+)", request.messages[-1]["content"])
    return int(found[-1])


def verdict(rating: object, aspect: str = "logical_correctness") -> str:
    return json.dumps({aspect: {"comment": f"A comment on {rating}.", "rating": rating}})


def fair(request: Request) -> str:
    """Even numbers are a success, odd ones a failure."""
    asked["fair"] += 1
    return verdict(1 if number(request) % 2 == 0 else -1)


def strict(request: Request) -> str:
    """Multiples of four are a success, all others a failure."""
    asked["strict"] += 1
    return verdict(1 if number(request) % 4 == 0 else -1)


def failing(request: Request) -> str | Failure:
    """Three in ten of the replies say nothing, in five ways, however often they are asked for; the others are `fair`."""
    asked["failing"] += 1
    at = number(request)
    if at % 10 >= 3:
        return verdict(1 if at % 2 == 0 else -1)
    way = FIVE_WAYS[at // 10 % 5]
    return {
        "no reply": Failure("", "timeout", "no reply in 30 s"),
        "cut off": "It is " + "very " * 100_000 + "good.",
        "prose": "I would say that this is a success: 1 out of 1.",
        "contradiction": verdict(1) + "\n" + verdict(-1),
        "not applicable": verdict("N/A"),
    }[way]


def up_and_down(request: Request) -> str | Failure:
    """`fair`, but during an outage odd numbers get no reply, and number 2 gets prose."""
    asked["up_and_down"] += 1
    if OUTAGE[0] and number(request) % 2:
        return Failure("", "connection", "refused")
    if number(request) == 2:
        return "A fine answer."
    return fair(request)


def choosing(request: Request) -> str:
    """Names two aspects when it is asked to name some; rates those that it is asked to rate at the top."""
    text = request.messages[-1]["content"]
    if not re.search(r"response (\d+)", text):
        asked["chosen"] += 1
        return json.dumps({"readability": "It is for people.", "completeness": "It has two parts."})
    asked["rated"] += 1
    shown = re.findall(r'"(\w+)": \{"comment"', text)
    return json.dumps({name: {"comment": "Fine.", "rating": 1} for name in shown})


def slow(request: Request) -> str:
    """`fair`, slowly, and with a line in a file for each response that was judged."""
    time.sleep(float(os.environ["RLRF_TEST_SECONDS"]))
    with open(os.environ["RLRF_TEST_ASKED"], "a", encoding="utf-8") as file:
        file.write(f"{number(request)}\n")
    return fair(request)


def steady(request: Request) -> str:
    """A success, whatever it is."""
    return verdict(1)
