"""What happened in a run and whether it is better, in words."""

from typing import Any, NamedTuple

from flows.report_parts import percent, plural

Rows = list[dict[str, Any]]


class Verdict(NamedTuple):
    """The head of the page; `tone` is good, bad or plain."""

    tone: str
    head: str
    text: str


_ENDED = {
    "running": "This run has not ended: it is at work, or its process died without a word.",
    "killed": "This run was killed.",
    "stopped": "This run was stopped.",
    "failed": "This run failed.",
}


def verdict(run: dict[str, Any], results: Rows, decided: Rows) -> Verdict:
    """Better, no better, or nothing to say yet. `results` as of storage.reading.results, `decided` of this run."""
    ended = " ".join(filter(None, [_ended(run), _control(results)]))
    base = next((row for row in results if row["arm"] == "base"), None)
    trained = [row for row in results if row["arm"] == "policy"]
    if not results:
        return Verdict("plain", "Nothing was evaluated.", ended)
    if not trained:
        text = f"The base is right on {_accuracy(base)} of the held-out prompts." if base else ""
        return Verdict("plain", "No policy was trained.", f"{text} {ended}".strip())
    promoted = [row for row in trained if row["verdict"] == "promote"]
    said = f"{len(promoted):,} of {plural(len(trained), 'trained policy').replace('policys', 'policies')} promoted."
    last = promoted[-1] if promoted else trained[-1]
    against = f", against {_accuracy(base)} of the base {base['policy']}" if base else ""
    answers = f"{last['policy']} answers {_accuracy(last)} of {last['questions']:,} held-out prompts rightly{against}."
    if promoted:
        gain = f"Gain over the champion before it: {_gain(last)}." if last["gain"] is not None else ""
        return Verdict("good", "Better.", " ".join(filter(None, [answers, gain, said, _office(decided), ended])))
    worse = last["gain_high"] is not None and last["gain_high"] < 0
    head = "Worse: no policy was promoted." if worse else "Not shown to be better: no policy was promoted."
    gain = f"Gain over the champion: {_gain(last)}." if last["gain"] is not None else "The gate has not decided."
    return Verdict("bad" if worse else "plain", head, " ".join(filter(None, [answers, gain, _office(decided), ended])))


def _ended(run: dict[str, Any]) -> str:
    said = _ENDED.get(run["status"], "")
    return f"{said.rstrip('.')}: {run['reason']}" if said and run["reason"] else said


def _control(results: Rows) -> str:
    control = next((row for row in results if row["arm"] == "control"), None)
    return f"The control, supervised training with as many steps, reaches {_accuracy(control)}." if control else ""


def _office(decided: Rows) -> str:
    """What a person decided last of this run's policies."""
    by_hand = [row for row in decided if row["decided_by"] != "gate"]
    if not by_hand:
        return ""
    last = by_hand[-1]
    return f"Last decided by {last['decided_by']}: {last['verdict']}, champion {last['champion']}, because {last['reason']!r}."


def _accuracy(row: dict[str, Any]) -> str:
    return f"{percent(row['accuracy'])} ({100 * row['low']:.1f} to {100 * row['high']:.1f})"


def _gain(row: dict[str, Any]) -> str:
    gain, low, high = (100 * row[name] for name in ("gain", "gain_low", "gain_high"))
    return f"{gain:+.1f} points ({low:+.1f} to {high:+.1f})"
