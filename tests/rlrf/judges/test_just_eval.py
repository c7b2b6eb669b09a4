"""What a real judge wrote, and what can happen to it on its way: 500 replies that just-eval's authors read themselves."""

from __future__ import annotations

import ast
import json
import random
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from rlrf.judges.reply import parse
from rlrf.rubric import load_rubric

ROOT = Path(__file__).parents[3]
EXCERPT = ROOT / "tests/data/just_eval_replies.jsonl"
WHOLE = ROOT.parent / "shared/data/just_eval/judge_replies.jsonl"

RUBRIC = load_rubric("just_eval")
Levels = dict[str, int | None]
Entries = dict[str, dict[str, Any]]


def rows() -> list[tuple[str, Levels, Entries]]:
    """Replies, what their authors' parse says of each aspect (None where it is no number), and the parse."""
    found = []
    with (WHOLE if WHOLE.exists() else EXCERPT).open(encoding="utf-8") as file:
        for line in file:
            row = json.loads(line)
            parsed = ast.literal_eval(row["parsed"]) if isinstance(row["parsed"], str) else row["parsed"]
            truth = {name: int(one["score"]) if str(one["score"]).isdigit() else None for name, one in parsed.items()}
            found.append((row["judge_reply"], truth, parsed))
    return found


ROWS = rows()


def test_every_reply_is_read_as_its_authors_read_it() -> None:
    assert len(ROWS) == (500 if WHOLE.exists() else 12)
    unrated = 0
    for reply, truth, parsed in ROWS:
        ratings, reason = parse(reply, RUBRIC)
        assert {rating.aspect: rating.rating for rating in ratings} == truth
        assert [rating.critique for rating in ratings] == [parsed[name]["reason"].strip() for name in RUBRIC.names]
        missing = [name for name in RUBRIC.names if truth[name] is None]
        expected = ", ".join(f"{name} ('N/A')" for name in missing)
        assert reason == (f"unrated_aspects: {expected}" if missing else None)
        unrated += len(missing)
    assert unrated == (27 if WHOLE.exists() else 6)


def other(entries: Entries) -> Entries:
    """The same with every rating another."""
    return {name: {**one, "score": "1" if one["score"] == "5" else "5"} for name, one in entries.items()}


def reordered(entries: Entries, draw: random.Random) -> Entries:
    names = draw.sample(sorted(entries), len(entries))
    return {name: dict(reversed(entries[name].items())) for name in names}


def number(score: str) -> int | str:
    return int(score) if score.isdigit() else score


def inserted(text: str, at: int, piece: str) -> str:
    return text[:at] + piece + text[at:]


Mutilation = Callable[[str, Entries, random.Random], str]
READ: dict[str, Mutilation] = {
    "fence": lambda text, _, __: f"```json\n{text}\n```",
    "fence in prose": lambda text, _, __: f"Here you are:\n\n```\n{text}\n```\nAsk me if you like!",
    "prose": lambda text, _, __: f"Let me see.\n{text}\nThat is all.",
    "prose with braces": lambda text, _, __: f"Sets such as {{1, 2}} and \\frac{{a}}{{b}} are right.\n{text}",
    "byte order mark": lambda text, _, __: f"\ufeff{text}",
    "line ends of Windows": lambda text, _, __: text.replace("\n", "\r\n"),
    "other order": lambda _, entries, draw: json.dumps(reordered(entries, draw)),
    "numbers": lambda _, entries, __: json.dumps(
        {name: {**one, "score": number(one["score"])} for name, one in entries.items()}
    ),
    "shares": lambda _, entries, __: json.dumps(
        {name: {**one, "score": f"{one['score']}/5".replace("N/A/5", "N/A")} for name, one in entries.items()}
    ),
    "other words": lambda _, entries, __: json.dumps(
        {name.upper(): {"Comment": one["reason"], "Rating": one["score"]} for name, one in entries.items()}
    ),
    "of Python": lambda _, entries, __: repr(entries),
    "trailing commas": lambda text, _, __: text.replace('"\n', '",\n').replace("}\n", "},\n"),
    "said twice": lambda text, _, __: f"{text}\nTo say it again:\n{text}",
    "a string of JSON": lambda text, _, __: json.dumps(text),
    "with thoughts": lambda text, _, __: f"<think>Depth: perhaps 3, or 5.</think>{text}",
}
SAFE: dict[str, Mutilation] = {
    "cut off": lambda text, _, draw: text[: draw.randrange(len(text))],
    "its head is lost": lambda text, _, draw: text[draw.randrange(1, len(text)) :],
    "a piece is lost": lambda text, _, draw: (
        text[: (at := draw.randrange(len(text)))] + text[at + draw.randrange(1, 40) :]
    ),
    "cut off and begun anew": lambda text, _, draw: text[: draw.randrange(len(text))] + "\n" + text,
    "a brace more": lambda text, _, draw: inserted(text, draw.randrange(len(text)), draw.choice("{}")),
    "a quote more": lambda text, _, draw: inserted(text, draw.randrange(len(text)), draw.choice("\"'")),
    "contradicted": lambda text, entries, _: f"{text}\nNo, rather:\n{json.dumps(other(entries))}",
    "an earlier object": lambda text, entries, _: f"{json.dumps(other(entries))}\n{text}",
    "quoted inside": lambda text, entries, draw: inserted(text, draw.randrange(len(text)), json.dumps(other(entries))),
    "quoted in a sentence": lambda text, entries, draw: (
        f"It says {json.dumps(other(entries))}, but\n{text[: draw.randrange(len(text))]}"
    ),
    "two entries run together": lambda text, _, draw: re.sub(
        r'": "\d"\s+},\s+"\w+": {\s+"r', "", text, count=draw.randrange(1, 4)
    ),
    "a key twice": lambda text, _, __: text.replace('"clarity": {', '"clarity": {"score": 1}, "clarity": {'),
    "a second rating": lambda text, _, __: text.replace('"score"', '"rating": "1", "score"'),
}


def test_there_are_twenty_mutilations_and_more() -> None:
    assert len(READ | SAFE) >= 20


@pytest.mark.parametrize("name", READ)
def test_dressing_makes_no_difference(name: str) -> None:
    draw = random.Random(name)
    for reply, truth, entries in ROWS:
        ratings, _ = parse(READ[name](reply, entries, draw), RUBRIC)
        assert {rating.aspect: rating.rating for rating in ratings} == truth


@pytest.mark.parametrize("name", SAFE)
def test_what_is_damaged_is_never_read_as_another_rating(name: str) -> None:
    draw = random.Random(name)
    read = 0
    for reply, truth, entries in ROWS:
        damaged = SAFE[name](reply, entries, draw)
        ratings, reason = parse(damaged, RUBRIC)
        assert all(rating.rating in (None, truth[rating.aspect]) for rating in ratings), damaged
        assert reason is not None or all(rating.rating is not None for rating in ratings)
        read += reason is None
    assert read < len(ROWS)


@pytest.mark.parametrize("dressing", READ)
@pytest.mark.parametrize("damage", SAFE)
def test_damage_under_dressing(dressing: str, damage: str) -> None:
    draw = random.Random(dressing + damage)
    for reply, truth, entries in draw.sample(ROWS, min(len(ROWS), 8)):
        text = READ[dressing](reply, entries, draw)
        ratings, _ = parse(SAFE[damage](text, entries, draw), RUBRIC)
        assert all(rating.rating in (None, truth[rating.aspect]) for rating in ratings), text
