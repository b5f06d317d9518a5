"""Causal language models: units, removal that the config can say, and export that loads in a fresh process."""

import copy
import json
import subprocess
import sys

import pytest
import tiny_text
import torch
from transformers import (
    AutoModelForCausalLM,
    Gemma2Config,
    GemmaConfig,
    GPT2Config,
    LlamaConfig,
    MistralConfig,
    Olmo2Config,
    Qwen2Config,
    Qwen3Config,
)

from prunus import pocket
from prunus.errors import FileError, ModelError, SettingError
from prunus.sparse import Masks, Recipe, prune, train
from prunus.sparse.allocation import Global
from prunus.sparse.macs import macs
from prunus.sparse.methods import LayerLottery, SparseGPT
from prunus.sparse.methods.layer_lottery import drop_blocks, removable_blocks
from prunus.sparse.models import load
from prunus.sparse.models.decoder import Decoder
from prunus.sparse.models.smaller_decoder import smaller

TOKENIZER = tiny_text.LETTERS
SIZES = {**tiny_text.SIZES, "num_hidden_layers": 3, "max_position_embeddings": 64, "vocab_size": len(TOKENIZER)}
FAMILIES = {
    "llama": LlamaConfig(**SIZES, attention_bias=True, mlp_bias=True),
    "own heads": LlamaConfig(**{**SIZES, "num_key_value_heads": 4}),
    "qwen2": Qwen2Config(**SIZES),
    "qwen3": Qwen3Config(**SIZES, head_dim=16),
    "mistral": MistralConfig(**SIZES, sliding_window=None),
    "gemma": GemmaConfig(**SIZES, head_dim=16),
    "gemma2": Gemma2Config(
        **SIZES,
        head_dim=16,
        query_pre_attn_scalar=16,
        sliding_window=4,
        layer_types=["sliding_attention", "full_attention", "full_attention"],
    ),
}


def network(config, seed=0):
    """Random weights that are large enough to matter, biases and norms among them."""
    torch.manual_seed(seed)
    made = AutoModelForCausalLM.from_config(copy.deepcopy(config), attn_implementation="eager").eval()
    for name, p in made.named_parameters():
        p.data.normal_(0, 0.3) if "norm" not in name else p.data.add_(torch.randn_like(p) * 0.1)
    return made


