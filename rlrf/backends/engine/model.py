"""What is served for a policy's folder: its own weights, or an adapter on the weights that it was trained from."""

from __future__ import annotations

import json
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path

from rlrf.backends.training.adapters import ADAPTER_FILES, ADAPTER_FOLDER, BASE_FILE
from rlrf.backends.weights import HASHED_FILES, weights_digest
from rlrf.errors import BackendError

_Stamp = tuple[tuple[str, int, int], ...]
_digests: dict[Path, tuple[_Stamp, str]] = {}
_lock = threading.Lock()


@dataclass(frozen=True)
class Served:
    """A model to be served.

    Attributes:
        folder, digest: the weights that the server loads.
        adapter: folder of the adapter that is put on them, None for the weights as they are.
        name: what requests call it; made of the folder's name and the content.
        base_name: what the weights themselves are called.
        why_merged: why an adapter that is there is not used, in words.
    """

    folder: Path
    digest: str
    name: str
    base_name: str
    adapter: Path | None = None
    why_merged: str | None = None


def find_served(folder: Path, lora_rank: int | None) -> Served:
    """The adapter of a folder where it can be served up to `lora_rank`, else the folder's own weights.

    Raises BackendError when the folder isn't a whole model's.
    """
    why = None
    if lora_rank is not None and (folder / ADAPTER_FOLDER).is_dir():
        found = _adapter_of(folder, lora_rank)
        if isinstance(found, Served):
            return found
        why = found
    return find_merged(folder, why)


def find_merged(folder: Path, why: str | None) -> Served:
    """The folder's own weights, whether or not it has an adapter. Raises BackendError when it isn't a whole model's."""
    digest = current_digest(folder)
    name = served_name(folder, digest)
    return Served(folder, digest, name, name, why_merged=why)


def current_digest(folder: Path) -> str:
    """`weights_digest`, read again only when a file's size or time has changed. Raises BackendError as it does."""
    folder = folder.resolve()
    paths = {path for pattern in HASHED_FILES for path in folder.glob(pattern)}
    with _lock:
        stamp = _stamp(sorted(paths))
        if folder not in _digests or _digests[folder][0] != stamp:
            _digests[folder] = stamp, weights_digest(folder)
        return _digests[folder][1]


def served_name(folder: Path, digest: str) -> str:
    """A name that says which folder it is, and is another one for other weights."""
    stem = "".join(sign if sign.isascii() and (sign.isalnum() or sign in "._-") else "-" for sign in folder.name)
    return f"{stem or 'model'}-{digest.replace('-', '')[:8]}"


def _adapter_of(folder: Path, lora_rank: int) -> Served | str:
    """The adapter as it is served, or why it can't be."""
    adapter = folder / ADAPTER_FOLDER
    missing = [name for name in (*ADAPTER_FILES, BASE_FILE) if not (adapter / name).is_file()]
    if missing:
        return f"its adapter lacks {', '.join(missing)}"
    try:
        base, digest = _base_of(adapter)
        rank = int(str(_read(adapter / ADAPTER_FILES[0])["r"]))
    except (OSError, ValueError, KeyError, TypeError) as error:
        return f"its adapter can't be read ({type(error).__name__}: {error})"
    if rank > lora_rank:
        return f"its adapter's rank is {rank}, above {lora_rank}"
    try:
        there = current_digest(base)
    except BackendError as error:
        return f"its adapter's base can't be used ({error})"
    if there != digest:
        return f"the weights in {str(base)!r} are no longer those that its adapter sits on"
    content = blake2b(digest.encode(), digest_size=16)
    for name in ADAPTER_FILES:
        content.update((adapter / name).read_bytes())
    return Served(base, digest, served_name(folder, content.hexdigest()), served_name(base, digest), adapter)


def _base_of(adapter: Path) -> tuple[Path, str]:
    record = _read(adapter / BASE_FILE)
    return Path(str(record["folder"])), str(record["weights_digest"])


def _read(path: Path) -> dict[str, object]:
    content = json.loads(path.read_text(encoding="utf-8"))
    if not isinstance(content, dict):
        raise ValueError(f"{path.name} holds no object")
    return content


def _stamp(paths: Sequence[Path]) -> _Stamp:
    facts = [(path, path.stat()) for path in paths if path.is_file()]
    return tuple((str(path), fact.st_size, fact.st_mtime_ns) for path, fact in facts)
