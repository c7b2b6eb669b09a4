"""The adapter that LoRA training leaves in a policy's folder, and the base weights that it sits on. No torch.

`adapter/` is peft's own format, `adapter/base.json` says what it is an adapter of. A training with the same shape goes on
from it, so that after several iterations one adapter still sits on the first base, and an engine that serves this base
only loads the new adapter.
"""

from __future__ import annotations

import json
from hashlib import blake2b
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict

from rlrf.backends.weights import weights_digest
from rlrf.errors import BackendError
from rlrf.train_config import Lora

ADAPTER_FOLDER = "adapter"
ADAPTER_FILES = ("adapter_config.json", "adapter_model.safetensors")
BASE_FILE = "base.json"
"""In an adapter's folder: folder and weights digest of the base, and r, alpha and target modules of the adapter."""


class Adapter(BaseModel):
    """An adapter that can be trained on.

    Attributes:
        folder: peft's files.
        base, base_digest: the model folder that it sits on, and this folder's weights digest.
        digest: of the base's weights and the adapter's.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    folder: Path
    base: Path
    base_digest: str
    digest: str


def find_adapter(model: Path, lora: Lora) -> Adapter | None:
    """The adapter of a model folder, if it is of this shape and its base still holds the weights that it sat on."""
    folder = model / ADAPTER_FOLDER
    if not all((folder / name).is_file() for name in (*ADAPTER_FILES, BASE_FILE)):
        return None
    try:
        stored = json.loads((folder / BASE_FILE).read_text(encoding="utf-8"))
        base, digest, shape = Path(stored["folder"]), stored["weights_digest"], stored["lora"]
    except (ValueError, KeyError, TypeError):
        return None
    if shape != _shape(lora) or not _holds(base, digest):
        return None
    state = blake2b(digest.encode() + (folder / "adapter_model.safetensors").read_bytes(), digest_size=16)
    return Adapter(folder=folder, base=base, base_digest=digest, digest=state.hexdigest())


def base_record(base: Path, digest: str, lora: Lora) -> dict[str, Any]:
    """What `BASE_FILE` holds."""
    return {"folder": str(base), "weights_digest": digest, "lora": _shape(lora)}


def _shape(lora: Lora) -> dict[str, Any]:
    return lora.model_dump(mode="json", include={"r", "alpha", "target_modules"})


def _holds(folder: Path, digest: str) -> bool:
    try:
        return weights_digest(folder) == digest
    except BackendError:
        return False
