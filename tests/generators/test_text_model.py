"""Models from folders and GGUF files, and what is said of those that cannot be used."""

import json

import numpy as np
import pytest
import torch
from tiny_text import byte_tokenizer, letter_tokenizer, network

from prunus.errors import ModelError
from prunus.generators.text import TextGenerator
from prunus.generators.text_model import TextModel
from prunus.search import search
from prunus.strategies import BestOfN


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("model")
    tokenizer = letter_tokenizer()
    made = network("llama", len(tokenizer))
    made.generation_config.temperature = 0.8
    made.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def changed(folder, tmp_path, name, text):
    for file in folder.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    if text is None:
        (tmp_path / name).unlink()
    else:
        (tmp_path / name).write_text(text)
    return tmp_path


def test_a_folder_is_read_with_its_settings(folder):
    generator = TextGenerator.load(folder, max_tokens=20)
    tree = search("7+5=?", generator, lambda text, prompt: len(text), BestOfN(2))
    assert isinstance(tree.best().output, str) and not generator.model.why_copied
    spec = generator.spec()
    assert spec["temperature"] == 0.8 and spec["model"] == str(folder) and spec["step"] == "\n"
    json.dumps(spec)
    assert TextModel.load(folder, dtype="bfloat16").network.dtype == torch.bfloat16


def test_half_precision_shares_too(folder):
    model = TextModel.load(folder, dtype="bfloat16")
    text = model.encode("7+5=?\n7+5=12\n")
    [context], first = model.engine.read([model.engine.empty], [text[:8]])
    writing = model.engine.write([context] * 2)
    found = [first[0], *(writing.step(torch.tensor([t, t]))[1] for t in text[8:])]
    expected = model.network(torch.tensor([text])).logits[0, 7:]
    assert torch.allclose(torch.stack(found).float(), expected.float(), atol=0.15 * float(expected.abs().max()))
    assert not model.why_copied


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("config.json", None, "cannot be loaded as a causal language model"),
        ("config.json", "{", "cannot be loaded as a causal language model"),
        ("config.json", '{"model_type": "bert"}', "cannot be loaded|lacks weights"),
        ("model.safetensors", "not a tensor", "cannot be loaded as a causal language model"),
        ("tokenizer.json", "{", "has no tokenizer that can be loaded"),
    ],
)
def test_what_is_missing_or_damaged_is_named(folder, tmp_path, name, text, said):
    with pytest.raises(ModelError, match=said):
        TextModel.load(changed(folder, tmp_path, name, text))


def test_a_folder_that_is_not_there_is_named(tmp_path):
    with pytest.raises(ModelError, match="nowhere cannot be loaded"):
        TextModel.load(tmp_path / "nowhere")
    with pytest.raises(ModelError, match=r"nowhere\.gguf cannot be loaded"):
        TextModel.load(tmp_path / "nowhere.gguf")
    with pytest.raises(ModelError, match="dtype 'int8' is not known"):
        TextModel.load(tmp_path, dtype="int8")


def test_weights_that_would_be_random_are_refused(folder, tmp_path):
    from safetensors.torch import load_file, save_file

    changed(folder, tmp_path, "README", "")
    weights = load_file(tmp_path / "model.safetensors")
    del weights["model.layers.1.mlp.up_proj.weight"]
    save_file(weights, tmp_path / "model.safetensors", {"format": "pt"})
    with pytest.raises(ModelError, match=r"lacks weights of a LlamaForCausalLM: model\.layers\.1\.mlp\.up_proj"):
        TextModel.load(tmp_path)


def test_a_gguf_file_is_read_by_transformers(tmp_path, capfd):
    """A small Llama written as GGUF, its queries and keys permuted as that format has them, says the same."""
    gguf = pytest.importorskip("gguf")
    tokenizer = byte_tokenizer()
    made = network("llama", len(tokenizer), num_key_value_heads=4)
    config = made.config
    path = tmp_path / "tiny.gguf"
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_context_length(512)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_freq_base(10000.0)
    writer.add_rope_dimension_count(config.head_dim)
    writer.add_vocab_size(len(tokenizer))
    core = json.loads(tokenizer.backend_tokenizer.to_str())["model"]
    names = sorted(tokenizer.get_vocab(), key=tokenizer.get_vocab().get)
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list(names)
    writer.add_token_types([3, 3] + [1] * (len(names) - 2))
    writer.add_token_merges([" ".join(pair) for pair in core["merges"]])
    writer.add_bos_token_id(0)
    writer.add_eos_token_id(1)
    parts = {
        "self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v",
        "self_attn.o_proj": "attn_output", "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up",
        "mlp.down_proj": "ffn_down", "input_layernorm": "attn_norm", "post_attention_layernorm": "ffn_norm",
    }  # fmt: skip
    others = {"model.embed_tokens": "token_embd", "model.norm": "output_norm", "lm_head": "output"}
    for name, tensor in made.state_dict().items():
        value = tensor.float().numpy()
        stem = name.removesuffix(".weight")
        if stem in others:
            stem = others[stem]
        else:
            _, _, layer, rest = stem.split(".", 3)
            if rest in ("self_attn.q_proj", "self_attn.k_proj"):
                heads = config.num_attention_heads
                value = value.reshape(heads, 2, -1, value.shape[1]).swapaxes(1, 2).reshape(value.shape)
            stem = f"blk.{layer}.{parts[rest]}"
        writer.add_tensor(f"{stem}.weight", np.ascontiguousarray(value))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    model = TextModel.load(path)
    half = TextModel.load(path, dtype="bfloat16").network
    assert {p.dtype for p in half.parameters()} == {torch.bfloat16} and "packed" not in capfd.readouterr().err
    text = tokenizer("hello ab world").input_ids
    assert model.encode("hello ab world", chat=False)[-len(text) :] == text
    tokens = torch.tensor([text])
    assert torch.allclose(model.network(tokens).logits, made(tokens).logits, atol=1e-5)
    assert not model.why_copied
    generator = TextGenerator(model, 4, max_tokens=12, temperature=0, chat=False)
    tree = search("hello ab", generator, lambda text, prompt: 0.0, BestOfN(1))
    assert "".join(tree.best().output.steps) == tree.best().output
