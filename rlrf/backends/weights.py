"""Model folders: finding them, checking that they are whole, and naming their content. No torch."""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator
from functools import lru_cache
from hashlib import blake2b
from pathlib import Path
from typing import Any
from uuid import UUID

from rlrf.errors import BackendError

INDEX_FILE = "model.safetensors.index.json"
HASHED_FILES = (
    "*.safetensors",
    INDEX_FILE,
    "config.json",
    "generation_config.json",
    "tokenizer.json",
    "*.model",
    "tekken.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "vocab.txt",
    "merges.txt",
    "chat_template.jinja",
    "chat_template.json",
    "additional_chat_templates/*.jinja",
)
"""What bears on the outputs of a model; a README, optimizer state or an adapter's subfolder doesn't."""

CHUNK_BYTES = 1 << 20


def resolve_model(name_or_path: str | Path) -> Path:
    """The local folder of a model: the path itself, or the Hugging Face cache's copy of a hub name (fetched if absent).

    Raises:
        BackendError: there is neither such a folder nor such a model, or the hub can't be reached.
    """
    folder = Path(name_or_path).expanduser()
    if folder.is_dir():
        return folder.resolve()
    name = str(name_or_path)
    if folder.is_absolute() or name.startswith((".", "~")) or name.count("/") != 1:
        raise BackendError(
            f"model {name!r}: no such folder; give the path of a model folder, or a hub name 'owner/model'"
        )
    return _fetch(name)


def weights_digest(folder: str | Path) -> str:
    """A UUID-shaped blake2b-128 of the names and bytes of all files that determine the model's outputs.

    Independent of the folder's path, of times, and of files that don't bear on outputs. Streams: memory stays constant.
    A process reads unchanged files once: a judge's identity is asked for many times, and weights are gigabytes.

    Raises:
        BackendError: the folder is missing or only half written, see `check_weights`.
    """
    folder = Path(folder)
    check_weights(folder)
    stats = [(path, path.stat()) for path in _hashed_files(folder)]
    stamps = tuple((str(path), one.st_ino, one.st_size, one.st_mtime_ns, one.st_ctime_ns) for path, one in stats)
    return _digest(folder, stamps)


@lru_cache(maxsize=64)
def _digest(folder: Path, stamps: tuple[tuple[str, int, int, int, int], ...]) -> str:
    """The digest of the files that these stamps name."""
    digest = blake2b(digest_size=16)
    for path in (Path(name) for name, *_ in stamps):
        name = path.relative_to(folder).as_posix().encode()
        digest.update(struct.pack("<IQ", len(name), path.stat().st_size) + name)
        for chunk in _chunks(path):
            digest.update(chunk)
    return str(UUID(bytes=digest.digest()))


def check_weights(folder: str | Path) -> tuple[Path, ...]:
    """The safetensors files of a model folder, once each is known to be there and as long as its header says.

    Raises:
        BackendError: no folder, no config, no safetensors, a shard that the index names is missing, or a cut-off file.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise BackendError(f"model folder {str(folder)!r}: no such folder; give the folder that holds config.json")
    if not (folder / "config.json").is_file():
        raise BackendError(f"model folder {str(folder)!r}: no config.json; give a folder written by save_pretrained")
    shards = _shards(folder)
    for shard in shards:
        _check_length(shard)
    return shards


def is_whole(folder: str | Path) -> bool:
    """Whether `check_weights` finds nothing wrong; reads headers only."""
    try:
        check_weights(folder)
    except (BackendError, OSError):
        return False
    return True


def _fetch(name: str) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        return Path(snapshot_download(name, allow_patterns=[*HASHED_FILES]))
    except HFValidationError as error:
        raise BackendError(f"model {name!r}: neither a folder nor a hub name ({error}); check the spelling") from error
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError) as error:
        raise BackendError(
            f"model {name!r}: not a local folder, and it can't be fetched from the hub "
            f"({type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}); "
            "check the name, or download the model where there is a network and give its folder"
        ) from error


def _hashed_files(folder: Path) -> list[Path]:
    found = {path for pattern in HASHED_FILES for path in folder.glob(pattern) if path.is_file()}
    return sorted(found, key=lambda path: path.relative_to(folder).as_posix())


def _chunks(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        while chunk := file.read(CHUNK_BYTES):
            yield chunk


def _shards(folder: Path) -> tuple[Path, ...]:
    if (folder / INDEX_FILE).is_file():
        names = sorted(set(_read_json(folder / INDEX_FILE).get("weight_map", {}).values()))
        missing = [name for name in names if not (folder / name).is_file()]
        if missing:
            raise BackendError(
                f"model folder {str(folder)!r}: missing {missing!r}, named by {INDEX_FILE}; copy it again"
            )
        shards = tuple(folder / name for name in names)
    else:
        shards = tuple(sorted(folder.glob("*.safetensors")))
    if not shards:
        others = sorted(path.name for pattern in ("*.bin", "*.pt", "*.pth", "*.gguf") for path in folder.glob(pattern))
        raise BackendError(
            f"model folder {str(folder)!r}: no safetensors weights (found {others!r}); "
            "only safetensors are loaded: save the model again with save_pretrained"
        )
    return shards


def _read_json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise BackendError(f"{str(path)!r}: not valid JSON ({error}); copy the model again") from error
    if not isinstance(content, dict):
        raise BackendError(f"{str(path)!r}: holds {type(content).__name__}, expected an object; copy the model again")
    return content


def _check_length(path: Path) -> None:
    """Compare the file's length with its header: 8 bytes of header length, the JSON header, then the tensors."""
    size = path.stat().st_size
    with path.open("rb") as file:
        prefix = file.read(8)
        header_size = struct.unpack("<Q", prefix)[0] if len(prefix) == 8 else 0
        header = file.read(header_size) if 0 < header_size <= size - 8 else b""
    try:
        tensors = {name: entry for name, entry in json.loads(header).items() if name != "__metadata__"}
        expected = 8 + header_size + max((entry["data_offsets"][1] for entry in tensors.values()), default=0)
    except (ValueError, AttributeError, KeyError, TypeError, IndexError) as error:
        raise BackendError(f"{str(path)!r}: {size} bytes without a safetensors header; copy the model again") from error
    if size != expected:
        raise BackendError(f"{str(path)!r}: {size} bytes, its header says {expected}; copy the model again")
