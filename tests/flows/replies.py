"""What the scripted engine answers in these tests: functions of a request, named in configurations as module:function."""

from __future__ import annotations

import json
import os
import random
import re
import time
from collections import Counter
from functools import cache

from rlrf.records import Failure, Request
from rlrf.word_problems import WordProblem
from tests.builders import problems

HOSTILE = "[bold]x[/] nul \0 \x1b[31mred\x1b[0m \x1b]0;title\x07 <script>alert(1)</script> {{ 7 * 7 }} \u202eevil\u200b"
SECONDS = "RLRF_TEST_SECONDS"
ASKED = "RLRF_TEST_ASKED"

times_asked: Counter[str] = Counter()
"""How often `improving` and `failing_once` were asked each held-out question; a test that uses them clears it."""


@cache
def _known() -> dict[str, WordProblem]:
    return {one.question: one for split in ("prompts", "held_out") for one in problems(split)}


@cache
def _held_out() -> frozenset[str]:
    return frozenset(one.question for one in problems("held_out"))


def right(request: Request) -> str:
    """Always the worked solution."""
    return _known()[request.messages[0]["content"]].solution


def wrong(request: Request) -> str:
    """Never a right result, never a right answer."""
    return right(request).replace("= ", "= 1").replace("#### ", "#### 1")


def mixed(request: Request) -> str:
    """Right four times in ten, refinements seven times; which ones is a matter of the seed."""
    share = 0.7 if len(request.messages) > 1 else 0.4
    return right(request) if random.Random(request.seed).random() < share else wrong(request)


def slow(request: Request) -> str:
    """`mixed`, slowly, and with a line in a file for each request that was answered."""
    time.sleep(float(os.environ[SECONDS]))
    with open(os.environ[ASKED], "a", encoding="utf-8") as file:
        file.write(request.request_id + "\n")
    return mixed(request)


def improving(request: Request) -> str:
    """Held-out questions are answered right from the second policy on; everything else is `mixed`."""
    question = request.messages[0]["content"]
    if question not in _held_out():
        return mixed(request)
    times_asked[question] += 1
    return right(request) if times_asked[question] > 1 else wrong(request)


def failing_once(request: Request) -> str | Failure:
    """`improving`, but the first held-out question gets no answer from the first policy."""
    reply = improving(request)
    first = min(_held_out())
    if request.messages[0]["content"] == first and times_asked[first] == 1:
        return Failure("", "server_error", "500 internal error")
    return reply


def failing(request: Request) -> str | Failure:
    """One request in four yields nothing."""
    return Failure("", "server_error", "500 internal error") if request.seed % 4 == 0 else mixed(request)


def steering(request: Request) -> str:
    """`mixed`, with wrong answers that are longer and try to steer the terminal."""
    text = mixed(request)
    return text if text == right(request) else f"{HOSTILE}\n{text}"


def hostile(request: Request) -> str:
    """Text that would harm a careless reader: markup, terminal escapes, HTML, templates, direction marks."""
    return HOSTILE if request.messages[0]["content"] not in _held_out() else right(request)


revisions: list[Request] = []
"""What `teaching` was asked; a test that uses it clears it."""


def teaching(request: Request) -> str:
    """A teacher: `mixed`, and remembers what it was asked."""
    revisions.append(request)
    return mixed(request)


answered: Counter[str] = Counter()
"""What `rambling` and `rating` were asked: explored, refined, exam; judged (calls) and ratings (aspects). A test that uses them clears it."""


def rambling(request: Request) -> str:
    """`mixed`, but three in ten go on for 40 words before they say anything; counted by what was asked."""
    question = request.messages[0]["content"]
    answered["refined" if len(request.messages) > 1 else "exam" if question in _held_out() else "explored"] += 1
    text = mixed(request)
    return "well, " * 40 + text if random.Random(request.seed + 1).random() < 0.3 else text


def rating(request: Request) -> str:
    """A rubric judge's reply on the aspects that it is asked for: a matter of the question's seed."""
    answered["judged"] += 1
    aspects = re.findall(r'"(\w+)": \{"comment"', request.messages[-1]["content"])
    answered["ratings"] += len(aspects)
    drawn = {aspect: random.Random(f"{aspect} {request.seed}").choice((-1, 1, 1)) for aspect in aspects}
    return json.dumps({aspect: {"comment": f"It is {level}.", "rating": level} for aspect, level in drawn.items()})
