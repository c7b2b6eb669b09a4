"""Do refinements follow feedback? `python -m benchmarks.refinement runs/demo/models/tiny-XXXXXXXX --seed 0`.

Asks a policy fresh held-out word problems greedily. Each wrong answer is rewritten `--tries` times from the math judge's
feedback, and the same prompt is answered `--tries` times anew, at temperature 1. Prints the share of both that is right,
with a 95 % interval over the prompts, and their paired difference.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from itertools import islice

from rlrf.backends.local import LocalGenerator
from rlrf.evaluating import mean_interval
from rlrf.fingerprints import response_seed
from rlrf.judges.math import MathJudge
from rlrf.records import Case, Completion, Judgement, Message, Request, Sampling
from rlrf.reflection import refine_messages
from rlrf.scoring import is_positive
from rlrf.word_problems import WordProblem, as_prompt, word_problems

Chat = tuple[Message, ...]


def main() -> None:
    """Print one table row."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("policy")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--questions", type=int, default=1000)
    parser.add_argument("--tries", type=int, default=4)
    arguments = parser.parse_args()
    generator = LocalGenerator(arguments.policy, device="cpu")
    # Another stream than any run's own held-out questions.
    problems = list(islice(word_problems("held_out", seed=10_000 + arguments.seed), arguments.questions))
    drafts = _answers(generator, [as_prompt(problem) for problem in problems], 1, 0.0)
    judged = [(problem, texts[0], _judge(problem, texts[0])) for problem, texts in zip(problems, drafts, strict=True)]
    wrong = [(problem, text, one) for problem, text, one in judged if one.rated and not is_positive(one.ratings)]
    asked = [refine_messages(as_prompt(problem), text, one.ratings) for problem, text, one in wrong]
    fresh = [as_prompt(problem) for problem, _, _ in wrong]
    refined, resampled = (_mended(generator, wrong, chats, arguments.tries) for chats in (asked, fresh))
    gain = [one - other for one, other in zip(refined, resampled, strict=True)]
    print("| seed | wrong answers | mended by refinement | mended by a fresh response | difference |")
    print("|---|---|---|---|---|")
    print(
        f"| {arguments.seed} | {len(wrong)} of {len(problems)} | "
        + " | ".join(map(_percent, (refined, resampled, gain)))
        + " |"
    )


def _mended(
    generator: LocalGenerator, wrong: Sequence[tuple[WordProblem, str, Judgement]], chats: Sequence[Chat], tries: int
) -> list[float]:
    """Per wrong answer, the share of tries that is right on every aspect."""
    texts = _answers(generator, chats, tries, 1.0)
    return [
        sum(is_positive(_judge(problem, text).ratings) for text in found) / tries
        for (problem, _, _), found in zip(wrong, texts, strict=True)
    ]


def _answers(generator: LocalGenerator, chats: Sequence[Chat], tries: int, temperature: float) -> list[list[str]]:
    requests = {
        f"{row}/{i}": Request(f"{row}/{i}", chat, response_seed("refinement", str(row), None, i))
        for row, chat in enumerate(chats)
        for i in range(tries)
    }
    texts: list[list[str]] = [[] for _ in chats]
    for batch in generator.generate(list(requests.values()), Sampling(temperature=temperature, max_tokens=64)):
        for one in batch:
            texts[int(one.request_id.split("/")[0])].append(one.text if isinstance(one, Completion) else "")
    return texts


def _judge(problem: WordProblem, text: str) -> Judgement:
    return MathJudge().judge_one(Case("r", as_prompt(problem), problem.answer, text))


def _percent(values: Sequence[float]) -> str:
    mean, low, high = mean_interval(list(values))
    return f"{100 * mean:.1f} % ({100 * low:.1f} to {100 * high:.1f})"


if __name__ == "__main__":
    main()
