"""Streaming on the unchanged Wan class against one masked pass over the whole clip, written here on its own."""

import copy
import threading
from dataclasses import replace

import pytest
import torch
from diffusers import WanTransformer3DModel
from torch.utils.flop_counter import FlopCounterMode

from prunus.errors import ModelError
from prunus.generators import wan_attention
from prunus.generators.kv_cache import Block, Cache, CacheSpec, unique_bytes
from prunus.generators.wan_attention import rotate
from prunus.generators.wan_flops import flops, text_flops
from prunus.generators.wan_streaming import Context, StreamingTransformer, block_causal

SIZE, TOKENS = (4, 6), 6  # latents; 2 x 3 tokens a frame
UNLIMITED = CacheSpec(window=None)
TIME = 937.5


def build(heads: int = 2, dim: int = 24, layers: int = 3) -> WanTransformer3DModel:
    torch.manual_seed(0)
    transformer = WanTransformer3DModel(
        patch_size=(1, 2, 2),
        num_attention_heads=heads,
        attention_head_dim=dim,
        in_channels=4,
        out_channels=4,
        text_dim=16,
        freq_dim=32,
        ffn_dim=64,
        num_layers=layers,
    ).eval()
    for block in transformer.blocks:  # attention sharp enough that a wrong position shows
        torch.nn.init.normal_(block.attn1.norm_q.weight, 2.0, 0.2)
        torch.nn.init.normal_(block.attn2.norm_q.weight, 2.0, 0.2)
    return transformer.requires_grad_(False)


class ReferenceProcessor:
    """Plain masked softmax attention, diffusers' rotary embedding, one list of what every layer's keys were."""

    def __init__(self, mask: torch.Tensor, rotary: tuple[torch.Tensor, torch.Tensor]) -> None:
        self.mask, self.rotary, self.seen = mask, rotary, []

    def __call__(self, attn, hidden, encoder_hidden_states=None, attention_mask=None, rotary_emb=None):
        source = hidden if encoder_hidden_states is None else encoder_hidden_states
        query, key, value = attn.norm_q(attn.to_q(hidden)), attn.norm_k(attn.to_k(source)), attn.to_v(source)
        query, key, value = (x.unflatten(2, (attn.heads, -1)) for x in (query, key, value))
        if encoder_hidden_states is None:
            query, key = self.turn(query), self.turn(key)
            self.seen.append((key[0], value[0]))
        scores = torch.einsum("nqhd,nkhd->nhqk", query, key) / query.shape[-1] ** 0.5
        if encoder_hidden_states is None:
            scores = scores.masked_fill(~self.mask, float("-inf"))
        out = torch.einsum("nhqk,nkhd->nqhd", scores.softmax(-1), value)
        return attn.to_out[0](out.flatten(2))

    def turn(self, x: torch.Tensor) -> torch.Tensor:
        cos, sin = self.rotary
        out = torch.empty_like(x)
        out[..., 0::2] = x[..., 0::2] * cos[..., 0::2] - x[..., 1::2] * sin[..., 0::2]
        out[..., 1::2] = x[..., 0::2] * sin[..., 1::2] + x[..., 1::2] * cos[..., 1::2]
        return out


def reference(transformer, latents, times, embeds, mask, positions=None):
    """One pass over a clip (1, c, f, h, w): a timestep per frame, a mask (f, f), absolute positions."""
    transformer = copy.deepcopy(transformer)
    frames = latents.shape[2]
    positions = torch.arange(frames) if positions is None else positions
    longest = torch.zeros(1, 4, int(positions.max()) + 1, *SIZE)
    rotary = tuple(table.unflatten(1, (-1, TOKENS))[:, positions].flatten(1, 2) for table in transformer.rope(longest))
    processor = ReferenceProcessor(mask.repeat_interleave(TOKENS, 0).repeat_interleave(TOKENS, 1), rotary)
    transformer.set_attn_processor(processor)
    out = transformer(latents, times.repeat_interleave(TOKENS)[None], embeds[None], return_dict=False)[0]
    keys, values = (torch.stack(parts) for parts in zip(*processor.seen, strict=True))
    return out, keys, values


