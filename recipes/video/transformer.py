"""Train the pocket streaming video model: a tiny ``WanTransformer3DModel`` with its text encoder, by diffusion forcing.

How clips are laid out and noised is in ``prunus.generators.diffusion_forcing``.

    python recipes/video/transformer.py --vae work/vae/vae --out work/video     # resumable: run it again to go on
"""

from __future__ import annotations

import argparse
import copy
import json
import time
from pathlib import Path
from typing import ClassVar

import numpy as np
import torch
from autoencoder import last_tap
from diffusers import AutoencoderKLWan, FlowMatchEulerDiscreteScheduler, WanTransformer3DModel
from diffusers.models.autoencoders.autoencoder_kl_wan import WanCausalConv3d
from muon import Muon
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast, UMT5Config, UMT5EncoderModel

from prunus.generators.diffusion_forcing import forcing_loss, layout, noised
from prunus.generators.wan_streaming import StreamingTransformer
from prunus.worlds import sprites

CHUNK = 3
TEXT_LENGTH = 12  # "a red circle moving right and a blue square moving up" and its end token
SHIFT = 5.0
BEST = {"keep": 2, "branch": 1, "first": 16}  # measured on the dev split, see docs/evidence/stream-t1.md
SEARCH = {"stream-t1": BEST, "beam": BEST}


