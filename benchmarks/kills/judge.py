"""A judge without a mind, so that a policy of a hundred steps has good and bad responses: a hash decides."""

from __future__ import annotations

from hashlib import blake2b
from typing import Any


def rate(messages: Any, response: str, reference: Any, metadata: Any) -> dict[str, tuple[int, str]]:
    """Ratings that depend on the text alone."""
    mark, form = blake2b(response.encode(), digest_size=2).digest()
    return {"answer": (mark % 3 - 1, f"Its mark is {mark}."), "form": (int(form > 60), f"Its form is {form}.")}
