"""The rules of pairs said in plain Python, one prompt at a time: what the SQL is tested against."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from rlrf.pair_config import Pairs as Rule
from tests.storage.builders import uid
from tests.storage.pair_cases import Answer, Pairs, Prompts

Found = list[tuple[Answer, Answer]]
ORDERED = ("paper", "nearest", "length_controlled")
"""Rules whose chosen is positive and whose rejected is not."""


def expected(prompts: Prompts, rule: Rule, seed: int, rewarded: bool) -> tuple[Pairs, dict[str, str]]:
    """Pairs per prompt, and reasons."""
    pairs: Pairs = {}
    reasons = {}
    for name, answers in prompts.items():
        plain = Plain(answers, rule, seed, rewarded)
        found = plain.pairs()[: rule.k]
        if found:
            pairs[uid(name)] = [(uid(chosen.name), uid(rejected.name)) for chosen, rejected in found]
        else:
            reasons[uid(name)] = plain.reason()
    return pairs, reasons


class Plain:
    """One rule over the answers to one prompt."""

    def __init__(self, answers: list[Answer], rule: Rule, seed: int, rewarded: bool) -> None:
        self.rule, self.seed, self.rewarded = rule, seed, rewarded
        self.usable = sorted(filter(lambda one: one.usable, answers), key=first)
        self.candidates = distinct(self.usable)
        self.positives = [one for one in self.candidates if one.positive]
        self.others = [one for one in self.candidates if not one.positive]

    def pairs(self) -> Found:
        rules: dict[str, Callable[[], Found]] = {
            "paper": lambda: list(zip(sorted(self.positives, key=self.best), self.drawn(self.others), strict=False)),
            "best_worst": lambda: self.ends(self.rank, 0),
            "margin": lambda: self.ends(lambda one: one.score, self.rule.margin or 0.5),
            "nearest": self.nearest,
            "own_parent": self.own_parent,
            "length_controlled": self.length_controlled,
            "dominance": self.dominance,
        }
        return rules[self.rule.type]()

    def rank(self, one: Answer) -> float | None:
        return one.reward if self.rewarded else one.score

    def best(self, one: Answer) -> tuple[bool, float, str]:
        """Sorts the highest first, those without a reward last, equal ones by draw."""
        rank = self.rank(one)
        return rank is None, -(rank or 0.0), one.draw(self.seed)

    def drawn(self, answers: Iterable[Answer]) -> list[Answer]:
        return sorted(answers, key=lambda one: one.draw(self.seed))

    def length(self, one: Answer) -> int:
        known = [other.tokens for other in self.candidates]
        return len(one.text) if None in known or one.tokens is None else one.tokens

    def ends(self, value: Callable[[Answer], float | None], least: float) -> Found:
        numbers = {one: number for one in self.candidates if (number := value(one)) is not None}
        order = sorted(numbers, key=lambda one: (-numbers[one], self.best(one)))
        nested = zip(order[: len(order) // 2], reversed(order), strict=False)
        gaps = [(c, r, numbers[c] - numbers[r]) for c, r in nested]
        return [(c, r) for c, r, gap in gaps if gap > 0 and gap >= least - 1e-9]

    def nearest(self) -> Found:
        found = []
        for one in sorted(self.positives, key=self.best):
            below = [other for other in self.others if other.score < one.score]
            near = sorted(below, key=lambda r: (-r.score, abs(self.length(r) - self.length(one)), r.draw(self.seed)))
            found += [(one, other) for other in near[:1]]
        return found

    def own_parent(self) -> Found:
        by_name = {one.name: one for one in self.usable}
        found = [(one, by_name[one.parent]) for one in self.usable if one.parent in by_name and one.parent]
        better = [(c, r) for c, r in found if c.score > r.score and c.text != r.text]
        once = {one.name for one in distinct(c for c, _ in better)}
        kept = [(c, r) for c, r in better if c.name in once]
        return sorted(kept, key=lambda pair: (-round(pair[0].score - pair[1].score, 9), self.best(pair[0])))

    def length_controlled(self) -> Found:
        if not self.positives:
            return []
        scores = [one.score for one in self.candidates]
        low = [one for one in self.others if one.score <= min(scores) + 0.25 * (max(scores) - min(scores)) + 1e-9]
        short = sorted(self.positives, key=lambda one: (self.length(one), self.best(one)))
        return list(
            zip(short, sorted(low, key=lambda one: (-self.length(one), one.score, one.draw(self.seed))), strict=False)
        )

    def dominance(self) -> Found:
        found = []
        for one in self.candidates:
            for other in self.candidates:
                gains = [mine.level - theirs.level for mine, theirs in zip(one.ratings, other.ratings, strict=False)]  # type: ignore[operator]
                same = [rating.aspect for rating in one.ratings] == [rating.aspect for rating in other.ratings]
                if same and min(gains) >= 0 and max(gains) > 0:
                    found.append((-sum(gain > 0 for gain in gains), -round(one.score - other.score, 9), one, other))
        found.sort(key=lambda pair: (*pair[:2], self.best(pair[2]), self.best(pair[3])))
        return [(one, other) for *_, one, other in found]

    def reason(self) -> str:
        if not self.candidates:
            return "nothing_rated"
        if self.rule.type in ORDERED:
            return "no_positive" if not self.positives else "no_negative" if not self.others else "no_difference"
        refined = any(one.parent for one in self.usable)
        ranked = any(self.rank(one) is not None for one in self.candidates)
        return {
            "best_worst": "no_difference" if ranked else "no_reward",
            "margin": "no_margin",
            "own_parent": "no_refinement_better" if refined else "no_refinement",
            "dominance": "no_dominance",
        }[self.rule.type]


def first(one: Answer) -> tuple[bool, str, str]:
    """Which of equal texts stands for them: explored before refined, then the least ids."""
    return one.parent is not None, uid(one.parent) if one.parent else "", uid(one.name)


def distinct(answers: Iterable[Answer]) -> list[Answer]:
    by_text: dict[str, Answer] = {}
    for one in answers:
        by_text.setdefault(one.text, one)
    return list(by_text.values())
