"""Builder of a tiny random Llama with one output, and the rewards that transformers itself gives one chat at a time."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer, LlamaConfig, LlamaForSequenceClassification

from rlrf.backends.protocols import Conversation
from tests.rlrf.backends.tiny_model import build_tokenizer

POSITIONS = 256


def build_tiny_reward(folder: Path, *, seed: int = 0, num_labels: int = 1, **changes: Any) -> Path:
    """Save a random reward model of 0.3M parameters into `folder`; its rewards lie some units apart."""
    tokenizer = build_tokenizer()
    values: dict[str, Any] = {
        "vocab_size": len(tokenizer),
        "hidden_size": 128,
        "intermediate_size": 320,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "head_dim": 32,
        "max_position_embeddings": POSITIONS,
        "initializer_range": 0.3,
        "bos_token_id": None,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
        "num_labels": num_labels,
    }
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = LlamaForSequenceClassification(LlamaConfig(**values | changes))
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def chat(request_id: str, response: str, question: str = "What is 2 + 3?") -> Conversation:
    return request_id, ({"role": "user", "content": question}, {"role": "assistant", "content": response})


def rewards_one_by_one(folder: Path, conversations: Sequence[Conversation]) -> dict[str, float]:
    """Without batches or padding, by transformers' own classes."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForSequenceClassification.from_pretrained(folder, dtype=torch.float32).eval()
    with torch.inference_mode():
        return {
            name: model(tokenizer.apply_chat_template(list(messages), return_tensors="pt")["input_ids"]).logits.item()
            for name, messages in conversations
        }
