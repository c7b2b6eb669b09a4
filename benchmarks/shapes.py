"""Llama-shaped models with random weights, for measuring where no weights can be downloaded."""

from __future__ import annotations

from pathlib import Path

import torch
from transformers import LlamaConfig, LlamaForCausalLM

from tests.rlrf.backends.tiny_model import build_tokenizer

SHAPES = {
    "tiny": {"hidden_size": 128, "num_hidden_layers": 3, "intermediate_size": 320, "num_attention_heads": 4},
    "1b": {"hidden_size": 2048, "num_hidden_layers": 16, "intermediate_size": 8192, "num_attention_heads": 32},
    "7b": {"hidden_size": 4096, "num_hidden_layers": 32, "intermediate_size": 11008, "num_attention_heads": 32},
}
KEY_VALUE_HEADS = {"tiny": 4, "1b": 8, "7b": 32}


def build_shape(name: str, folder: Path) -> Path:
    """A chat model of this shape in `folder`, made once: float32 for tiny, bfloat16 for the others."""
    if (folder / "config.json").is_file():
        return folder
    tokenizer, shape = build_tokenizer(), SHAPES[name]
    config = LlamaConfig(
        **shape,
        vocab_size=len(tokenizer),
        num_key_value_heads=KEY_VALUE_HEADS[name],
        head_dim=shape["hidden_size"] // shape["num_attention_heads"],
        max_position_embeddings=4096,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    torch.manual_seed(0)
    with torch.device("cuda" if torch.cuda.is_available() and name != "tiny" else "cpu"):
        torch.set_default_dtype(torch.float32 if name == "tiny" else torch.bfloat16)
        model = LlamaForCausalLM(config)
        torch.set_default_dtype(torch.float32)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder
