"""Builder of a tiny random Llama with its own tokenizer and chat template: a model folder in well under a second."""

from __future__ import annotations

from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

CHAT_TEMPLATE = (
    "{% for message in messages %}<|{{ message['role'] }}|>{{ message['content'] }}<|end|>{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
SPECIAL_TOKENS = ["<|pad|>", "<|end|>", "<|system|>", "<|user|>", "<|assistant|>"]
CORPUS = [
    "Anna has 12 apples and buys 7 more. How many apples does she have?",
    "Step 1: 12 + 7 = 19. #### 19",
    "Tom had 40 marbles, lost 15 and shared the rest with 4 friends.",
    "Write the answer as a number, then explain why it is right.",
    *(f"{left} + {right} = {left + right}." for left in range(0, 100, 3) for right in range(0, 100, 7)),
]


def build_tokenizer(chat_template: str | None = CHAT_TEMPLATE, vocab_size: int = 600) -> PreTrainedTokenizerFast:
    """Byte-level BPE, so that any text round-trips."""
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=SPECIAL_TOKENS,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    bpe.train_from_iterator(CORPUS, trainer)
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=bpe,
        pad_token="<|pad|>",
        eos_token="<|end|>",
        additional_special_tokens=SPECIAL_TOKENS[2:],
        clean_up_tokenization_spaces=False,
    )
    tokenizer.chat_template = chat_template
    return tokenizer


def build_tiny_model(
    folder: Path,
    *,
    seed: int = 0,
    hidden_size: int = 32,
    layers: int = 1,
    max_position_embeddings: int = 256,
    chat_template: str | None = CHAT_TEMPLATE,
) -> Path:
    """Save a random Llama into `folder` and return it; hidden_size 128 and layers 3 make 0.6M parameters."""
    tokenizer = build_tokenizer(chat_template)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=hidden_size,
        intermediate_size=hidden_size * 5 // 2,
        num_hidden_layers=layers,
        num_attention_heads=max(1, hidden_size // 32),
        head_dim=32,
        max_position_embeddings=max_position_embeddings,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = LlamaForCausalLM(config)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder
