"""Tiny Wan generators under the names that their authors' code gives them; the names are written down here by hand."""

import torch

WIDTH, FEED, TEXT, FREQUENCY, CHANNELS = 128, 48, 16, 16, 4

OUTSIDE = {
    "patch_embedding": "patch_embedding",
    "text_embedding.0": "condition_embedder.text_embedder.linear_1",
    "text_embedding.2": "condition_embedder.text_embedder.linear_2",
    "time_embedding.0": "condition_embedder.time_embedder.linear_1",
    "time_embedding.2": "condition_embedder.time_embedder.linear_2",
    "time_projection.1": "condition_embedder.time_proj",
    "head.head": "proj_out",
}
BLOCK = {
    **{f"{old}.{a}": f"{new}.{b}" for old, new in (("self_attn", "attn1"), ("cross_attn", "attn2"))
       for a, b in (("q", "to_q"), ("k", "to_k"), ("v", "to_v"), ("o", "to_out.0"))},
    "norm3": "norm2",
    "ffn.0": "ffn.net.0.proj",
    "ffn.2": "ffn.net.2",
}  # fmt: skip
NORMS = {f"{o}.norm_{x}.weight": f"{n}.norm_{x}.weight" for o, n in (("self_attn", "attn1"), ("cross_attn", "attn2"))
         for x in "qk"}  # fmt: skip
LINEAR = [name for name in BLOCK if name != "norm3"]
"""What LongLive's LoRA changes in each block."""


def names(layers):
    """Original name -> diffusers' name of every parameter."""
    pairs = {"head.modulation": "scale_shift_table"}
    pairs |= {f"{o}.{kind}": f"{n}.{kind}" for o, n in OUTSIDE.items() for kind in ("weight", "bias")}
    for i in range(layers):
        pairs |= {f"blocks.{i}.{o}.{k}": f"blocks.{i}.{n}.{k}" for o, n in BLOCK.items() for k in ("weight", "bias")}
        pairs |= {f"blocks.{i}.{o}": f"blocks.{i}.{n}" for o, n in NORMS.items()}
        pairs |= {f"blocks.{i}.modulation": f"blocks.{i}.scale_shift_table"}
    return pairs


def transformer(layers=2):
    """A random diffusers transformer: one head of 128 dimensions."""
    from diffusers import WanTransformer3DModel

    torch.manual_seed(0)
    return WanTransformer3DModel(
        num_attention_heads=1,
        attention_head_dim=WIDTH,
        in_channels=CHANNELS,
        out_channels=CHANNELS,
        text_dim=TEXT,
        freq_dim=FREQUENCY,
        ffn_dim=FEED,
        num_layers=layers,
    ).eval()


def original(model, prefix="model."):
    """The model's weights as a trainer's code names them."""
    weights = model.state_dict()
    pairs = names(model.config.num_layers)
    assert len(pairs) == len(weights)
    return {prefix + old: weights[new].clone() for old, new in pairs.items()}


@torch.no_grad()
def output(model):
    """What a model makes of a fixed input."""
    draw = torch.Generator().manual_seed(1)
    latents = torch.randn(1, CHANNELS, 2, 4, 4, generator=draw)
    text = torch.randn(1, 5, TEXT, generator=draw)
    return model(latents, torch.tensor([500.0]), text).sample


def lora(layers=2, rank=4):
    """A LoRA as peft names it: (out, rank) and (rank, in) factors of every linear layer of every block."""
    draw = torch.Generator().manual_seed(2)
    factors = {}
    for i in range(layers):
        for name in LINEAR:
            outer, inner = {"ffn.0": (FEED, WIDTH), "ffn.2": (WIDTH, FEED)}.get(name, (WIDTH, WIDTH))
            layer = f"base_model.model.blocks.{i}.{name}"
            factors[f"{layer}.lora_A.weight"] = 0.1 * torch.randn(rank, inner, generator=draw)
            factors[f"{layer}.lora_B.weight"] = 0.1 * torch.randn(outer, rank, generator=draw)
    return factors