@pytest.fixture(scope="module")
def transformer():
    return build()


@pytest.fixture(scope="module")
def model(transformer):
    return StreamingTransformer(copy.deepcopy(transformer))


def prompt(tokens: int = 7, seed: int = 5) -> torch.Tensor:
    return torch.randn(tokens, 16, generator=torch.Generator().manual_seed(seed))


def noise(n: int = 1, frames: int = 3, seed: int = 0) -> torch.Tensor:
    return torch.randn(n, 4, frames, *SIZE, generator=torch.Generator().manual_seed(seed))


def stream(model, clip, chunks, text, spec=UNLIMITED, gates=None):
    """Commit a clean clip chunk by chunk. Returns the last cache and each chunk's context."""
    cache, contexts = model.cache(spec), []
    for chunk in clip.split(chunks, 2):
        cache = cache.make_room(gates, chunk.shape[2])
        contexts.append(model.context(cache, text, SIZE))
        cache = cache.commit(model.commit(chunk, contexts[-1:])[0])
    return cache, contexts


def past(model, text, chunks: int, seed: int = 1, first: int = 3) -> Context:
    clip = noise(frames=first + 3 * (chunks - 1), seed=seed)
    return model.context(stream(model, clip, [first] + [3] * (chunks - 1), text)[0], text, SIZE)


def close(actual, expected, bound=1e-5):
    torch.testing.assert_close(actual, expected, atol=bound, rtol=0)


@pytest.mark.parametrize("chunks", [[3, 3, 3, 3], [1, 3, 3, 3], [2, 1, 4]], ids=str)
@pytest.mark.parametrize("shape", [(2, 24, 3), (3, 16, 2)], ids=str)
def test_chunk_by_chunk_equals_one_block_causal_pass(chunks, shape):
    transformer = build(*shape)
    model = StreamingTransformer(copy.deepcopy(transformer))
    clip, noisy, embeds = noise(frames=sum(chunks)), noise(frames=sum(chunks), seed=9), prompt()
    cache, contexts = stream(model, clip, chunks, model.text(embeds))
    ids = torch.arange(len(chunks)).repeat_interleave(torch.tensor(chunks))
    mask = ids[:, None] >= ids[None, :]

    _, keys, values = reference(transformer, clip, torch.zeros(sum(chunks)), embeds, mask)
    close(torch.cat([block.keys for block in cache.blocks], 1), keys, 1e-4)
    close(torch.cat([block.values for block in cache.blocks], 1), values, 1e-4)

    for index, (start, chunk) in enumerate(zip([sum(chunks[:i]) for i in range(len(chunks))], chunks, strict=True)):
        end = start + chunk
        mixed = torch.cat((clip[:, :, :start], noisy[:, :, start:end]), 2)
        times = torch.cat((torch.zeros(start), torch.full((chunk,), TIME)))
        expected = reference(transformer, mixed, times, embeds, mask[:end, :end])[0][:, :, start:]
        actual = model.velocity(noisy[:, :, start:end], torch.tensor([TIME]), contexts[index : index + 1])
        assert expected.std() > 0.1
        close(actual, expected, 1e-4)


@pytest.mark.parametrize("gates", [{}, {1: "append", 3: "append"}], ids=["discard", "append"])
def test_sinks_and_window_equal_one_pass_in_which_each_chunk_sees_what_the_cache_held(transformer, model, gates):
    clip, noisy, embeds = noise(frames=21), noise(frames=3, seed=9), prompt()
    text, cache, seen = model.text(embeds), model.cache(CacheSpec()), torch.zeros(24, 24, dtype=torch.bool)
    for chunk in range(7):
        cache = cache.make_room(gates)
        context = model.context(cache, text, SIZE)
        cache = cache.commit(model.commit(clip[:, :, 3 * chunk : 3 * chunk + 3], [context])[0])
        for block in cache.blocks:
            seen[3 * chunk : 3 * chunk + 3, block.start : block.end] = True
    cache = cache.make_room(gates)
    for start in [block.start for block in cache.blocks] + [21]:
        seen[21:, start : start + 3] = True
    assert list(cache.append_starts) == [3 * chunk for chunk in gates]
    mixed, times = torch.cat((clip, noisy), 2), torch.cat((torch.zeros(21), torch.full((3,), TIME)))
    expected = reference(transformer, mixed, times, embeds, seen)[0][:, :, 21:]
    context = model.context(cache, text, SIZE)
    close(model.velocity(noisy, torch.tensor([TIME]), [context]), expected, 1e-4)
    # The bound discriminates: a query one frame off is far outside of it.
    off = model.velocity(noisy, torch.tensor([TIME]), [replace(context, start=22)])
    assert (off - expected).abs().max() > 1e-3


