"""Identity by content: equal ingredients give equal ids, on every machine and in every year.

Ids are keys of the store, so the bytes that are hashed may never change; golden values in the tests hold them.
Run ids, times, paths, devices and batch sizes are no ingredients.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

SEED_SPAN = 2**31 - 2**20
"""Base seeds lie below this, so that base + index stays a signed 32-bit number for every index below 2**20."""

_CHUNK_BYTES = 1 << 20


def canonical_json(value: Any) -> str:
    """The one JSON text of a value: sorted keys, no whitespace, no escapes beyond those that JSON needs.

    Tuples count as lists; 1, 1.0 and true are three different values.

    Raises:
        TypeError: something other than str, int, float, bool, None, list, tuple or dict with text keys; names its path.
        ValueError: NaN, an infinity or text with a lone surrogate; names its path.
    """
    try:
        if _text_keys(value):
            text = _encode(value)
            text.encode("utf-8")  # a lone surrogate has no bytes
            return text
    except (TypeError, ValueError):
        pass
    _check(value, "$")  # says what is wrong, and where
    return _encode(value)


_encode = json.JSONEncoder(sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode


def content_id(kind: str, ingredients: Any) -> str:
    """128-bit BLAKE2b of a kind of thing and what it is made of, in UUID text form. Raises as `canonical_json`."""
    return _uuid_form(_digest(f"[{canonical_json(kind)},{canonical_json(ingredients)}]"))


def numbered_ids(kind: str, ingredients: Sequence[Any], numbers: Iterable[int]) -> list[str]:
    """`content_id(kind, [*ingredients, number])` of every number, much faster than one by one."""
    begun = canonical_json([kind, [*ingredients, 0]]).removesuffix("0]]")
    state = hashlib.blake2b(begun.encode("utf-8"), digest_size=16)
    found = []
    for number in numbers:
        one = state.copy()
        one.update(b"%d]]" % number)
        found.append(_uuid_form(one.digest()))
    return found


def response_seed(gen_key: str, prompt_id: str, parent_id: str | None, index: int) -> int:
    """The seed of the index-th response, in 0 .. 2**31 - 1: a base common to all indices, plus the index.

    Consecutive indices get consecutive seeds because engines give the i-th of n choices the request's seed + i:
    n responses can be asked for in one request and keep the seeds that they would have alone.

    Raises:
        ValueError: an index outside 0 .. 2**20 - 1.
    """
    return response_seeds(gen_key, prompt_id, parent_id, range(index, index + 1))[0]


def response_seeds(gen_key: str, prompt_id: str, parent_id: str | None, indices: range) -> list[int]:
    """`response_seed` of every index; the base is made once. Raises as it does."""
    for index in (*indices[:1], *indices[-1:]):
        if not 0 <= index < 2**20:
            raise ValueError(f"response index {index!r} is outside 0 .. {2**20 - 1}")
    digest = _digest(canonical_json(["seed", gen_key, prompt_id, parent_id]))
    base = int.from_bytes(digest, "big") % SEED_SPAN
    return [base + index for index in indices]


def file_digest(path: str | Path) -> str:
    """128-bit BLAKE2b of a file's bytes in UUID text form, read in pieces. Raises OSError as `open` does."""
    state = hashlib.blake2b(digest_size=16)
    with open(path, "rb") as file:
        while chunk := file.read(_CHUNK_BYTES):
            state.update(chunk)
    return _uuid_form(state.digest())


def _digest(text: str) -> bytes:
    return hashlib.blake2b(text.encode("utf-8"), digest_size=16).digest()


def _uuid_form(digest: bytes) -> str:
    text = digest.hex()
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"


def _text_keys(value: Any) -> bool:
    """Whether all keys are text: everything else that has no place in an id is refused by the encoder itself."""
    if isinstance(value, dict):
        return all(isinstance(key, str) and _text_keys(item) for key, item in value.items())
    return all(map(_text_keys, value)) if isinstance(value, (list, tuple)) else True


def _check(value: Any, path: str) -> None:
    """Refuse what JSON would coerce, lose or spell in several ways."""
    if isinstance(value, str):
        _check_text(value, path)
    elif isinstance(value, float):
        if not math.isfinite(value):
            raise ValueError(f"{path} is {value!r}: an id can't be made of a number that is not finite")
    elif isinstance(value, dict):
        for key, item in value.items():
            if not isinstance(key, str):
                raise TypeError(f"{path} has the key {key!r} ({type(key).__name__}): keys must be text")
            _check_text(key, path)
            _check(item, f"{path}.{key}")
    elif isinstance(value, (list, tuple)):
        for position, item in enumerate(value):
            _check(item, f"{path}[{position}]")
    elif value is not None and not isinstance(value, (bool, int)):
        raise TypeError(f"{path} is {value!r} ({type(value).__name__}): turn it into text, numbers, lists or dicts")


def _check_text(text: str, path: str) -> None:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise ValueError(f"{path} holds the lone surrogate {text[error.start]!r} at {error.start}") from None
