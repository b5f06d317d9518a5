"""Text that comes token by token: joined it is what decoding all tokens at once gives."""

import random

import pytest
from tiny_text import byte_tokenizer
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

from prunus.generators.detokenizer import Detokenizer

TEXT = "a ab 7+5=12\n ünïcödé 汉字 👩‍👩‍👧 x \n\n  two"


def sentence_piece():
    """Llama's way: words begin with a lower bar that is dropped at the start, bytes stand in for what is unknown."""
    words = ["▁", "▁a", "▁ab", "▁two", "7", "5", "+", "=", "12", "x", "\n", *(f"<0x{i:02X}>" for i in range(256))]
    core = Tokenizer(models.BPE({w: i for i, w in enumerate(words)}, [], byte_fallback=True))
    core.pre_tokenizer = pre_tokenizers.Metaspace()
    core.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    return core


def decoders_and_tokens():
    bytewise, pieces = byte_tokenizer(), sentence_piece()

    def decode(tokens):
        return bytewise.decode(list(tokens), skip_special_tokens=True, clean_up_tokenization_spaces=False)

    by_bytes = [token for word in TEXT.split("▁") for token in bytewise(word, add_special_tokens=False).input_ids]
    names = {pieces.id_to_token(i): i for i in range(pieces.get_vocab_size())}
    by_pieces = [
        names["▁a"],
        names["▁ab"],
        names["▁"],
        *(names[f"<0x{b:02X}>"] for b in "汉ö👧".encode()),
        names["▁two"],
    ]
    return {"bytes": (decode, by_bytes), "pieces": (lambda t: pieces.decode(list(t)), by_pieces)}


CASES = decoders_and_tokens()


@pytest.mark.parametrize("kind", CASES)
@pytest.mark.parametrize("prompt", [0, 1, 3, 7])
def test_joined_it_is_the_whole_text(kind, prompt):
    decode, tokens = CASES[kind]
    tokens = tokens * 3
    begun = decode(tokens[:prompt])
    if begun.endswith("\ufffd"):
        pytest.skip("this prompt ends inside a character")
    writer = Detokenizer(decode, tokens[:prompt])
    parts = [writer.add(token) for token in tokens[prompt:]] + [writer.rest()]
    assert "".join(parts) == decode(tokens)[len(begun) :]
    assert not any("\ufffd" in part for part in parts)  # only whole characters are given out
    assert "" in parts


def test_bytes_that_are_no_text_come_out_as_decoding_has_them():
    decode, _ = CASES["bytes"]
    draw = random.Random(0)
    for _ in range(50):
        tokens = [draw.randrange(2, 261) for _ in range(40)]
        writer = Detokenizer(decode)
        assert "".join([writer.add(token) for token in tokens] + [writer.rest()]) == decode(tokens)


def test_a_copy_goes_its_own_way():
    decode, tokens = CASES["bytes"]
    writer = Detokenizer(decode)
    start = "".join(writer.add(token) for token in tokens[:20])
    other = writer.copy()
    assert start + "".join(other.add(token) for token in tokens[20:]) == TEXT
    assert start + "".join(writer.add(token) for token in tokens[20:]) == TEXT