def build_tokenizer() -> PreTrainedTokenizerFast:
    words = ["<pad>", "</s>", "<unk>", "a", "and"]
    words += [*sprites.COLOURS, *sprites.SHAPES, *dict.fromkeys(w for m in sprites.MOTIONS for w in m.split())]
    tokenizer = Tokenizer(models.WordLevel({w: i for i, w in enumerate(words)}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<pad>",
        eos_token="</s>",
        unk_token="<unk>",
        model_max_length=TEXT_LENGTH,
        model_input_names=["input_ids", "attention_mask"],
    )


def build_text_encoder(vocabulary: int) -> UMT5EncoderModel:
    config = UMT5Config(
        vocab_size=vocabulary,
        d_model=96,
        d_kv=24,
        d_ff=192,
        num_layers=2,
        num_heads=4,
        relative_attention_num_buckets=16,
        relative_attention_max_distance=16,
        dropout_rate=0.0,
        is_encoder_decoder=False,
        use_cache=False,
        tie_word_embeddings=True,
    )
    return UMT5EncoderModel(config)


def build_transformer(channels: int, layers: int = 6, heads: int = 6) -> WanTransformer3DModel:
    transformer = WanTransformer3DModel(
        patch_size=(1, 2, 2),
        num_attention_heads=heads,
        attention_head_dim=48,
        in_channels=channels,
        out_channels=channels,
        text_dim=96,
        freq_dim=128,
        ffn_dim=heads * 48 * 3,
        num_layers=layers,
    )
    torch.nn.init.zeros_(transformer.proj_out.weight)
    return transformer


class ClipPool:
    """Encoded training clips, a few of them replaced at every step; latents (clips, frames, c, 8, 8), normalised.

    The autoencoder codes frames one by one, and a lone sprite stands on a grid: its frames are coded once and kept.
    """

    coded: ClassVar[dict[tuple, torch.Tensor]] = {}

    def __init__(
        self, vae: AutoencoderKLWan, frames: int, size: int, one_sprite: float, rng: np.random.Generator
    ) -> None:
        self.vae, self.frames, self.one_sprite, self.rng = vae, frames, one_sprite, rng
        self.mean = torch.tensor(vae.config.latents_mean)[:, None, None]
        self.std = torch.tensor(vae.config.latents_std)[:, None, None]
        self.latents = torch.empty(size, frames, vae.config.z_dim, 8, 8)
        self.prompts = [""] * size
        self.oldest = 0
        self.refresh(size)

    def refresh(self, count: int) -> None:
        for _ in range(count):
            # A prompt of the training split: without a held-out pair.
            prompts = sprites.split("train", sprites=1 if self.rng.random() < self.one_sprite else 2)
            scene = sprites.stage(prompts[self.rng.integers(len(prompts))], self.rng, self.frames)
            self.latents[self.oldest] = self.encode(scene)
            self.prompts[self.oldest] = scene.prompt
            self.oldest = (self.oldest + 1) % len(self.prompts)

    def encode(self, scene: sprites.Scene) -> torch.Tensor:
        video = torch.from_numpy(sprites.render(scene, self.frames)) * 2 - 1
        if len(scene.sprites) > 1:
            return self._encode(video)
        sprite, (centres,) = scene.sprites[0], scene.centres(self.frames)
        keys = [(sprite.colour, sprite.shape, *centre) for centre in centres.tolist()]
        new = {key: i for i, key in enumerate(keys) if key not in self.coded}
        if new:
            self.coded.update(zip(new, self._encode(video[list(new.values())]), strict=True))
        return torch.stack([self.coded[key] for key in keys])

    @torch.no_grad()
    def _encode(self, video: torch.Tensor) -> torch.Tensor:
        z = self.vae.quant_conv(self.vae.encoder(video[:, :, None]))[:, : self.vae.config.z_dim, 0]
        return (z - self.mean) / self.std

    def draw(self, frames: torch.Tensor) -> tuple[torch.Tensor, list[str]]:
        """Random clips cut to the frames (n, f) asked for: latents (n, c, f, 8, 8) and prompts."""
        rows = torch.from_numpy(self.rng.integers(len(self.prompts), size=len(frames)))
        return self.latents[rows[:, None], frames].transpose(1, 2), [self.prompts[i] for i in rows]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--vae", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=3000)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--rate", type=float, default=8e-4)
    parser.add_argument("--heads", type=int, default=5)
    parser.add_argument("--layers", type=int, default=6)
    parser.add_argument("--one-sprite", type=float, default=0.65, help="share of clips with one sprite")
    parser.add_argument("--pool", type=int, nargs=2, default=(800, 120), help="encoded short and long clips")
    parser.add_argument("--start-from", type=Path, help="a model folder whose weights to begin with")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--smoke", action="store_true", help="a few steps, to see that everything runs")
    args = parser.parse_args()
    if args.smoke:
        args.steps, args.batch, args.pool = 3, 4, (4, 2)
    args.out.mkdir(parents=True, exist_ok=True)
    checkpoint = args.out / "checkpoint.pt"

    torch.manual_seed(args.seed)
    WanCausalConv3d.forward = last_tap  # frames are encoded one by one
    vae = AutoencoderKLWan.from_pretrained(args.vae, torch_dtype=torch.float32).eval().requires_grad_(False)
    tokenizer = build_tokenizer()
    model = torch.nn.ModuleDict(
        {
            "text_encoder": build_text_encoder(len(tokenizer)),
            "transformer": build_transformer(vae.config.z_dim, args.layers, args.heads),
        }
    )
    if args.start_from:
        for name, kind in (("text_encoder", UMT5EncoderModel), ("transformer", WanTransformer3DModel)):
            model[name].load_state_dict(kind.from_pretrained(args.start_from / name).float().state_dict())
    average = copy.deepcopy(model)
    streaming = StreamingTransformer(model["transformer"])
    matrices = [p for p in model["transformer"].blocks.parameters() if p.ndim == 2]
    others = [p for p in model.parameters() if not any(p is matrix for matrix in matrices)]
    optimisers = [
        torch.optim.AdamW(others, lr=args.rate, betas=(0.9, 0.97), weight_decay=0.01),
        Muon(matrices, lr=2 * args.rate),
    ]
    groups = [group for optimiser in optimisers for group in optimiser.param_groups]
    rates = [group["lr"] for group in groups]
    start = 0
    if checkpoint.exists():
        saved = torch.load(checkpoint, weights_only=True)
        model.load_state_dict(saved["model"])
        average.load_state_dict(saved["average"])
        for optimiser, state in zip(optimisers, saved["optimisers"], strict=True):
            optimiser.load_state_dict(state)
        start = saved["step"]
    print(f"{sum(p.numel() for p in model.parameters()) / 1e6:.2f} M parameters; from step {start}", flush=True)

    rng = np.random.default_rng([args.seed, start])
    began = time.time()
    short = ClipPool(vae, sprites.SHORT, args.pool[0], args.one_sprite, rng)
    long = ClipPool(vae, sprites.LONG, args.pool[1], args.one_sprite, rng)
    print(f"pools encoded in {time.time() - began:.0f} s", flush=True)
    began, losses = time.time(), []
    for step in range(start, args.steps):
        # warm up, hold, then fall to nothing over the last third
        left = (args.steps - step) / args.steps
        for group, rate in zip(groups, rates, strict=True):
            group["lr"] = rate * min(1, (step + 1) / 100, left * 3 + 0.01)
        where = layout(rng, args.batch, CHUNK, sprites.LONG)
        clean, prompts = (long if where.long else short).draw(where.positions)
        batch = noised(clean, where, SHIFT, rng)
        tokens = tokenizer(prompts, padding="max_length", max_length=TEXT_LENGTH, return_tensors="pt")
        text = model["text_encoder"](**tokens).last_hidden_state * tokens.attention_mask[..., None]
        loss = forcing_loss(streaming, batch, text)
        model.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for optimiser in optimisers:
            optimiser.step()
        with torch.no_grad():
            decay = min(0.998, (step + 1) / (step + 10))
            for a, b in zip(average.parameters(), model.parameters(), strict=True):
                a.lerp_(b, 1 - decay)
        losses.append(loss.item())
        short.refresh(2)
        long.refresh(step % 10 == 0)
        if (step + 1) % 25 == 0 or step + 1 == args.steps:
            entry = {"step": step + 1, "loss": round(float(np.mean(losses)), 5), "seconds": round(time.time() - began)}
            losses = []
            print(json.dumps(entry), flush=True)
            with (args.out / "log.jsonl").open("a") as log:
                log.write(json.dumps(entry) + "\n")
        if (step + 1) % 100 == 0 or step + 1 == args.steps:
            state = {
                "model": model.state_dict(),
                "average": average.state_dict(),
                "optimisers": [optimiser.state_dict() for optimiser in optimisers],
                "step": step + 1,
            }
            torch.save(state, checkpoint.with_suffix(".tmp"))
            checkpoint.with_suffix(".tmp").replace(checkpoint)
            export(args.out / "model", vae, tokenizer, average)