def test_merging_rotated_keys_is_rotating_merged_keys(model):
    """Chunk 2 leaves the window and is mixed into the base sink, then chunk 3 into that, at the sink's own frames."""
    torch.manual_seed(0)
    plain = [torch.randn(2, 3, 3 * TOKENS, 2, 24) for _ in range(8)]
    cache = model.cache(CacheSpec(ema=0.75))
    for b, (keys, values) in enumerate(plain):
        turned = rotate(keys, model.rotations(torch.arange(3 * b, 3 * b + 3), SIZE))
        cache = cache.make_room({2: "ema", 3: "ema"}).commit(Block(turned, values, b, 3 * b, 3))
    sink = cache.sinks[0]
    assert [block.start for block in cache.blocks] == [0, 15, 18, 21] and sink.name == "0+2+3"
    merged = (3 * (3 * plain[0] + plain[2]) / 4 + plain[3]) / 4
    close(sink.keys, rotate(merged[0], model.rotations(torch.arange(3), SIZE)))
    close(sink.values, merged[1])
    assert (sink.keys - merged[0]).abs().max() > 0.1


def test_keys_can_be_moved_both_ways(model):
    torch.manual_seed(0)
    keys = torch.randn(3, 3 * TOKENS, 2, 24)
    turned = rotate(keys, model.rotations(torch.arange(30, 33), SIZE))
    close(model.turn(turned, 7), rotate(keys, model.rotations(torch.arange(37, 40), SIZE)))
    close(model.turn(turned, -30), rotate(keys, model.rotations(torch.arange(3), SIZE)))


@pytest.mark.parametrize("merged", [True, False], ids=["log-sum-exp", "side by side"])
def test_rows_in_one_batch_equal_single_runs(model, monkeypatch, merged):
    if not merged:
        monkeypatch.setattr(wan_attention, "FLASH_WITH_LSE", None)
    one, two = model.text(prompt(7)), model.text(prompt(16, seed=6))
    parents = [past(model, one, 4), past(model, two, 2, seed=2), past(model, one, 3, seed=3, first=1)]
    parents.append(model.context(Cache(), one, SIZE))
    cousin, _ = stream(model, noise(frames=9, seed=1), 3, one)  # 4 and 5 have the first 3 of their 4 chunks in common
    cousins = [model.commit(noise(seed=seed), [model.context(cousin, one, SIZE)])[0] for seed in (11, 12)]
    parents += [model.context(cousin.commit(block), one, SIZE) for block in cousins]
    for rows in ([0, 0, 0, 0], [0, 0, 1, 1], [2, 0, 1, 2, 3, 1, 0], [3, 3], [4, 5, 0, 5, 4, 1], [4, 5]):
        latents, times = noise(len(rows), seed=4), torch.tensor([1000, TIME, 833.3, 625])[torch.arange(len(rows)) % 4]
        contexts = [parents[row] for row in rows]
        together = model.velocity(latents, times, contexts)
        blocks = model.commit(latents, contexts)
        for i in range(len(rows)):
            close(together[i : i + 1], model.velocity(latents[i : i + 1], times[i : i + 1], contexts[i : i + 1]))
            alone = model.commit(latents[i : i + 1], contexts[i : i + 1])[0]
            assert (blocks[i].chunk, blocks[i].start) == (contexts[i].chunk, contexts[i].start)
            close(blocks[i].keys, alone.keys)
            close(blocks[i].values, alone.values)


