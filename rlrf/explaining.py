"""Why a key is new: which ingredient differs from the nearest one that is already there."""

from __future__ import annotations

from typing import Any


def differences(old: Any, new: Any, path: str = "") -> list[str]:
    """Dotted paths of what changed, each as `path: old -> new`, in path order."""
    if isinstance(old, dict) and isinstance(new, dict):
        found = []
        for name in sorted(old.keys() | new.keys()):
            found += differences(old.get(name), new.get(name), f"{path}.{name}" if path else name)
        return found
    return [] if old == new else [f"{path}: {_short(old)} -> {_short(new)}"]


def nearest_change(ingredients: dict[str, Any], known: list[dict[str, Any]]) -> list[str]:
    """The differences from the known ingredients that has the fewest of them; none when nothing is known."""
    return min((differences(old, ingredients) for old in known), key=len, default=[])


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 40 else f"{text[:18]}...{text[-18:]}"
