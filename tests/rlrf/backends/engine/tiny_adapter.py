"""Builder of a policy's folder as LoRA training leaves it: merged weights, the adapter beside them, and its base."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM, AutoTokenizer

from rlrf.backends.weights import weights_digest


def build_tiny_adapter(folder: Path, base: Path, *, seed: int, rank: int = 4) -> Path:
    """A random adapter on all linear layers of `base`, strong enough to change every text."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        lora = LoraConfig(r=rank, lora_alpha=2 * rank, target_modules="all-linear", init_lora_weights=False)
        model = get_peft_model(AutoModelForCausalLM.from_pretrained(base), lora)
    model.save_pretrained(folder / "adapter")
    model.merge_and_unload().save_pretrained(folder)
    AutoTokenizer.from_pretrained(base).save_pretrained(folder)
    shape = {"r": rank, "alpha": 2 * rank, "target_modules": "all-linear"}
    record = {"folder": str(base), "weights_digest": weights_digest(base), "lora": shape}
    (folder / "adapter" / "base.json").write_text(json.dumps(record), encoding="utf-8")
    return folder