def test_branching_eight_times_adds_no_bytes_and_eight_blocks_when_committed(model):
    text = model.text(prompt())
    parent, _ = stream(model, noise(frames=21), 3, text)
    context = model.context(parent, text, SIZE)
    before = unique_bytes([parent])
    children = [parent.commit(block) for block in model.commit(noise(8, seed=3), [context] * 8)]
    assert before == 7 * unique_bytes([parent.blocks[0]])
    assert unique_bytes([parent, *children]) - before == 8 * unique_bytes([parent.blocks[0]])


def test_rows_attend_once_to_a_block_that_they_share(model, monkeypatch):
    """Two parents with 3 chunks in common and one of their own, two children each: 6 attentions a layer with theirs."""
    calls = []
    flash = wan_attention.FLASH_WITH_LSE
    monkeypatch.setattr(
        wan_attention, "FLASH_WITH_LSE", lambda q, k, v: calls.append((q.shape[2], k.shape[2])) or flash(q, k, v)
    )
    text, own = model.text(prompt()), 3 * TOKENS
    cousin, _ = stream(model, noise(frames=9), 3, text)
    blocks = model.commit(noise(2), [model.context(cousin, text, SIZE)] * 2)
    contexts = [model.context(cousin.commit(block), text, SIZE) for block in blocks]
    calls.clear()
    model.velocity(noise(4), torch.full((4,), TIME), [contexts[0], contexts[1]] * 2)
    assert calls == 3 * [(own, own), *3 * [(4 * own, own)], *2 * [(2 * own, own)]]


