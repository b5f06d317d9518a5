"""Tiny random causal language models of real architectures, and tokenizers for them, made in no time."""

import warnings

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import (
    AutoModelForCausalLM,
    LlamaConfig,
    MistralConfig,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen3Config,
)

from prunus import Tree
from prunus.generators.text_model import TextModel
from prunus.tree import seed_of

SIZES = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 512,
    "eos_token_id": 1,
    "bos_token_id": 0,
    "pad_token_id": 1,
}
FULL = {
    "llama": lambda size: LlamaConfig(**size),
    "qwen2": lambda size: Qwen2Config(**size),
    "qwen3": lambda size: Qwen3Config(**size, head_dim=16),
    "mistral": lambda size: MistralConfig(**size, sliding_window=None),
}


def hybrid(size):
    from transformers import Qwen3NextConfig

    return Qwen3NextConfig(
        **size,
        head_dim=16,
        layer_types=["linear_attention", "full_attention"],
        linear_conv_kernel_dim=4,
        linear_key_head_dim=8,
        linear_value_head_dim=8,
        linear_num_key_heads=2,
        linear_num_value_heads=4,
        num_experts=0,
        mlp_only_layers=[0, 1],
    )


def recurrent(size):
    from transformers import MambaConfig

    return MambaConfig(vocab_size=size["vocab_size"], hidden_size=32, state_size=8, num_hidden_layers=2, eos_token_id=1)


COPIED = {
    "sliding window": lambda size: MistralConfig(**size, sliding_window=8),
    "hybrid": hybrid,
    "recurrent": recurrent,
}


def byte_tokenizer(**options):
    """A token for each byte, so that most characters beyond ASCII are spread over several, and a few words."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {token: i for i, token in enumerate(["<s>", "</s>", *alphabet])}
    merges = []
    for word in ("ab", "Ġa", "Ġab"):
        parts = (word[:-1], word[-1])
        merges.append(parts)
        vocabulary[word] = len(vocabulary)
    core = Tokenizer(models.BPE(vocabulary, merges))
    core.pre_tokenizer, core.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    return PreTrainedTokenizerFast(tokenizer_object=core, bos_token="<s>", eos_token="</s>", **options)


def letter_tokenizer(letters="0123456789+-*()=? answer\n", unknown=True):
    """A token for each of these characters, and one for all others."""
    from tokenizers import Regex

    vocabulary = {token: i for i, token in enumerate(["<s>", "</s>", "<unk>", *sorted(set(letters))])}
    core = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    core.pre_tokenizer = pre_tokenizers.Split(Regex(r"[\s\S]"), "isolated")
    core.decoder = decoders.Fuse()
    names = {"bos_token": "<s>", "eos_token": "</s>"} | ({"unk_token": "<unk>"} if unknown else {})
    return PreTrainedTokenizerFast(tokenizer_object=core, **names)


def network(kind, vocabulary, seed=0, **sizes):
    """A random network of this architecture, whose tokens are far from equally probable."""
    config = {**FULL, **COPIED}[kind]({**SIZES, **sizes, "vocab_size": vocabulary})
    torch.manual_seed(seed)
    made = AutoModelForCausalLM.from_config(config).eval()
    with torch.no_grad():
        made.get_output_embeddings().weight.mul_(2 if kind == "recurrent" else 20)
    made.generation_config.do_sample = True
    return made


TOKENIZER = byte_tokenizer()
LETTERS = letter_tokenizer()


def model(kind="llama", tokenizer=TOKENIZER, **sizes):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        return TextModel(network(kind, len(tokenizer), **sizes), tokenizer, kind)


def liking(text, prompt):
    """A reward that has nothing to do with anything, but is not alike for two texts."""
    return seed_of(str(text)) / 2**63


def asks(tree, parents, **how):
    return tree.number([tree.ask(parent, **how) for parent in parents])


def planted(generator, prompt, seed=0):
    tree = Tree(prompt, seed, generator)
    tree.root.state = generator.begin(prompt)
    return tree


def grow(tree, parents, **how):
    rows = asks(tree, parents, **how)
    nodes = tree.add(rows, tree.generator.grow(rows))
    tree.settle(())
    return nodes


def grown_out(generator, prompt, branches=1, seed=0, **how):
    tree = planted(generator, prompt, seed)
    grow(tree, [tree.root] * branches, **how)
    while tree.frontier:
        grow(tree, tree.frontier, **how)
    return tree


def held(tree):
    """Bytes of all states of a tree."""
    return tree.generator.state_bytes([node.state for node in tree.nodes if node.state is not None])