@pytest.fixture
def folder(tmp_path):
    """A Llama's folder and JSONL text beside it."""
    network(FAMILIES["own heads"]).save_pretrained(tmp_path / "model")
    TOKENIZER.save_pretrained(tmp_path / "model")
    rows = [{"prompt": f"{n}+1=", "completion": str(n + 1)} for n in range(40)]
    (tmp_path / "text.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return tmp_path


def brought(folder, **settings):
    return load(folder / "model", [folder / "text.jsonl"], length=32, **settings)


def less(masks, **units):
    """``masks`` without whole units: a kind's scope and, by group, which of its units go."""
    for scope, gone in units.values():
        places = {}
        for group, members in scope.groups.items():
            where = gone.get(group, gone.get("all", []))
            places[group] = torch.tensor([place in where for place in range(len(members))])
        masks = scope.without(masks, places)
    return masks


def check_same(model, masks, made):
    tokens = torch.randint(0, len(TOKENIZER), (2, 20), generator=torch.Generator().manual_seed(0))
    with masks.virtual(model), torch.no_grad():
        wanted = model(tokens).logits
    with torch.no_grad():
        found = made(tokens).logits
    assert torch.allclose(found, wanted, atol=1e-5 * float(wanted.abs().max()), rtol=0)


# ---- units -----------------------------------------------------------------------------------------------------------


def test_a_query_group_is_one_unit_with_its_keys_and_values():
    model = network(FAMILIES["llama"])  # 4 heads of 8, two to each key-value head
    masks = Masks.of(model)
    units = Decoder.of(model).units("heads", masks)
    assert [len(group) for group in units.groups.values()] == [2, 2, 2]
    gone = less(masks, heads=(units, {"model.layers.1": [1]}))
    block = "model.layers.1.self_attn"
    assert not bool(gone[f"{block}.q_proj.weight"][16:].any()) and bool(gone[f"{block}.q_proj.weight"][:16].all())
    assert not bool(gone[f"{block}.k_proj.weight"][8:].any()) and bool(gone[f"{block}.v_proj.weight"][:8].all())
    assert not bool(gone[f"{block}.o_proj.weight"][:, 16:].any())
    assert bool(gone["model.layers.0.self_attn.q_proj.weight"].all())


def test_a_channel_is_a_row_of_gate_and_up_and_a_column_of_down():
    model = network(FAMILIES["llama"])
    masks = Masks.of(model)
    gone = less(masks, channels=(Decoder.of(model).units("channels", masks), {"model.layers.2": [5]}))
    block = "model.layers.2.mlp"
    assert not bool(gone[f"{block}.gate_proj.weight"][5].any()) and not bool(gone[f"{block}.up_proj.weight"][5].any())
    assert not bool(gone[f"{block}.down_proj.weight"][:, 5].any())
    assert masks.kept - gone.kept == 3 * 32


# ---- removal ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("family", FAMILIES)
def test_what_is_removed_says_what_is_masked_and_its_config_says_how(family):
    model = network(FAMILIES[family])
    decoder, masks = Decoder.of(model), Masks.of(model)
    last = [0] if decoder.groups == 2 else [0, 2]
    masks = less(
        masks,
        channels=(decoder.units("channels", masks), {"all": range(0, 48, 3)}),
        heads=(decoder.units("heads", masks), {"all": last}),
        layers=(decoder.units("layers", masks), {"layers": [1]}),
    )
    for name, bias in model.named_parameters():  # what a removed layer adds beside its weights
        if name.startswith("model.layers.1.") and name.endswith("bias"):
            bias.data.zero_()
    made = smaller(model, masks)
    check_same(model, masks, made)
    config = made.config
    assert (config.num_hidden_layers, config.intermediate_size, config.num_attention_heads) == (2, 32, 2)
    assert config.num_key_value_heads == 2 // decoder.queries
    assert config.head_dim == decoder.width
    again = AutoModelForCausalLM.from_config(type(config).from_dict(config.to_dict()))
    assert {n: p.shape for n, p in again.named_parameters()} == {n: p.shape for n, p in made.named_parameters()}
    if family == "gemma2":
        assert config.layer_types == ["sliding_attention", "full_attention"]


def test_the_dense_model_is_left_as_it_was():
    model = network(FAMILIES["llama"])
    before = {name: p.clone() for name, p in model.named_parameters()}
    masks = Masks.of(model)
    smaller(model, less(masks, layers=(Decoder.of(model).units("layers", masks), {"layers": [0, 2]})))
    assert all(torch.equal(p, before[name]) for name, p in model.named_parameters())
    assert len(model.model.layers) == model.config.num_hidden_layers == 3


def test_widths_that_differ_by_one_are_filled_up_and_are_rounded():
    model = network(FAMILIES["qwen2"])
    masks = Masks.of(model)
    units = Decoder.of(model).units("channels", masks)
    uneven = less(masks, channels=(units, {"all": range(20), "model.layers.0": range(21)}))
    made = smaller(model, uneven)
    assert made.config.intermediate_size == 28
    check_same(model, uneven, made)
    rounded = smaller(model, uneven, round_to=16)
    assert rounded.config.intermediate_size == 32
    check_same(model, uneven, rounded)


def test_units_that_the_config_cannot_say_are_errors_with_the_remedy():
    model = network(FAMILIES["own heads"])
    masks, decoder = Masks.of(model), Decoder.of(model)
    channels, heads = decoder.units("channels", masks), decoder.units("heads", masks)
    with pytest.raises(
        ModelError, match=r"keep 46, 48, 48 channels.*one FFN width.*uniformly by layer.*save the masks"
    ):
        smaller(model, less(masks, channels=(channels, {"model.layers.0": [1, 2]})))
    with pytest.raises(ModelError, match=r"keep 2, 4, 4 heads.*one number of heads"):
        smaller(model, less(masks, heads=(heads, {"model.layers.0": [1, 2]})))
    with pytest.raises(ModelError, match=r"3 heads in 3 groups cannot be said by a LlamaConfig.*keep 1 or 2 or 4"):
        smaller(model, less(masks, heads=(heads, {"all": [1]})))
    with pytest.raises(ModelError, match="all layers are wholly pruned"):
        smaller(model, less(masks, layers=(decoder.units("layers", masks), {"layers": [0, 1, 2]})))
    with pytest.raises(ModelError, match="nothing can be removed"):
        smaller(model, prune(model, masks, 0.5))


def test_attention_with_weights_over_all_heads_keeps_its_heads():
    model = network(Olmo2Config(**SIZES))
    masks, decoder = Masks.of(model), Decoder.of(model)
    assert not decoder.heads_stand_alone
    with pytest.raises(ModelError, match="weights over all heads together"):
        smaller(model, less(masks, heads=(decoder.units("heads", masks), {"all": [0]})))
    masks = less(masks, channels=(decoder.units("channels", masks), {"all": [0]}))
    check_same(model, masks, smaller(model, masks))


def test_an_unknown_decoder_is_an_error_that_says_what_is_missing():
    with pytest.raises(ModelError, match=r"GPT2LMHeadModel.*single weights"):
        Decoder.of(AutoModelForCausalLM.from_config(GPT2Config(vocab_size=9, n_embd=8, n_layer=2, n_head=2)))


def test_a_config_with_sizes_of_its_own_for_each_layer_is_an_error():
    model = network(FAMILIES["llama"])
    object.__setattr__(model.config, "intermediate_size", [48, 48, 48])
    with pytest.raises(ModelError, match="does not say one hidden size, FFN width"):
        Decoder.of(model)


def test_a_family_that_scales_by_what_became_smaller_is_found_out():
    model = network(FAMILIES["llama"])
    plain = type(model).forward

    class Scaling(type(model)):
        def forward(self, *args, **kwargs):
            found = plain(self, *args, **kwargs)
            found.logits = found.logits * self.config.intermediate_size
            return found

    model.__class__ = Scaling
    AutoModelForCausalLM.register(type(model.config), Scaling, exist_ok=True)
    try:
        masks = Masks.of(model)
        masks = less(masks, channels=(Decoder.of(model).units("channels", masks), {"all": [0]}))
        with pytest.raises(ModelError, match="says other things than the masked one"):
            smaller(model, masks)
    finally:
        AutoModelForCausalLM._model_mapping._extra_content.pop(type(model.config))


# ---- the folder ------------------------------------------------------------------------------------------------------


def test_a_folder_is_a_task_and_a_model_that_trains(folder):
    lm = brought(folder, batch_size=2)
    assert (lm.kind, lm.pretrained, lm.unit_kinds()) == ("causal-lm", True, ("channels", "heads", "layers"))
    assert lm.exclude() == ("lm_head.weight",)
    model = lm.build()
    before = lm.task.evaluate(model, "validation")
    assert train(model, lm.task, Recipe(3)).steps == 3
    assert lm.task.evaluate(model, "validation").loss < before.loss
    assert lm.task.evaluate(lm.build(), "validation") == before
    with pytest.raises(SettingError, match=r"'filters' is no unit.*channels, heads, layers"):
        lm.units("filters", Masks.of(model))


def test_a_tied_output_layer_needs_no_exclusion(folder):
    assert load(pocket.path("lm"), [folder / "text.jsonl"], length=32).exclude() == ()


def test_multiply_adds_are_those_of_the_formula(folder):
    lm = brought(folder)
    rows, wide, deep, vocabulary = 32, 48, 3, len(TOKENIZER)
    a_layer = rows * (4 * 32 * 32 + 3 * 32 * wide) + 2 * rows * rows * 32  # eager attention multiplies the whole square
    assert macs(lm.build(), lm.task.example) == deep * a_layer + rows * 32 * vocabulary


LOGITS = """
import sys, torch
from transformers import AutoModelForCausalLM, AutoTokenizer
model, tokenizer = AutoModelForCausalLM.from_pretrained(sys.argv[1]), AutoTokenizer.from_pretrained(sys.argv[1])
print(model(**tokenizer("1+2=3", return_tensors="pt")).logits.flatten().tolist())
"""


def test_a_smaller_model_says_the_same_in_a_fresh_process(folder):
    lm = brought(folder, round_to=16)
    model = lm.build()
    masks = Masks.of(model, lm.exclude())
    for kind, density in (("channels", 0.6), ("heads", 0.5), ("layers", 0.67)):
        masks = prune(model, masks, density, scope=lm.units(kind, masks))
    made = lm.remove(model, masks)
    facts = lm.export(made, None, folder / "small")
    assert "real on any hardware" in facts["speed_up"]
    assert {"config.json", "model.safetensors", "tokenizer.json", "pruning.json"} <= set(facts["files"])
    assert not any(name.endswith((".bin", ".pt")) for name in facts["files"])
    done = subprocess.run([sys.executable, "-c", LOGITS, str(folder / "small")], capture_output=True, text=True)
    found = torch.tensor(json.loads(done.stdout))
    wanted = made(**TOKENIZER("1+2=3", return_tensors="pt")).logits.flatten()
    assert torch.allclose(found, wanted, atol=1e-5)
    with masks.virtual(model):
        masked = model(**TOKENIZER("1+2=3", return_tensors="pt")).logits.flatten()
    assert torch.allclose(found, masked, atol=1e-4)
    config = json.loads((folder / "small" / "config.json").read_text())
    assert (config["intermediate_size"], config["num_attention_heads"], config["head_dim"]) == (32, 2, 8)
    again = load(folder / "small", [folder / "text.jsonl"], length=32)
    assert again.task.evaluate(again.build(), "test").loss == pytest.approx(lm.task.evaluate(made, "test").loss)


def test_masks_are_written_with_zeros_and_promise_no_speed(folder):
    lm = brought(folder)
    model = lm.build()
    masks = prune(model, Masks.of(model, lm.exclude()), 0.4, allocation=Global())
    facts = lm.export(model, masks, folder / "masked")
    assert facts["speed_up"].startswith("none on ordinary libraries")
    written = AutoModelForCausalLM.from_pretrained(folder / "masked")
    name = next(iter(masks))
    assert torch.equal(dict(written.named_parameters())[name] != 0, masks[name])
    assert Masks.load(folder / "masked" / "masks.safetensors", written) == masks


def test_half_precision_is_pruned_and_written_as_it_is(folder):
    lm = brought(folder, dtype="bfloat16")
    model = lm.build()
    masks = SparseGPT(batches=1).prune(model, Masks.of(model, lm.exclude()), lm.task)
    assert all(not bool(weight[~masks[name]].any()) for name, weight in masks.weights(model).items())
    masks = prune(model, Masks.of(model), 0.5, scope=lm.units("channels", Masks.of(model)))
    lm.export(lm.remove(model, masks), None, folder / "half")
    assert json.loads((folder / "half" / "config.json").read_text())["dtype"] == "bfloat16"
    with pytest.raises(SettingError, match=r"dtype = 'int4'.*float32"):
        brought(folder, dtype="int4")


def test_dropped_layers_are_said_by_the_config(folder):
    lm = brought(folder)
    assert removable_blocks(lm.build(), lm.task.example) == [f"model.layers.{i}" for i in range(3)]
    found = LayerLottery(p=1, at="trained", rewind_to=0).run(lm.build, lm.task, Recipe(2))
    twice = drop_blocks(found.model, ["model.layers.1"])
    lm.export(twice, None, folder / "short")
    written = AutoModelForCausalLM.from_pretrained(folder / "short", attn_implementation="eager")
    assert written.config.num_hidden_layers == 1 and written.config.use_cache
    tokens = lm.task.example
    assert torch.allclose(written(tokens).logits, twice(tokens).logits, atol=1e-5)


def test_a_model_that_was_made_smaller_elsewhere_cannot_be_exported(folder):
    lm = brought(folder)
    model = lm.build()
    model.model.layers[0].mlp.up_proj = torch.nn.Linear(32, 40, bias=False)
    with pytest.raises(ModelError, match=r"layers\.0\.mlp\.up_proj\.weight is \(40, 32\) in the model, \(48, 32\) by"):
        lm.export(model, None, folder / "odd")
    assert not (folder / "odd").exists()
    assert lm.export(lm.build(), None, folder / "dense")["speed_up"] == "none: nothing was removed"


def test_places_that_cannot_be_written(folder, file_size_limit):
    lm = brought(folder)
    with pytest.raises(FileError, match="exists already"):
        lm.export(lm.build(), None, folder / "model")
    with file_size_limit(5000), pytest.raises(FileError, match=r"cannot write .*make room"):
        lm.export(lm.build(), None, folder / "full")
    assert sorted(p.name for p in folder.iterdir()) == ["model", "text.jsonl"]


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda model: (model / "config.json").unlink(), "config.json does not exist"),
        (lambda model: (model / "model.safetensors").unlink(), "cannot be loaded as a causal language model"),
        (lambda model: (model / "model.safetensors").write_bytes(b"{}"), "cannot be loaded as a causal language model"),
        (lambda model: (model / "tokenizer.json").unlink(), "tokenizer"),
        (lambda model: (model / "config.json").write_text("[]"), "holds a list"),
        (
            lambda model: (model / "config.json").write_text('{"architectures": ["BertForMaskedLM"]}'),
            "holds BertForMaskedLM, which cannot be pruned here",
        ),
    ],
)
def test_damaged_folders_are_errors(folder, change, says):
    change(folder / "model")
    if says == "tokenizer":
        (folder / "model" / "tokenizer_config.json").unlink(missing_ok=True)
    with pytest.raises(ModelError, match=says):
        brought(folder)


def test_what_is_no_model_and_settings_that_are_none(folder):
    with pytest.raises(ModelError, match=r"nowhere is no folder and no import path; name a transformers folder"):
        load("nowhere")
    with pytest.raises(SettingError, match=r"settings = \['colour'\].*length"):
        brought(folder, colour="red")
    with pytest.raises(SettingError, match="from 2 to the 64 positions"):
        load(folder / "model", [folder / "text.jsonl"], length=100)
    with pytest.raises(SettingError, match="device 'nope' cannot be used"):
        brought(folder, device="nope")
