"""A judge that asks a model to rate a response by a rubric: comment first, rating after.

`questions` writes what is asked, `asking` gets replies, `reply` reads them, and `RubricJudge` says which aspects count.
What can't be read is unrated, never guessed.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from typing import Any, Literal

from rlrf.backends.protocols import Generator
from rlrf.judges import questions
from rlrf.judges.asking import Answer, Question, ask
from rlrf.judges.reply import parse, parse_choice
from rlrf.records import Case, Choice, Judgement, Known, Prompt, Rating, Sampling
from rlrf.rubric import Rubric

VERSION = 2
"""Rises with every change to the modules named above that can change a verdict or a choice."""

GREEDY = Sampling(temperature=0.0, max_tokens=1024)


@dataclass(frozen=True, slots=True)
class Manner:
    """How a rubric judge asks, and which aspects count; the settings of the same names in rlrf.judge_config."""

    guided: bool = False
    calls: Literal["together", "each"] = "together"
    aspects: Literal["all", "task", "prompt", "call"] = "all"
    choose: int = 3
    task: str = "task"
    tasks: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    retries: int = 2
    comment_chars: int = questions.COMMENT_CHARS
    repeat: int = 0
    reverse: bool = False


class RubricJudge:
    """Rates by a rubric through a generator that the first case opens. `model`, the weights' digest, is in its identity.

    The aspects of a case are those that it names, else those of its task, or those that the judge names in the call. It
    is a Chooser (rlrf.judges.protocol). Of a case whose ratings are known in part only the other aspects are asked for; its
    `raw_reply` is then a JSON object: `kept`, the key of the judge behind each known rating, and `reply`.

    Unrated reasons: truncated (the response was cut off; no call is made), no_aspects_chosen (nobody named the aspects
    that this prompt needs), unknown_aspects: <names>, judge_failed:<why> (no reply; `raw_reply` holds the failure's detail),
    judge_truncated (the reply was cut off), and those of `rlrf.judges.reply.parse`. Where each aspect has its own call,
    unrated_aspects names each one's reason, and `raw_reply` is a JSON object of the replies.
    """

    def __init__(
        self,
        open_generator: Callable[[], Generator],
        rubric: Rubric,
        model: str,
        sampling: Sampling = GREEDY,
        manner: Manner | None = None,
    ) -> None:
        self._open_generator = open_generator
        self._generator: Generator | None = None
        self.rubric = rubric
        self.model = model
        self.sampling = sampling
        self.manner = manner or Manner()
        self.aspects = rubric.names
        self.weights = {aspect.name: aspect.weight for aspect in rubric.aspects}

    def ingredients(self) -> dict[str, Any]:
        """All that bears on its verdicts, as plain JSON; a setting is named only where it isn't the usual one."""
        manner = self.manner
        found = self._common("rubric") | {
            "rubric": self.rubric.model_dump(mode="json"),
            "template": questions.JUDGE_TEMPLATE,
        }
        if manner.calls != "together":
            found["calls"] = manner.calls
        if manner.aspects == "task":
            found |= {"task": manner.task, "tasks": {task: list(names) for task, names in manner.tasks.items()}}
        elif manner.aspects == "prompt":
            found["choice"] = self.choice_ingredients()
        elif manner.aspects == "call":
            found["choose"] = manner.choose
        if manner.repeat:
            found["repeat"] = manner.repeat
        if manner.reverse:
            found["reverse"] = True
        return found

    def choice_ingredients(self) -> dict[str, Any]:
        """All that bears on which aspects it names for a prompt, as plain JSON; repetitions share it."""
        return self._common("rubric_choice") | {
            "aspects": [[aspect.name, aspect.definition] for aspect in self.rubric.aspects],
            "template": questions.CHOOSE_TEMPLATE,
            "choose": self.manner.choose,
        }

    def judge(self, cases: Sequence[Case]) -> Iterator[list[Judgement]]:
        """Yield judgements, first those that need no call, then as replies come; each case exactly once."""
        asked: dict[str, list[Question]] = {}
        at_once = []
        for case in cases:
            planned = self._plan(case)
            if isinstance(planned, Judgement):
                at_once.append(planned)
            else:
                asked[case.response_id] = planned
        if at_once:
            yield at_once
        by_id = {case.response_id: case for case in cases if case.known}
        for batch in self._judgements(asked):
            yield [self._with_known(one, by_id.get(one.response_id)) for one in batch]

    def choose(self, prompts: Sequence[Prompt]) -> Iterator[list[Choice]]:
        """Yield the `choose` aspects that each prompt needs most, as replies come; each prompt exactly once."""
        for answers in self._ask([self._choice_question(prompt) for prompt in prompts]):
            yield [
                Choice(
                    question.question_id,
                    answer.value,
                    answer.reason,
                    answer.raw_reply,
                    answer.prompt_tokens,
                    answer.completion_tokens,
                )
                for question, answer in answers
            ]

    def close(self) -> None:
        """Give back the generator."""
        if self._generator is not None:
            self._generator.close()

    def _common(self, kind: str) -> dict[str, Any]:
        manner = self.manner
        found = {
            "type": kind,
            "version": VERSION,
            "model": self.model,
            "retry_template": questions.RETRY_TEMPLATE,
            "sampling": {**asdict(self.sampling), "stop": list(self.sampling.stop)},
            "retries": manner.retries,
        }
        return found | ({"guided": True, "comment_chars": manner.comment_chars} if manner.guided else {})

    def _plan(self, case: Case) -> list[Question] | Judgement:
        """What to ask about a case, or its judgement where nothing can be asked."""
        if case.finish_reason == "length":
            return Judgement(case.response_id, reason="truncated")
        if strange := sorted(set(case.aspects) - set(self.aspects)):
            return Judgement(case.response_id, reason=f"unknown_aspects: {', '.join(strange)}")
        names = self._names(case)
        if not names:
            return Judgement(case.response_id, reason="no_aspects_chosen")
        choose = self.manner.choose if self.manner.aspects == "call" and not case.aspects else None
        known = {one.rating.aspect for one in self._known(case)}
        names = tuple(name for name in names if name not in known)
        if not names:
            return self._with_known(Judgement(case.response_id), case)
        groups = [(name,) for name in names] if self.manner.calls == "each" else [names]
        return [self._question(case, group, choose) for group in groups]

    def _names(self, case: Case) -> tuple[str, ...]:
        """The aspects to ask for, in the order in which they are asked; none where a choice is missing."""
        manner = self.manner
        wanted = set(case.aspects or self.aspects)
        if not case.aspects and manner.aspects == "prompt":
            return ()
        if not case.aspects and manner.aspects == "task":
            wanted = set(manner.tasks.get(str(case.metadata.get(manner.task)), self.aspects))
        names = tuple(name for name in self.aspects if name in wanted)
        return names[::-1] if manner.reverse else names

    def _known(self, case: Case) -> tuple[Known, ...]:
        """What needs no question; where the judge chooses aspects itself, whatever it rates is asked anew."""
        wanted = set(self._names(case)) if self.manner.aspects in ("all", "task") else set()
        return tuple(one for one in case.known if one.rating.aspect in wanted)

    def _question(self, case: Case, names: tuple[str, ...], choose: int | None) -> Question:
        manner = self.manner
        messages = questions.build_messages(case, self.rubric, names, choose)
        schema = questions.reply_schema(self.rubric, names, choose, manner.comment_chars) if manner.guided else None
        material = "\n".join([*(turn["content"] for turn in case.messages), case.reference or "", case.text])
        return Question(
            case.response_id if manner.calls == "together" else f"{case.response_id}:{names[0]}",
            messages,
            questions.seed_of(messages, manner.repeat),
            partial(parse, rubric=self.rubric, aspects=names, choose=choose, material=material),
            schema,
        )

    def _choice_question(self, prompt: Prompt) -> Question:
        manner = self.manner
        messages = questions.choose_messages(prompt.messages, self.rubric, manner.choose)
        material = "\n".join(turn["content"] for turn in prompt.messages)
        return Question(
            prompt.prompt_id,
            messages,
            questions.seed_of(messages),
            partial(parse_choice, rubric=self.rubric, choose=manner.choose, material=material),
            questions.choice_schema(self.rubric, manner.choose, manner.comment_chars) if manner.guided else None,
        )

    def _judgements(self, asked: Mapping[str, list[Question]]) -> Iterator[list[Judgement]]:
        """A judgement as soon as all that was asked about its response is answered."""
        owners = {question.question_id: owner for owner, planned in asked.items() for question in planned}
        answered: dict[str, dict[str, Answer]] = {owner: {} for owner in asked}
        for answers in self._ask([question for planned in asked.values() for question in planned]):
            whole = []
            for question, answer in answers:
                owner = owners[question.question_id]
                answered[owner][question.question_id] = answer
                if len(answered[owner]) == len(asked[owner]):
                    whole.append(self._judgement(owner, answered.pop(owner)))
            if whole:
                yield whole

    def _judgement(self, response_id: str, answers: Mapping[str, Answer]) -> Judgement:
        if self.manner.calls == "together":
            (answer,) = answers.values()
        else:
            answer = self._merged({name.removeprefix(f"{response_id}:"): one for name, one in answers.items()})
        return Judgement(
            response_id,
            answer.value,
            answer.reason,
            answer.raw_reply,
            answer.prompt_tokens,
            answer.completion_tokens,
            answer.attempts,
        )

    def _with_known(self, judgement: Judgement, case: Case | None) -> Judgement:
        """The judgement with the known ratings at their places in the rubric, and where they come from."""
        known = self._known(case) if case is not None else ()
        if case is None or not known:
            return judgement
        found = {rating.aspect: rating for rating in (*judgement.ratings, *(one.rating for one in known))}
        kept = {one.rating.aspect: one.judge_key for one in known}
        names, none = set(self._names(case)), Rating("", None, scale=self.rubric.scale)
        return replace(
            judgement,
            ratings=tuple(found.get(name, replace(none, aspect=name)) for name in self.aspects if name in names),
            raw_reply=json.dumps({"kept": kept, "reply": judgement.raw_reply}, ensure_ascii=False),
        )

    def _merged(self, answers: Mapping[str, Answer]) -> Answer:
        """One answer from those for each aspect."""
        ordered = {name: answers[name] for name in self.aspects if name in answers}
        unread = [f"{name} ({_inner(name, one.reason)})" for name, one in ordered.items() if one.reason]
        nothing = Rating("", None, scale=self.rubric.scale)
        return Answer(
            tuple(one.value[0] if one.value else replace(nothing, aspect=name) for name, one in ordered.items()),
            f"unrated_aspects: {', '.join(unread)}" if unread else None,
            json.dumps({name: one.raw_reply for name, one in ordered.items()}, ensure_ascii=False),
            sum(one.prompt_tokens for one in ordered.values()),
            sum(one.completion_tokens for one in ordered.values()),
            sum(one.attempts for one in ordered.values()),
        )

    def _ask(self, asked: Sequence[Question]) -> Iterator[list[tuple[Question, Answer]]]:
        """The generator is opened by the first question, so that a judge's identity costs no model."""
        if not asked:
            return
        if self._generator is None:
            self._generator = self._open_generator()
        yield from ask(self._generator, asked, self.sampling, self.manner.retries)


def _inner(name: str, reason: str) -> str:
    """A reason without the aspect's name around it: 'unrated_aspects: depth (missing)' is 'missing'."""
    return reason.removeprefix(f"unrated_aspects: {name} (").removesuffix(")") if " (" in reason else reason
