"""Chat completions as a server writes them, good ones and such as are bent on command."""

from __future__ import annotations

import json
from typing import Any


def answer_text(message: str, seed: int) -> str:
    """What the server answers to `message` by `seed` when it behaves."""
    return f"answer {seed} to {message}"


def token_count(seed: int) -> int:
    """How many tokens that answer has."""
    return 3 + seed % 4


def good_answer(body: dict[str, Any], tells_tokens: bool, guides: bool) -> dict[str, Any]:
    """A well-formed chat completion for a request's body, choice i drawn by its seed + i as vLLM does."""
    message, seeds = body["messages"][-1]["content"], [body["seed"] + i for i in range(body["n"])]
    counts = [min(token_count(seed), body["max_tokens"]) for seed in seeds]
    choices = [
        {
            "index": i,
            "finish_reason": "stop",
            "message": {"role": "assistant", "content": answer_text(message, seed)},
            "token_ids": [seed] * count if tells_tokens and body.get("return_token_ids") else None,
        }
        for i, (seed, count) in enumerate(zip(seeds, counts, strict=True))
    ]
    if guides and "response_format" in body:
        for choice in choices:
            choice["message"]["content"] = json.dumps(instance(body["response_format"]["json_schema"]["schema"]))
    return {"choices": choices, "usage": {"prompt_tokens": len(message), "completion_tokens": sum(counts)}}


def instance(schema: dict[str, Any]) -> Any:
    """The first instance of a schema."""
    if "enum" in schema:
        return schema["enum"][0]
    if schema["type"] == "object":
        return {name: instance(inner) for name, inner in schema["properties"].items()}
    return "some words"


def bent_answer(behaviour: str, answer: dict[str, Any], message: str) -> bytes:
    """The body of a 200 answer; its first choice, or all of it, is bent as `behaviour` says."""
    choices, usage = answer["choices"], answer["usage"]
    choice = choices[0]
    match behaviour:
        case "ok" | "slow" | "cut" | "chunked" | "closes" | "doubled" | "not_http":
            pass
        case "length" | "abort" | "content_filter" | "tool_calls" | "repetition":
            choice["finish_reason"] = behaviour
        case "no_finish":
            choice["finish_reason"] = None
        case "no_choices":
            answer["choices"] = []
        case "two_choices":
            answer["choices"] = [choice, choice]
        case "wrong_n" if len(choices) > 1:
            choices.pop()
        case "wrong_n":
            pass
        case "same_index":
            choice["index"] = len(choices) - 1
        case "shuffled":
            choices.reverse()
        case "no_usage":
            del answer["usage"]
        case "too_many_tokens":
            usage["completion_tokens"] += 10_000
            choice["token_ids"] = choice["token_ids"] and choice["token_ids"] + [0] * 10_000
        case "null_content":
            choice["message"]["content"] = None
        case "empty":
            choice["message"]["content"] = ""
            usage["completion_tokens"] -= len(choice["token_ids"] or [0] * usage["completion_tokens"])
            choice["token_ids"] = choice["token_ids"] and []
        case "ended_at_once":
            choice["message"]["content"] = ""
        case "surrogate":
            choice["message"]["content"] = "\ud800"
        case "unguided":
            choice["message"]["content"] = message
        case "cut_json":
            choice |= {"message": {"content": choice["message"]["content"][:4]}, "finish_reason": "length"}
        case "invalid_json":
            return b'{"choices": [{'
        case "not_an_object":
            return b"[1, 2]"
        case "deep_json":
            return b"[" * 100_000
        case _:
            raise ValueError(f"no such behaviour: {behaviour!r}")
    return json.dumps(answer).encode()
