"""Tiny random folders for text: a Llama or a BERT with a classification head, and a character tokenizer."""

import torch

CHARACTERS = ["<pad>", "<unk>", *"\n 0123456789+-*()=?answer"]


def write_tokenizer(folder, **tokens):
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    vocabulary = {c: i for i, c in enumerate(dict.fromkeys(CHARACTERS))}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(r"[\s\S]"), "isolated")
    tokenizer.decoder = decoders.Fuse()
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="<pad>", unk_token="<unk>", **tokens)
    fast.save_pretrained(folder)
    return len(vocabulary)


def write_folder(folder, kind, labels=("wrong", "right"), **settings):
    """A folder of ``kind``, such as LlamaForTokenClassification, whose weights are large enough to matter."""
    import transformers

    torch.manual_seed(0)
    config = getattr(transformers, f"{kind.split('For')[0]}Config")(
        vocab_size=write_tokenizer(folder),
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=settings.pop("positions", 128),
        pad_token_id=0,
        id2label=dict(enumerate(labels)),
        label2id={name: i for i, name in enumerate(labels)},
        **settings,
    )
    model = getattr(transformers, kind)(config)
    for weight in model.parameters():
        weight.data.normal_(0, 0.3)
    model.save_pretrained(folder)
    return folder
