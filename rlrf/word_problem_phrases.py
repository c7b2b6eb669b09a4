"""The wording of the word problems: names, things and sentence patterns, filled in with `str.format`."""

from __future__ import annotations

NAMES = (
    *("Ada", "Ben", "Cleo", "Dan", "Emma", "Finn", "Gita", "Hugo", "Ines", "Jon", "Kaya", "Leo", "Mina", "Noah"),
    *("Olga", "Paul", "Quinn", "Rosa", "Sam", "Tara", "Umar", "Vera", "Wen", "Yara", "Zoe", "Amir", "Bela", "Carl"),
)

THINGS = (
    *("apples", "books", "coins", "stamps", "marbles", "pencils", "stickers", "shells", "cards", "buttons"),
    *("cookies", "plums", "ribbons", "stones", "badges", "beads", "lemons", "postcards", "tickets", "seeds"),
    *("candles", "bricks", "flowers", "keys"),
)

OPENINGS = (
    "{name} has {number} {things}.",
    "{name} starts with {number} {things}.",
    "{name} owns {number} {things}.",
    "{name} keeps {number} {things} at home.",
    "{name} counts {number} {things}.",
    "{name} packs {number} {things}.",
    "{number} {things} belong to {name}.",
    "There are {number} {things} in the box.",
)

TIMES = ("Then", "Later", "Today", "Afterwards", "Now", "Next", "Soon", "Once", "Tonight", "Finally")

CLAUSES = {
    "+": (
        "{name} buys {number} more.",
        "{name} finds {number} new {things}.",
        "{number} {things} arrive.",
        "{name} wins {number}.",
        "{other} adds {number}.",
        "{name} collects another {number}.",
    ),
    "-": (
        "{name} gives {other} {number}.",
        "{name} loses {number} {things}.",
        "{other} borrows {number}.",
        "{name} sells {number} {things}.",
        "{number} of them break.",
        "{other} takes {number} away.",
        "{name} drops {number}.",
        "{name} uses up {number} {things}.",
    ),
    "*": (
        "{name} makes it {number} times as many.",
        "there are {number} times as many.",
        "{other} brings it to {number} times as many.",
    ),
}

QUESTIONS = (
    "How many {things} does {name} have now?",
    "How many {things} are there?",
    "How many remain?",
    "How many {things} in the end?",
    "Count the {things}.",
    "What is the total?",
)
