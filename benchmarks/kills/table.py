"""What the kills cost, from the journals of their rounds."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

HEAD = (
    "| killed | kills | lost | doubled | different | rows computed again per kill, median / most | bound "
    "| steps trained again, median / most | seconds to be useful again, median / most |\n|---|---|---|---|---|---|---|---|---|"
)
Entries = Sequence[dict[str, Any]]


@dataclass
class Kill:
    """One kill and its price. `useful` is from the next process's start to its first new row, step or receipt."""

    round: int
    engine: str
    victim: str
    moment: str
    at: float
    stage: str = ""
    rows: int = 0
    bound: int = 0
    steps: int = 0
    useful: float | None = None
    restarted: float | None = None
    seconds: float = 0.0


def account(kills: list[Kill], entries: Entries) -> None:
    """Fill in what each kill cost. What is asked for a second time is the price of the last kill before it."""
    starts = [one["t"] for one in entries if one["event"] == "process"]
    seen: set[str] = set()
    for number, kill in enumerate(kills):
        end = kills[number + 1].at if number + 1 < len(kills) else float("inf")
        before = [one for one in entries if one["t"] <= kill.at]
        after = [one for one in entries if kill.at < one["t"]]
        here = [one for one in after if one["t"] <= end]
        kill.stage = next((one["stage"] for one in reversed(before) if "stage" in one), "start")
        kill.restarted = kill.restarted or next((t for t in starts if t > kill.at), None)
        fresh = [one["t"] for one in here if one["event"] == "receipt" or (one["event"] == "advance" and one["rows"])]
        since = kill.at if kill.victim in {"engine", "guard"} else (kill.restarted or kill.at)
        kill.useful = round(fresh[0] - since, 2) if fresh else None
        seen.update(name for one in before if one["event"] == "asked" for name in one["ids"])
        asked = [name for one in here if one["event"] == "asked" for name in one["ids"]]
        kill.rows = sum(name in seen for name in asked)
        kill.steps = _steps_again(before, after, kill.stage)


def _steps_again(before: Entries, after: Entries, stage: str) -> int:
    """Steps that were done when it was killed and that the next process did not keep."""
    begun = next((i for i in range(len(before) - 1, -1, -1) if before[i]["event"] == "begin"), None)
    if begun is None or before[begun]["unit"] != "steps" or before[begun]["stage"] != stage:
        return 0
    if any(one["event"] == "receipt" for one in before[begun:]):
        return 0
    done = before[begun]["kept"] + sum(one["rows"] for one in before[begun:] if one["event"] == "advance")
    again = next((one for one in after if one["event"] == "begin" and one["stage"] == stage), None)
    return max(0, done - again["kept"]) if again else 0


def markdown(kills: Sequence[dict[str, Any]], rounds: Sequence[dict[str, Any]]) -> str:
    """The table: a line per victim and engine, and one for all."""
    lines: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for kill in kills:
        lines[kill["victim"] + (" (vLLM)" if kill["engine"] == "vllm" else "")].append(kill)
    wrong = {one["round"]: one for one in rounds if one["lost"] or one["doubled"] or one["different"]}
    rows = [HEAD, *(_line(name, lines[name], wrong) for name in sorted(lines)), _line("all", list(kills), wrong)]
    return "\n".join(rows)


def _line(name: str, kills: list[dict[str, Any]], wrong: dict[int, dict[str, Any]]) -> str:
    """A round's damage is laid at the door of every victim that was killed in it."""
    bad = [wrong[number] for number in {kill["round"] for kill in kills} & wrong.keys()]
    damage = " | ".join(str(sum(one[what] for one in bad)) for what in ("lost", "doubled", "different"))
    rows, steps = [kill["rows"] for kill in kills], [kill["steps"] for kill in kills]
    useful = [kill["useful"] for kill in kills if kill["useful"] is not None]
    bound = max((kill["bound"] for kill in kills), default=0)
    back = f"{median(useful):.1f} / {max(useful):.1f}" if useful else "-"
    return (
        f"| {name} | {len(kills)} | {damage} | {median(rows or [0]):g} / {max(rows, default=0)} | {bound} "
        f"| {median(steps or [0]):g} / {max(steps, default=0)} | {back} |"
    )
