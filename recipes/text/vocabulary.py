"""The tokenizer of the arithmetic world's pocket models: one token a character, but one for the word ``answer``."""

from __future__ import annotations

import json
from pathlib import Path

from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

PAD, END, UNKNOWN = "<pad>", "</s>", "<unk>"
# For self-evaluation: a question and its two answers, which a copy of the model may be taught.
QUESTION, YES, NO = "<evaluate>", "<yes>", "<no>"
WORDS = [PAD, END, UNKNOWN, QUESTION, YES, NO, "\n", *"0123456789+-*()=?", "answer "]
# A prompt and the newline after it, then the solution and the end of text.
CHAT_TEMPLATE = (
    "{% for message in messages %}{{ message['content'] }}"
    "{{ '</s>' if message['role'] == 'assistant' else '\\n' }}{% endfor %}"
)
POSITIONS = 1024


def build_tokenizer() -> PreTrainedTokenizerFast:
    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(WORDS)}, unk_token=UNKNOWN))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(r"answer |[\s\S]"), "isolated")
    tokenizer.decoder = decoders.Fuse()
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token=PAD,
        eos_token=END,
        unk_token=UNKNOWN,
        additional_special_tokens=[QUESTION, YES, NO],
        chat_template=CHAT_TEMPLATE,
        padding_side="left",
        clean_up_tokenization_spaces=False,
        model_max_length=POSITIONS,
        model_input_names=["input_ids", "attention_mask"],
    )


def save(folder: Path, tokenizer: PreTrainedTokenizerFast) -> None:
    """Write the tokenizer as every release of transformers reads it, with the chat template in its configuration."""
    tokenizer.save_pretrained(folder, save_jinja_files=False)
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "pad_token": PAD,
        "eos_token": END,
        "unk_token": UNKNOWN,
        "additional_special_tokens": [QUESTION, YES, NO],
        "chat_template": CHAT_TEMPLATE,
        "padding_side": "left",
        "clean_up_tokenization_spaces": False,
        "model_max_length": POSITIONS,
        "model_input_names": ["input_ids", "attention_mask"],
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(config, indent=2) + "\n")