def export(folder: Path, vae: AutoencoderKLWan, tokenizer: PreTrainedTokenizerFast, model: torch.nn.ModuleDict) -> None:
    """Write the diffusers folder in half precision, with its streaming.json."""
    half = copy.deepcopy(model).half()
    half["transformer"].save_pretrained(folder / "transformer")
    half["text_encoder"].save_pretrained(folder / "text_encoder")
    copy.deepcopy(vae).half().save_pretrained(folder / "vae")
    tokenizer.save_pretrained(folder / "tokenizer")
    FlowMatchEulerDiscreteScheduler(shift=SHIFT).save_pretrained(folder / "scheduler")
    colours, shapes, motions = ("|".join(names) for names in (sprites.COLOURS, sprites.SHAPES, sprites.MOTIONS))
    sprite = f"({colours}) ({shapes}) ({motions})"
    streaming = {
        "timesteps": [1000, 750, 500, 250],
        "shift": SHIFT,
        "chunk": CHUNK,
        "window": 4 * CHUNK,
        "sink": CHUNK,
        "max_sink": 5 * CHUNK,
        "text_length": TEXT_LENGTH,
        "trained_frames": sprites.LONG,
        "fps": sprites.FPS,
        "size": [sprites.SIZE, sprites.SIZE],
        "grammar": {"pattern": rf"a {sprite}( and a (?!\1 ){sprite})?", "words": sprites.scene.GRAMMAR},
        "world": "sprites",
        "search": SEARCH,
    }
    (folder / "streaming.json").write_text(json.dumps(streaming, indent=2) + "\n")
    for file in folder.rglob("*"):
        if file.name == "config.json":  # where the autoencoder was loaded from is nobody's business
            config = {k: v for k, v in json.loads(file.read_text()).items() if k != "_name_or_path"}
            file.write_text(json.dumps(config, indent=2) + "\n")
        if file.is_file():
            file.chmod(0o644)


if __name__ == "__main__":
    main()
