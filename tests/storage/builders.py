"""Rows for tests: short names for ids, and everything that a row needs but a test doesn't care about."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from rlrf.fingerprints import content_id
from rlrf.handles import Evaluation, Policy
from rlrf.records import Completion, Failure, Judgement, Prompt, Rating
from storage import judgements, rows, sets
from storage.store import Store

ASPECTS = ("answer", "steps")
WEIGHTS = {"answer": 1.0, "steps": 1.0}


def uid(name: str) -> str:
    """The id that this name stands for."""
    return content_id("test", name)


JUDGE, GEN, RUN = uid("judge"), uid("gen"), uid("run")


def prompt(name: str, reference: str | None = "4", text: str | None = None) -> Prompt:
    return Prompt(uid(name), "source", ({"role": "user", "content": text or f"question {name}?"},), reference, {"n": 1})


def policy(name: str) -> Policy:
    return Policy(policy_id=uid(name), name=name, folder=f"models/{name}")


def completion(name: str, text: str | None = None, finish: str = "stop", tokens: int = 7) -> Completion:
    return Completion(uid(name), text or f"text of {name}", finish, 5, tokens)  # type: ignore[arg-type]


def failure(name: str) -> Failure:
    return Failure(uid(name), "timeout", "no reply in 120 s")


def judgement(name: str, *levels: int | None, reason: str | None = None, critique: str = "fine") -> Judgement:
    ratings = tuple(Rating(aspect, level, critique) for aspect, level in zip(ASPECTS, levels, strict=False))
    return Judgement(uid(name), ratings, reason, "raw words" if reason else None, 11, 13)


def respond(
    store: Store,
    prompt_name: str,
    results: Sequence[Completion | Failure],
    parent: str | None = None,
    policy_name: str = "base",
    gen_key: str = GEN,
) -> int:
    """Store results of one prompt, at positions 0, 1, ..."""
    planned = {
        result.request_id: {
            "prompt_id": uid(prompt_name),
            "parent_id": parent and uid(parent),
            "position": at,
            "seed": at,
        }
        for at, result in enumerate(results)
    }
    common = {"gen_key": gen_key, "policy_id": uid(policy_name), "backend": "test", "run_id": RUN}
    return rows.add_results(store, results, planned, common)


def judge(store: Store, *said: Judgement, judge_key: str = JUDGE) -> int:
    return judgements.add_judgements(store, judge_key, said, WEIGHTS, RUN)


def members(store: Store, set_name: str, names: Iterable[str]) -> str:
    """Make a set of these rows; returns its key."""
    sets.add_members(store, uid(set_name), [uid(name) for name in names])
    return uid(set_name)


def evaluation(name: str, of: Policy, accuracy: float = 0.5) -> Evaluation:
    return Evaluation(
        key=uid(name),
        policy=of,
        judge_key=JUDGE,
        digest=uid("digest"),
        questions=4,
        accuracy=accuracy,
        low=0.25,
        high=0.75,
        tokens_mean=8.0,
    )
