"""Train the pocket video autoencoder: an ``AutoencoderKLWan`` without temporal downsampling, on single frames.

A sprites frame can be drawn without its neighbours, so the temporal taps of every causal convolution are zero and stay
zero: decoding a chunk alone equals decoding the whole stream. Training therefore runs each causal convolution as the
2-D convolution of its last tap, which is three times cheaper and gives the same gradients.

    python recipes/video/autoencoder.py --out work/vae            # resumable: run it again to go on
"""

from __future__ import annotations

import argparse
import copy
import json
import math
import time
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from diffusers import AutoencoderKLWan
from diffusers.models.autoencoders.autoencoder_kl_wan import WanCausalConv3d

from prunus.worlds import sprites
from prunus.worlds.sprites.render import BACKGROUND as BACKGROUND_RGB

Z_DIM = 8
# (frame size, steps, batch, first learning rate): whole frames, then crops around sprites, where the detail is.
PHASES = ((64, 1750, 16, 2e-3), (32, 1000, 48, 1.5e-3), (32, 1600, 48, 1.5e-3))


BACKGROUND = torch.tensor(BACKGROUND_RGB)[:, None, None, None] / 127.5 - 1


def build() -> AutoencoderKLWan:
    vae = AutoencoderKLWan(
        base_dim=16,
        decoder_base_dim=16,
        z_dim=Z_DIM,
        dim_mult=[1, 2, 4, 4],
        num_res_blocks=1,
        temperal_downsample=[False, False, False],
        latents_mean=[0.0] * Z_DIM,
        latents_std=[1.0] * Z_DIM,
        scale_factor_temporal=1,
    )
    for module in vae.modules():
        if isinstance(module, WanCausalConv3d):
            module.weight.data[:, :, :-1] = 0
    return vae


def last_tap(self: WanCausalConv3d, x: torch.Tensor, cache_x: torch.Tensor | None = None) -> torch.Tensor:
    n, _, t = x.shape[:3]
    y = F.conv2d(x.transpose(1, 2).flatten(0, 1), self.weight[:, :, -1], self.bias, padding=self._padding[2])
    return y.unflatten(0, (n, t)).transpose(1, 2)


def frame(rng: np.random.Generator) -> tuple[np.ndarray, sprites.Scene]:
    """One random frame (3, 64, 64) of a training scene, an eighth of them behind a curtain, and its scene."""
    scene = sprites.sample(rng)
    time_ = int(rng.integers(sprites.SHORT))
    centres = [tuple(int(v) for v in track[time_]) for track in scene.centres(sprites.SHORT)]
    curtain = sprites.scene.Curtain(int(rng.integers(0, 41)), 0) if rng.random() < 0.125 else None
    still = sprites.Scene(scene.sprites, tuple(centres), curtain)
    return sprites.render(still, 1)[0], still


def frames(rng: np.random.Generator, count: int, size: int = 64) -> torch.Tensor:
    """Random frames (count, 3, size, size); a crop is aligned to the latent grid and holds a sprite's centre."""
    out = []
    for _ in range(count):
        image, still = frame(rng)
        x, y = still.starts[int(rng.integers(len(still.starts)))]
        left, top = (int(np.clip((v - rng.integers(4, size - 4)) // 8 * 8, 0, 64 - size)) for v in (x, y))
        out.append(image[:, top : top + size, left : left + size])
    return torch.from_numpy(np.stack(out))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--smoke", action="store_true", help="a few steps, to see that everything runs")
    args = parser.parse_args()
    phases = ((64, 2, 2, 2e-3), (32, 2, 4, 2e-3)) if args.smoke else PHASES
    plan = [(size, step / steps, batch, rate) for size, steps, batch, rate in phases for step in range(steps)]
    args.out.mkdir(parents=True, exist_ok=True)
    checkpoint = args.out / "checkpoint.pt"

    torch.manual_seed(args.seed)
    WanCausalConv3d.forward = last_tap
    vae = build()
    average = copy.deepcopy(vae)
    optimiser = torch.optim.AdamW(vae.parameters(), lr=2e-3, betas=(0.9, 0.99), weight_decay=0.0)
    start = 0
    if checkpoint.exists():
        saved = torch.load(checkpoint, weights_only=True)
        vae.load_state_dict(saved["model"])
        average.load_state_dict(saved["average"])
        optimiser.load_state_dict(saved["optimiser"])
        start = saved["step"]
    began = time.time()
    for step in range(start, len(plan)):
        size, progress, batch, rate = plan[step]
        rate *= min(1, progress * 20 + 0.01) * (0.5 * (1 + math.cos(math.pi * progress)) * 0.98 + 0.02)
        for group in optimiser.param_groups:
            group["lr"] = rate
        x = frames(np.random.default_rng([args.seed, step]), batch, size)[:, :, None] * 2 - 1
        mean, logvar = vae.quant_conv(vae.encoder(x)).chunk(2, 1)
        logvar = logvar.clamp(-12, 4)
        z = mean + torch.randn_like(mean) * (0.5 * logvar).exp()
        y = vae.decoder(vae.post_quant_conv(z))
        # Sprites are a small part of a frame: errors on them weigh five times.
        weight = 1 + 4 * ((x - BACKGROUND).abs().amax(1, keepdim=True) > 0.05)
        reconstruction = (weight * ((y - x).abs() + 2 * (y - x) ** 2)).mean()
        kl = 0.5 * (mean**2 + logvar.exp() - 1 - logvar).mean()
        loss = reconstruction + 2e-4 * kl
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(vae.parameters(), 1.0)
        optimiser.step()
        with torch.no_grad():
            decay = min(0.998, (step + 1) / (step + 10))
            for a, b in zip(average.parameters(), vae.parameters(), strict=True):
                a.lerp_(b, 1 - decay)
        if (step + 1) % 50 == 0 or step + 1 == len(plan):
            entry = {
                "step": step + 1,
                "reconstruction": round(reconstruction.item(), 5),
                "mse": round(((y - x) ** 2).mean().item() / 4, 6),
                "kl": round(kl.item(), 3),
                "seconds": round(time.time() - began),
            }
            print(json.dumps(entry), flush=True)
            with (args.out / "log.jsonl").open("a") as log:
                log.write(json.dumps(entry) + "\n")
        if (step + 1) % 250 == 0 or step + 1 == len(plan):
            state = {
                "model": vae.state_dict(),
                "average": average.state_dict(),
                "optimiser": optimiser.state_dict(),
                "step": step + 1,
            }
            torch.save(state, checkpoint.with_suffix(".tmp"))
            checkpoint.with_suffix(".tmp").replace(checkpoint)

    # Latents are handed to the transformer with zero mean and unit variance per channel.
    with torch.no_grad():
        x = frames(np.random.default_rng([args.seed, 10**6]), 256 if not args.smoke else 8)[:, :, None] * 2 - 1
        mean = average.quant_conv(average.encoder(x)).chunk(2, 1)[0]
        y = average.decoder(average.post_quant_conv(mean)).clamp(-1, 1)
        print("held-out mse in [0, 1]:", ((y - x) ** 2).mean().item() / 4)
    average.register_to_config(
        latents_mean=[round(v, 5) for v in mean.mean(dim=(0, 2, 3, 4)).tolist()],
        latents_std=[round(v, 5) for v in mean.std(dim=(0, 2, 3, 4)).tolist()],
    )
    average.half().save_pretrained(args.out / "vae")


if __name__ == "__main__":
    main()