def test_two_threads_use_one_model(model):
    texts = [model.text(prompt(4)), model.text(prompt(16, seed=6))]
    contexts = [[past(model, texts[0], 4)] * 2, [past(model, texts[1], 2, seed=2)] * 3]
    latents = [noise(2, seed=7), noise(3, seed=8)]
    expected = [model.velocity(x, torch.full((len(x),), TIME), c) for x, c in zip(latents, contexts, strict=True)]
    results: list[list[torch.Tensor]] = [[], []]
    start = threading.Barrier(2)

    def run(which: int) -> None:
        start.wait()
        for _ in range(20):
            x = latents[which]
            results[which].append(model.velocity(x, torch.full((len(x),), TIME), contexts[which]))

    threads = [threading.Thread(target=run, args=(which,)) for which in (0, 1)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for which in (0, 1):
        assert len(results[which]) == 20
        for result in results[which]:
            close(result, expected[which])


def test_clip_velocity_equals_the_reference(transformer, model):
    """Clean and noisy chunks in one sequence, a timestep and a position per frame, padded prompts of two lengths."""
    clip, embeds = noise(2, 9), [prompt(7), prompt(3, seed=6)]
    times = torch.rand(2, 9, generator=torch.Generator().manual_seed(1)) * 1000
    positions = torch.tensor([[0, 1, 2, 30, 31, 32, 60, 61, 62], [0, 1, 2, 3, 4, 5, 6, 7, 8]])
    masks = torch.stack([block_causal(torch.arange(9) // 3), torch.rand(9, 9) > 0.4]) | torch.eye(9, dtype=torch.bool)
    padded = torch.stack([embeds[0], torch.cat((embeds[1], torch.ones(4, 16)))])
    real = torch.tensor([[True] * 7, [True] * 3 + [False] * 4])
    actual = model.clip_velocity(clip, times, padded, masks, positions, real)
    for i in range(2):
        expected = reference(transformer, clip[i : i + 1], times[i], embeds[i], masks[i], positions[i])[0]
        close(actual[i : i + 1], expected, 1e-4)
    unmasked = model.clip_velocity(clip[:1], times[:1], padded[:1])
    everything = torch.ones(9, 9, dtype=torch.bool)
    close(unmasked, reference(transformer, clip[:1], times[0], embeds[0], everything)[0], 1e-4)


def test_clip_velocity_trains(transformer):
    trained = copy.deepcopy(transformer).requires_grad_(True)
    model = StreamingTransformer(trained)
    mask = block_causal(torch.arange(6) // 3)
    arguments = torch.full((2, 6), 500.0), prompt().expand(2, -1, -1), mask
    model.clip_velocity(noise(2, 6), *arguments).square().mean().backward()
    assert [name for name, p in trained.named_parameters() if p.grad is None or not p.grad.isfinite().all()] == []
    with torch.autocast("cpu", torch.bfloat16):
        half = model.clip_velocity(noise(2, 6), *arguments)
    half.float().square().mean().backward()
    assert (half - model.clip_velocity(noise(2, 6), *arguments)).abs().max() < 0.1
    trained.enable_gradient_checkpointing()
    with pytest.raises(ModelError, match="gradient checkpointing"):
        model.clip_velocity(noise(2, 6), *arguments)


def test_without_work_the_model_is_unchanged(transformer, model):
    arguments = noise(2), torch.tensor([TIME, 10.0]), prompt().expand(2, -1, -1)
    plain = transformer(*arguments, return_dict=False)[0]
    assert torch.equal(model.transformer(*arguments, return_dict=False)[0], plain)
    again = StreamingTransformer(model.transformer)  # a second wrapper does not stack processors
    assert not isinstance(
        next(iter(again.transformer.attn_processors.values())).usual, wan_attention.StreamingProcessor
    )


def test_half_precision_keeps_positions_exact(transformer, model):
    half = StreamingTransformer(copy.deepcopy(transformer).to(torch.bfloat16))
    positions = torch.tensor([0, 500, 1023])
    close(half.rotations(positions, SIZE), model.rotations(positions, SIZE), 1e-6)
    outs = []
    for streaming in (half, model):
        context = past(streaming, streaming.text(prompt()), 3)
        outs.append(streaming.velocity(noise(2), torch.full((2,), TIME), [context] * 2))
    assert outs[0].dtype == torch.float32 and context.blocks[0].keys.dtype == torch.float32
    assert (outs[0] - outs[1]).abs().mean() < 0.05 * outs[1].abs().mean()


def test_errors_say_what_is_wrong(transformer, model):
    text = model.text(prompt())
    context = model.context(Cache(), text, SIZE)
    late = replace(context, start=1022)
    with pytest.raises(ModelError, match="frame 1024 is beyond the model's 1024"):
        model.velocity(noise(), torch.tensor([TIME]), [late])
    assert model.velocity(noise(), torch.tensor([TIME]), [replace(context, start=1021)]).isfinite().all()
    with pytest.raises(ValueError, match="2 rows, timesteps 1 and contexts 2"):
        model.velocity(noise(2), torch.tensor([TIME]), [context] * 2)
    with pytest.raises(ValueError, match=r"latents are \(4, 4\)"):
        model.velocity(torch.zeros(1, 4, 3, 4, 4), torch.tensor([TIME]), [context])
    with pytest.raises(ValueError, match="divisible"):
        model.grid((5, 4))
    other = copy.deepcopy(transformer)
    other.register_to_config(image_dim=32)
    with pytest.raises(ModelError, match="image-to-video"):
        StreamingTransformer(other)


@pytest.mark.parametrize("chunks, rows", [(0, 1), (3, 1), (3, 4)])
def test_flops_are_those_that_torch_counts(transformer, model, chunks, rows):
    embeds = prompt(7)

    def attention(query, key, value, *_, out_val=None, **__) -> int:  # torch does not know its own CPU operator
        n, heads, own, dim = query
        return 4 * n * heads * own * key[2] * dim

    known = {torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: attention}
    with FlopCounterMode(display=False, custom_mapping=known) as counter:
        text = model.text(embeds)
    assert counter.get_total_flops() == text_flops(transformer.config, 7)
    context = past(model, text, chunks) if chunks else model.context(Cache(), text, SIZE)
    with FlopCounterMode(display=False, custom_mapping=known) as counter:
        model.velocity(noise(rows), torch.full((rows,), TIME), [context] * rows)
    assert counter.get_total_flops() == flops(transformer.config, rows, 3, SIZE, 3 * chunks, 7)
