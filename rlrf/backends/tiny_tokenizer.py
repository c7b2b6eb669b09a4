"""The tiny policy's tokenizer: byte-level BPE in which every small number is one token, with a chat template."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from tokenizers import Regex, Tokenizer, decoders, pre_tokenizers
from tokenizers.models import BPE
from tokenizers.trainers import BpeTrainer
from transformers import PreTrainedTokenizerFast

from rlrf.records import Message

PAD, END = "<|pad|>", "<|end|>"
ROLES = ("system", "user", "assistant")
ROLE_TOKENS = tuple(f"<|{role}|>" for role in ROLES)

CHAT_TEMPLATE = (
    "{%- for message in messages -%}"
    "{{- '<|' + message['role'] + '|>' + message['content'] + '<|end|>' -}}"
    "{%- endfor -%}"
    "{%- if add_generation_prompt -%}{{- '<|assistant|>' -}}{%- endif -%}"
)
"""One role token before and one end token after each turn, the last one included."""

WORDS_AND_NUMBERS = r" ?\d+| ?\p{L}+| ?[^\s\p{L}\d]+\n?|\s+"
"""What BPE may merge: a number, a word or a run of signs, each with the space before it."""

NUMBER_WEIGHT = 300
"""How often each number counts, so that its merges come before those of rare words."""


def train_tokenizer(
    chats: Iterable[Sequence[Message]], *, largest_number: int, vocabulary: int, context: int
) -> PreTrainedTokenizerFast:
    """Learn merges from the chats; 0 to `largest_number` become one token each, with and without a leading space."""
    tokenizer = Tokenizer(BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(WORDS_AND_NUMBERS), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=[PAD, END, *ROLE_TOKENS],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(_texts(chats, largest_number), trainer)
    return PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]
        tokenizer_object=tokenizer,
        pad_token=PAD,
        eos_token=END,
        additional_special_tokens=list(ROLE_TOKENS),
        chat_template=CHAT_TEMPLATE,
        model_max_length=context,
        padding_side="left",
        clean_up_tokenization_spaces=False,
    )


def _texts(chats: Iterable[Sequence[Message]], largest_number: int) -> Iterator[str]:
    for number in range(largest_number + 1):
        yield from (str(number), f" {number}") * NUMBER_WEIGHT
    for chat in chats:
        yield from (message["content"] for message in chat)
